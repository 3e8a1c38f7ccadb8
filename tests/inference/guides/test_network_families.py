"""Families over the weights of networks: against dense linear algebra and the closed form, from saved to exported."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pyro import poutine
from scipy import stats

import latentrnn as lr
from latentrnn.inference.guides.parameters import JOINT, LowRankParameters, MultivariateParameters, NormalParameters
from tests.models.test_network_prior import Regression, known, make_data, network
from tests.oracles import Array

OFF = lr.Reporting(progress=False)
CPU = lr.Compute(device="cpu")


# -- families --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rank", [1, 3, None])
def test_the_low_rank_family_is_the_dense_normal_that_it_says(rank: int | None) -> None:
    """Density of a draw by SciPy under F F^T + diag(s^2), and moments of draws."""
    data = make_data()
    model = network(lr.VanillaRNN(3), lr.NetworkPrior(), data, lr.Deterministic())
    guide = lr.Guide(model, global_family="low_rank", global_rank=rank).double()
    family = guide.parameter_sites
    assert isinstance(family, LowRankParameters)
    assert family.factor.shape == (family.size, math.isqrt(family.size) if rank is None else rank)
    with torch.no_grad():
        family.loc.normal_(), family.log_scale.normal_(-1.0, 0.3), family.factor.normal_(0.0, 0.5)
    loc, scale, factor = (value.numpy(force=True) for value in (family.loc, family.log_scale.exp(), family.factor))
    covariance = factor @ factor.T + np.diag(scale**2)
    trace = poutine.trace(family).get_trace()
    flat = trace.nodes[JOINT]["value"].detach()
    found = trace.nodes[JOINT]["fn"].log_prob(flat).item()
    assert found == pytest.approx(stats.multivariate_normal.logpdf(flat.numpy(), loc, covariance), abs=1e-8)
    torch.manual_seed(0)
    drawn = family.joint().sample(torch.Size((20000,))).numpy()
    standard = np.linalg.solve(np.linalg.cholesky(covariance), (drawn - loc).T)
    assert np.abs(standard.mean(1)).max() * 20000**0.5 < 6
    assert np.abs(standard @ standard.T / 20000 - np.eye(family.size)).max() * (20000 / 2) ** 0.5 < 6


def optimum(regression: Regression, family: str, rank: int | None = None) -> tuple[Array, Array]:
    """Mean and covariance of weights and baseline that a family learns of a Bayesian linear regression."""
    guide = lr.Guide(regression.model, global_family=family, global_rank=rank).double()
    torch.manual_seed(0)
    optimizer = torch.optim.Adam(guide.parameters(), 0.05, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 500)
    for _ in range(500):
        optimizer.zero_grad()
        (-lr.elbo_terms(regression.model, guide, regression.data, num_particles=32).elbo()).backward()
        optimizer.step(), schedule.step()
    sites = guide.parameter_sites
    if isinstance(sites, NormalParameters):
        loc = torch.cat([sites.loc[name].flatten() for name in ("y_readout_weight", "y_readout_baseline")])
        scale = torch.cat([sites.log_scale[name].flatten() for name in ("y_readout_weight", "y_readout_baseline")])
        return loc.numpy(force=True), torch.diag(torch.exp(2 * scale)).numpy(force=True)
    scale = sites.log_scale.exp()
    if isinstance(sites, LowRankParameters):
        covariance = sites.factor @ sites.factor.T + torch.diag(scale**2)
    else:
        covariance = sites.joint().covariance_matrix
    return sites.loc.numpy(force=True), covariance.numpy(force=True)


@pytest.mark.parametrize(("family", "rank"), [("normal", None), ("multivariate", None), ("low_rank", 3)])
def test_guides_learn_the_moments_of_bayesian_linear_regression(family: str, rank: int | None) -> None:
    """Closed form: all of it, or, of independent weights, the best there is: its mean, and one over its precisions."""
    regression = Regression(known())
    mean, covariance = regression.posterior(0.9, 1.3)
    found, spread = optimum(regression, family, rank)
    sd = np.sqrt(np.diag(covariance))
    assert np.abs((found - mean) / sd).max() < 0.1
    if family == "normal":
        best = 1 / np.sqrt(np.diag(np.linalg.inv(covariance)))
        np.testing.assert_allclose(np.sqrt(np.diag(spread)), best, rtol=0.08)
        assert (best < 0.8 * sd).any()  # the control: these are not the marginal spreads
        return
    np.testing.assert_allclose(spread / np.outer(sd, sd), covariance / np.outer(sd, sd), atol=0.12)


def test_laplace_is_the_closed_form_of_a_last_layer() -> None:
    regression = Regression(known())
    mean, covariance = regression.posterior(0.9, 1.3)
    joint = lr.laplace(regression.model, regression.data, device="cpu").guide.parameter_sites.joint()
    assert np.abs(joint.mean.numpy(force=True) - mean).max() < 1e-9
    assert np.abs(joint.covariance_matrix.numpy(force=True) - covariance).max() < 1e-9


@pytest.mark.parametrize("cell", [lr.GRU, lr.LSTM, lr.VanillaRNN])
def test_laplace_takes_a_small_network_from_where_a_fit_left_it(cell: Any) -> None:
    """Curvature at the mode against second differences of the density along random directions."""
    rng = np.random.default_rng(0)
    data = lr.SequenceData.from_arrays(
        {"y": rng.poisson(1.0, (6, 8, 2))}, {"x": rng.normal(size=(6, 8, 1))}, dtype=torch.float64
    )
    prior = {"weights": lr.NetworkPrior(learned=False)}
    model = lr.LatentRNN(
        data.spec,
        transition=cell(2, priors=prior),
        latent=lr.Deterministic(fixed={"initial_state": 0.0}),
        observations={"y": lr.Poisson(priors=prior)},
    )
    fitted = lr.fit(
        model, lr.Guide(model, global_family="point"), data, steps=150, optimizer=lr.Adam(learning_rate=0.03),
        reporting=OFF, compute=CPU,
    )  # fmt: skip
    result = lr.laplace(model, data, given=fitted, device="cpu")
    assert int(result.stop_reason.split()[-3]) < 12
    family, exact = result.guide.double().parameter_sites, result.model.double()
    assert isinstance(family, MultivariateParameters)
    joint = family.joint()

    def density(flat: torch.Tensor) -> float:
        values = {name: value for name, (value, _) in family.unpack(flat).items()}
        with torch.no_grad():
            return float(poutine.trace(poutine.condition(exact, data=values)).get_trace(data).log_prob_sum())

    torch.manual_seed(0)
    mode, precision = joint.mean.detach(), joint.precision_matrix.detach()
    for _ in range(3):
        step = 2e-3 * torch.randn(family.size, dtype=torch.float64)
        curved = 2 * density(mode) - density(mode + step) - density(mode - step)
        assert curved == pytest.approx(float(step @ precision @ step), rel=2e-2)


# -- too large, or without a best point ------------------------------------------------------------------------------


def wide(**guide: Any) -> lr.Guide:
    data = make_data()
    model = network(lr.GRU(40), lr.NetworkPrior(learned=False), data, lr.Deterministic())
    return lr.Guide(model, **guide)


REFUSED: dict[str, tuple[Callable[[], object], str]] = {
    "multivariate": (
        lambda: wide(global_family="multivariate"),
        r"global_family='multivariate' over 5,\d+ parameters would have 3\d,\d+,\d+ numbers of its own, more than "
        r"4,194,304; use 'low_rank' or 'normal'",
    ),
    "flow": (lambda: wide(global_family="flow"), "global_family='flow' over 5,.* use 'low_rank' or 'normal'"),
    "a rank of independent weights": (
        lambda: wide(global_rank=3),
        "global_rank is of global_family='low_rank'; found 'normal'",
    ),
    "a rank of none": (lambda: wide(global_family="low_rank", global_rank=0), "global_rank must be a positive integer"),
    "a rank beyond all": (
        lambda: wide(global_family="low_rank", global_rank=10**4),
        "global_rank must be at most the 5.* numbers there are; found 10000",
    ),
    "a point without a best": (
        lambda: lr.Guide(network(lr.GRU(3), lr.NetworkPrior(), make_data(), lr.Deterministic()), global_family="point"),
        r"global_family='point' has no best point where \['transition.weights.scale', .*use 'normal', or NetworkPrior",
    ),
    "Laplace without a mode": (
        lambda: lr.laplace(Regression(lr.NetworkPrior()).model, Regression(lr.NetworkPrior()).data),
        r"laplace: \['y.readout.weights.scale', 'y.readout.weights.bias_scale'\] are inferred with the weights",
    ),
    "Laplace of many": (
        lambda: lr.laplace(
            network(lr.GRU(40), lr.NetworkPrior(learned=False), make_data(), lr.Deterministic()), make_data()
        ),
        r"laplace: 5,\d+ parameters have priors.* at most 2,048: put the prior on the weights of the last layer",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_done_is_refused_with_what_can(case: str) -> None:
    make, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("options", [{}, {"global_family": "low_rank", "global_rank": 5}])
def test_thousands_of_weights_are_no_matter(options: dict[str, Any]) -> None:
    guide = wide(**options)
    assert guide.parameter_sites is not None
    assert sum(p.numel() for p in guide.parameters()) < 8 * 5800


def test_weights_start_with_less_noise_the_more_of_them_there_are() -> None:
    """The noise of a unit's input starts at a twentieth of what it is fed, whatever its size."""
    for options in ({}, {"global_family": "low_rank"}):
        guide = wide(**options)
        torch.manual_seed(0)
        with torch.no_grad():
            first, second = (guide.parameter_sites() for _ in range(2))
        difference = {name: (first[name] - second[name]).std() / 2**0.5 for name in first}
        assert float(difference["transition.kernel.weight_hh_l0"]) == pytest.approx(0.05 / 40**0.5, rel=0.1)
        assert float(difference["transition.kernel.weight_ih_l0"]) == pytest.approx(0.05 / 2**0.5, rel=0.2)


# -- round trips -----------------------------------------------------------------------------------------------------

FAMILIES: dict[str, dict[str, Any]] = {
    "normal": {},
    "low rank": {"global_family": "low_rank", "global_rank": 2},
    "known scales at a point": {"global_family": "point"},
}


def fitted(kind: str, seeds: tuple[int, ...] = ()) -> Any:
    data = make_data()
    prior = lr.NetworkPrior(learned=kind != "known scales at a point")
    model = lr.LatentRNN(
        data.spec,
        transition=lr.GRU(3, priors={"weights": prior}),
        latent=lr.Innovations(2),
        observations={"n": lr.Poisson(priors={"weights": prior}), "v": lr.Gaussian()},
    )
    guide = lr.Guide(model, encoder=lr.RNNEncoder(3), **FAMILIES[kind])
    settings: dict[str, Any] = {
        "steps": 4, "batch_size": 2, "reporting": OFF, "compute": CPU, "objective": lr.ELBO(num_particles=2)
    }  # fmt: skip
    if seeds:
        return lr.fit_ensemble(model, guide, data, seeds=seeds, **settings)
    return lr.fit(model, guide, data, seed=0, **settings)


@pytest.mark.parametrize("kind", FAMILIES)
def test_a_fit_is_saved_and_everything_is_asked_of_it(kind: str, tmp_path: Path) -> None:
    result, data = fitted(kind), make_data()
    assert math.isfinite(result.history["kl/parameters"][-1])
    result.save(tmp_path / "fit")
    loaded = lr.load(tmp_path / "fit")
    assert loaded.model.config() == result.model.config()
    assert loaded.guide.config() == result.guide.config()
    posterior, again = (each.posterior(data, device="cpu") for each in (result, loaded))
    for name, drawn in posterior.parameters(3).items():
        assert torch.equal(drawn, again.parameters(3)[name]), name
    evidence = posterior.evidence("iwae", 4).values
    assert torch.equal(evidence, again.evidence("iwae", 4).values)
    assert torch.isfinite(evidence).all()
    assert torch.isfinite(posterior.evidence("smc", 8).values).all()
    valid = data.valid
    for values in (posterior.predictive(3), posterior.prior_predictive(3)):
        assert values["n"].shape == (3, *data.observations["n"].shape)
        assert torch.isfinite(values["n"][:, valid]).all()
    future = posterior.forecast(2, {"x": np.zeros((3, 2, 2))}, num_samples=4)
    assert future is not None
    online = lr.OnlineFilter(posterior, num_particles=4)
    step = {name: data.observations[name][0, 0].numpy() for name in ("n", "v")}
    assert math.isfinite(online.update(step, {"x": data.covariates["x"][0, 0].numpy()}).log_prob)


def test_tensors_are_exported_by_their_axes_or_left_out() -> None:
    posterior = fitted("normal").posterior(make_data(), device="cpu")
    settings: dict[str, Any] = {"num_samples": 4, "num_particles": 2, "latents": False, "prior_predictive": False}
    group = posterior.to_arviz(**settings, container="datatree")["posterior"]
    tensor = group["transition.kernel.weight_hh_l0"]
    assert tensor.dims == (
        "chain", "draw", "transition.kernel.weight_hh_l0_output", "transition.kernel.weight_hh_l0_input",
    )  # fmt: skip
    assert tensor.shape == (1, 4, 9, 3)
    assert group["transition.kernel.bias_hh_l0"].dims[2:] == ("transition.kernel.bias_hh_l0_unit",)
    assert group["n.readout.weight"].dims[2:] == ("n_channel", "n.readout.weight_unit")
    scales = group["transition.weights.scale"]
    assert list(scales.coords[scales.dims[-1]].values) == ["kernel.weight_ih_l0", "kernel.weight_hh_l0"]
    left = posterior.to_arviz(**settings, weights=False, container="datatree")
    assert set(left["posterior"].data_vars) == {
        f"{owner}.weights.{part}" for owner in ("transition", "n.readout") for part in ("scale", "bias_scale")
    }
    assert "standard_error" in left["log_evidence"]  # weights count, whether they are written or not


def test_intervals_are_conditional_on_what_has_no_prior() -> None:
    posterior = fitted("normal").posterior(make_data(), device="cpu")
    assert "transition" not in posterior.conditional_on
    assert "latent" in posterior.conditional_on


def test_an_ensemble_of_networks_with_priors() -> None:
    data = make_data()
    ensemble = fitted("normal", seeds=(0, 1))
    assert len(ensemble.members) == 2
    posterior = ensemble.posterior(data, device="cpu")
    assert torch.isfinite(posterior.evidence("iwae", 4).values).all()
    assert posterior.mean("n", num_samples=4).shape == data.observations["n"].shape
