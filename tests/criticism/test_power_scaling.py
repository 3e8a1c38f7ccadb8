"""Power-scaling sensitivities against closed forms, against ArviZ, and what they are conditional on."""

from __future__ import annotations

import math
from typing import Any

import arviz_stats
import numpy as np
import pyro.distributions as dist
import pytest
import torch
from scipy import stats

import latentrnn as lr
from latentrnn.criticism.power_scaling import CONFLICT, FINE, STRONG
from latentrnn.support import arviz_generations
from tests.generations import CONTAINERS, GENERATIONS, NEEDS_ZERO, install_arviz

QUIET = {"reporting": lr.Reporting(progress=False, check_priors=False), "compute": lr.Compute(device="cpu")}
ALPHAS = 1 / 1.01, 1.01  # which ArviZ 0.x takes; 1.x has 0.99 in the place of the first


def level_data(count: int, mean: float, noise: float, seed: int = 0) -> lr.SequenceData:
    values = np.random.default_rng(seed).normal(mean, noise, (count, 1, 1))
    return lr.SequenceData.from_arrays({"y": values}, dtype=torch.float64)


def level_model(data: lr.SequenceData, prior: Any, noise: float) -> lr.LatentRNN:
    head = lr.Gaussian(priors={"baseline": prior}, fixed={"weight": 0.0, "scale": noise})
    return lr.LatentRNN(data.spec, transition=lr.GRU(1), latent=lr.Deterministic(), observations={"y": head})


# -- closed forms --------------------------------------------------------------------------------------------------


def cjs_distance(one: Any, other: Any, x: np.ndarray) -> float:
    """Cumulative Jensen-Shannon distance of two distribution functions over an interval, by quadrature."""
    p, q = one(x), other(x)
    middle = (p + q) / 2

    def divergence(a: np.ndarray, b: np.ndarray) -> float:
        logs = np.log2(np.where(a > 0, a, 1.0) / np.where(a > 0, middle, 1.0))
        return float(np.trapezoid(a * logs, x) + np.trapezoid(b - a, x) / (2 * math.log(2)))

    return math.sqrt((divergence(p, q) + divergence(q, p)) / np.trapezoid(p + q, x))


def distance(one: Any, other: Any, low: float, high: float) -> float:
    x = np.linspace(low, high, 20_001)
    mirrored = [lambda t, d=each: d.sf(-t) for each in (one, other)]
    return max(cjs_distance(one.cdf, other.cdf, x), cjs_distance(*mirrored, -x[::-1]))


def conjugate(m: float, s: float, data: lr.SequenceData, noise: float, a: float, b: float) -> Any:
    """Normal(m, s^2)^a times the likelihood^b, normalised."""
    y = data.observations["y"].double().numpy()
    precision = a / s**2 + b * y.size / noise**2
    return stats.norm((a * m / s**2 + b * y.sum() / noise**2) / precision, precision**-0.5)


CASES = {
    CONFLICT: (0.0, 0.5, 10, 1.0, 3.0),  # prior mean and deviation; entries, their noise and mean
    FINE: (0.0, 100.0, 50, 1.0, 3.0),
    STRONG: (0.0, 1.0, 4, 10.0, 3.0),
}


@pytest.mark.parametrize("expected", CASES)
def test_sensitivities_are_those_of_the_conjugate_normal_model(expected: str) -> None:
    m, s, count, noise, mean = CASES[expected]
    data = level_data(count, mean, noise)
    model = level_model(data, dist.Normal(m, s), noise)
    posterior = lr.laplace(model, data, device="cpu", check_priors=False).posterior(data, device="cpu")
    scaling = posterior.power_scaling()
    (row,) = scaling.rows
    assert row["parameter"] == "y.readout.baseline[0]"
    assert row["diagnosis"] == expected
    draws = posterior.parameters(scaling.num_samples)["y.readout.baseline"]
    ends = float(draws.min()), float(draws.max())
    whole = conjugate(m, s, data, noise, 1.0, 1.0)
    for component in ("prior", "likelihood"):
        powers = [(a, 1.0) if component == "prior" else (1.0, a) for a in ALPHAS]
        moved = [distance(whole, conjugate(m, s, data, noise, *both), *ends) for both in powers]
        slope = (moved[0] / -math.log2(ALPHAS[0]) + moved[1] / math.log2(ALPHAS[1])) / 2
        assert row[component] == pytest.approx(slope, rel=0.12, abs=1e-4), component


def test_densities_of_draws_are_those_of_scipy() -> None:
    data = level_data(6, 1.0, 2.0)
    priors = {"baseline": dist.Normal(0.5, 2.0), "scale": dist.LogNormal(0.1, 0.4)}
    head = lr.Gaussian(priors=priors, fixed={"weight": 0.0})
    model = lr.LatentRNN(data.spec, transition=lr.GRU(1), latent=lr.Deterministic(), observations={"y": head})
    posterior = lr.laplace(model, data, device="cpu").posterior(data, device="cpu")
    drawn, found = posterior.parameters(9), posterior.log_prior(9)
    level, scale = (drawn[name].numpy()[:, 0] for name in ("y.readout.baseline", "y.scale"))
    np.testing.assert_allclose(found["y.readout.baseline"], stats.norm(0.5, 2.0).logpdf(level), rtol=1e-6)
    np.testing.assert_allclose(found["y.scale"], stats.lognorm(0.4, scale=math.exp(0.1)).logpdf(scale), rtol=1e-6)
    y = data.observations["y"].numpy()[:, 0, 0]
    np.testing.assert_allclose(
        posterior.log_likelihood(num_draws=9), stats.norm.logpdf(y, level[:, None], scale[:, None]), rtol=1e-6
    )


def test_likelihoods_of_many_draws_are_those_of_single_ones() -> None:
    """Where nothing but parameters is random, all draws are evaluated together, in parts that fit."""
    data = level_data(6, 1.0, 2.0)
    model = level_model(data, dist.Normal(0.0, 3.0), 2.0)
    result = lr.laplace(model, data, device="cpu")
    posterior = result.posterior(data, device="cpu")
    found = posterior.log_likelihood(num_draws=7)
    parts = result.posterior(data, device="cpu", max_elements=2).log_likelihood(num_draws=7)
    torch.testing.assert_close(parts, found, rtol=0, atol=1e-12)
    level = posterior.parameters(7)["y.readout.baseline"][:, 0].numpy()
    y = data.observations["y"].numpy()[:, 0, 0]
    np.testing.assert_allclose(found, stats.norm.logpdf(y, level[:, None], 2.0), rtol=1e-6)


# -- ArviZ ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fitted() -> tuple[lr.FitResult, lr.SequenceData]:
    data = level_data(12, 1.0, 1.0)
    head = lr.Gaussian(priors={"baseline": dist.Normal(0.0, 0.3), "scale": dist.HalfNormal(1.0)}, fixed={"weight": 0.0})
    model = lr.LatentRNN(data.spec, transition=lr.GRU(1), latent=lr.Deterministic(), observations={"y": head})
    return lr.laplace(model, data, device="cpu"), data


@pytest.mark.parametrize("kind", GENERATIONS)
def test_it_is_what_arviz_finds_in_what_is_exported(fitted: Any, kind: int, monkeypatch: pytest.MonkeyPatch) -> None:
    result, data = fitted
    install_arviz(monkeypatch, "0.23.4" if kind == 0 else "1.3.0")
    posterior = result.posterior(data, device="cpu")
    scaling = posterior.power_scaling(num_samples=500)
    exported = posterior.to_arviz(num_samples=500, prior_predictive=False, latents=False)
    for whole in (exported, scaling.to_arviz()):
        for component in ("prior", "likelihood"):
            if kind == 0:
                found = arviz_generations.library().psens(whole, component=component)
            else:
                found = arviz_stats.psense(whole, group=component)
            expected = [row[component] for row in scaling.rows]
            np.testing.assert_allclose([float(value.item()) for value in found.data_vars.values()], expected)


def test_arviz_one_summarises_it(fitted: Any) -> None:
    result, data = fitted
    whole = result.posterior(data, device="cpu").power_scaling(num_samples=500).to_arviz(container="datatree")
    table = arviz_stats.psense_summary(whole)
    assert table.index.tolist() == ["y.scale[0]", "y.readout.baseline[0]"]
    assert table["diagnosis"].tolist() == [CONFLICT, CONFLICT]


@pytest.mark.parametrize("container", CONTAINERS)
def test_densities_of_priors_are_exported(fitted: Any, container: Any, tmp_path: Any) -> None:
    result, data = fitted
    posterior = result.posterior(data, device="cpu")
    exported = posterior.to_arviz(num_samples=20, container=container)
    found = {name: values.dims for name, values in exported["log_prior"].data_vars.items()}
    assert found == dict.fromkeys(["y.readout.baseline", "y.scale"], ("chain", "draw"))
    np.testing.assert_array_equal(exported["log_prior"]["y.scale"][0], posterior.log_prior(20)["y.scale"])
    if container == "inferencedata":
        stored = arviz_generations.library().from_netcdf(str(posterior.to_netcdf(tmp_path / "x.nc", num_samples=20)))
        np.testing.assert_array_equal(stored.log_prior["y.scale"], exported["log_prior"]["y.scale"])


# -- all ways to a posterior ---------------------------------------------------------------------------------------


def test_chains_guides_and_the_mode_agree() -> None:
    data = level_data(10, 3.0, 1.0)
    model = level_model(data, dist.Normal(0.0, 0.5), 1.0)
    found = {
        "laplace": lr.laplace(model, data, device="cpu", check_priors=False).posterior(data, device="cpu"),
        "sample": lr.sample(model, data, num_samples=500, warmup=200, device="cpu", progress=False),
        "fit": lr.fit(
            model, lr.Guide(model), data, steps=400, optimizer=lr.AdamW(0.05), **QUIET
        ).posterior(data, device="cpu"),
    }  # fmt: skip
    tables = {name: posterior.power_scaling() for name, posterior in found.items()}
    exact = tables["laplace"].rows[0]
    for name, scaling in tables.items():
        assert scaling.rows[0]["diagnosis"] == CONFLICT, name
        for component in ("prior", "likelihood"):
            assert scaling.rows[0][component] == pytest.approx(exact[component], rel=0.25), (name, component)
    assert "draws of the chains" in str(tables["sample"])
    assert "draws of the guide, which stand for those of the posterior" in str(tables["fit"])
    assert tables["sample"].num_samples == 2000


def test_what_was_learned_as_a_point_is_said_to_be_taken_as_known() -> None:
    data = level_data(10, 3.0, 1.0)
    head = lr.Gaussian(priors={"baseline": dist.Normal(0.0, 0.5)})
    model = lr.LatentRNN(data.spec, transition=lr.GRU(2), latent=lr.Deterministic(), observations={"y": head})
    posterior = lr.fit(model, lr.Guide(model), data, steps=5, **QUIET).posterior(data, device="cpu")
    scaling = posterior.power_scaling(num_samples=200)
    assert posterior.conditional_on is not None
    assert f"all of it conditional on {posterior.conditional_on}, which would move as well" in scaling.remarks
    exported = posterior.to_arviz(num_samples=20, container="datatree")
    assert "log_prior" in exported.children
    assert "log_likelihood" not in exported.children, "PSIS-LOO would mean nothing"
    assert "log_likelihood" in scaling.to_arviz(container="datatree").children


def test_latents_are_integrated_out_or_given() -> None:
    rng = np.random.default_rng(0)
    data = lr.SequenceData.from_arrays({"y": rng.normal(1.0, 1.0, (5, 4, 1))}, dtype=torch.float64)
    head = lr.Gaussian(priors={"baseline": dist.Normal(0.0, 1.0)}, fixed={"weight": 1.0, "scale": 0.7})
    still = lr.Linear(1, fixed={"weight": 0.5, "input_weight": 0.0, "bias": 0.0})
    latent = lr.MarkovNormal(fixed={"scale": 0.5, "initial_loc": 0.0, "initial_scale": 1.0})
    model = lr.LatentRNN(data.spec, transition=still, latent=latent, observations={"y": head})
    options = {"num_samples": 300, "warmup": 200, "chains": 2, "device": "cpu", "progress": False}
    chains = lr.sample(model, data, **options)
    joint = chains.power_scaling()
    assert "likelihood: given the draws of the local latents" in joint.remarks
    latents, level = chains.latents(600)["states"], chains.parameters(600)["y.readout.baseline"]
    means = (latents + level[:, None, None]).numpy()
    expected = stats.norm.logpdf(data.observations["y"].numpy(), means, 0.7).sum((-1, -2))
    np.testing.assert_allclose(chains.log_likelihood_of_draws(600), expected, rtol=1e-9)
    np.testing.assert_allclose(
        joint.groups["log_likelihood"]["log_likelihood"].values.reshape(600, 5), expected, rtol=1e-9
    )
    guide = lr.Guide(model, encoder=lr.RNNEncoder(4), family=lr.GaussianChain())
    result = lr.fit(model, guide, data, steps=50, optimizer=lr.AdamW(0.03), **QUIET)
    integrated = result.posterior(data, device="cpu").power_scaling(num_samples=100, num_particles=8)
    assert "likelihood: local latents integrated out" in integrated.remarks


def test_members_of_a_population_have_no_prior_to_scale() -> None:
    data = level_data(10, 3.0, 1.0)
    shared = lr.Population("levels", location=dist.Normal(0.0, 1.0), scale=dist.HalfNormal(1.0))
    model = level_model(data, shared, 1.0)
    posterior = lr.fit(model, lr.Guide(model), data, steps=5, **QUIET).posterior(data, device="cpu")
    scaling = posterior.power_scaling(num_samples=200)
    assert [row["parameter"] for row in scaling.rows] == [
        "levels.location", "levels.scale", "y.readout.baseline[0]",
    ]  # fmt: skip
    assert set(scaling.groups["log_prior"]) == {"levels.location", "levels.scale"}
    assert any("not scaled: y.readout.baseline: their priors are learned" in remark for remark in scaling.remarks)
    drawn, found = posterior.parameters(7), posterior.log_prior(7)
    given = stats.norm(drawn["levels.location"], drawn["levels.scale"])
    np.testing.assert_allclose(found["y.readout.baseline"], given.logpdf(drawn["y.readout.baseline"][:, 0]), rtol=1e-5)


def test_weights_of_networks_are_left_out_and_not_scaled() -> None:
    data = level_data(6, 1.0, 1.0)
    head = lr.Gaussian(priors={"weights": lr.NetworkPrior(), "scale": dist.HalfNormal(1.0)})
    model = lr.LatentRNN(data.spec, transition=lr.GRU(2), latent=lr.Deterministic(), observations={"y": head})
    posterior = lr.fit(model, lr.Guide(model), data, steps=3, **QUIET).posterior(data, device="cpu")
    scaling = posterior.power_scaling(num_samples=100)
    names = {row["parameter"].partition("[")[0] for row in scaling.rows}
    scales = {"y.readout.weights.scale", "y.readout.weights.bias_scale"}
    assert names == {"y.scale"} | scales
    assert set(scaling.groups["log_prior"]) == names, "the prior of each weight is learned"
    whole = posterior.power_scaling(num_samples=100, weights=True)
    assert {row["parameter"].partition("[")[0] for row in whole.rows} == names | {
        "y.readout.weight", "y.readout.baseline",
    }  # fmt: skip
    assert posterior.summary(num_samples=20).shape[0] == len(scaling.rows)
    known = lr.Gaussian(priors={"weights": lr.NetworkPrior(learned=False)})
    model = lr.LatentRNN(data.spec, transition=lr.GRU(2), latent=lr.Deterministic(), observations={"y": known})
    posterior = lr.fit(model, lr.Guide(model), data, steps=3, **QUIET).posterior(data, device="cpu")
    with pytest.raises(ValueError, match="nothing but weights of networks has a posterior; see weights=True"):
        posterior.power_scaling(num_samples=100)
    with pytest.raises(ValueError, match="see weights=True"):
        posterior.summary(num_samples=20)
    scaling = posterior.power_scaling(num_samples=100, weights=True)
    assert set(scaling.groups["log_prior"]) == {"y.readout.weight", "y.readout.baseline"}


# -- the table -----------------------------------------------------------------------------------------------------


def test_the_table(fitted: Any) -> None:
    result, data = fitted
    scaling = lr.power_scaling(result.posterior(data, device="cpu"), num_samples=500)
    frame = scaling.to_dataframe()
    assert frame.index.tolist() == ["y.scale[0]", "y.readout.baseline[0]"]
    assert frame.columns.tolist() == ["prior", "likelihood", "diagnosis"]
    assert [row["parameter"] for row in scaling.flagged] == frame.index[frame["diagnosis"] != FINE].tolist()
    assert repr(scaling) == f"PowerScaling(2 entries, 500 draws, {len(scaling.flagged)} with a diagnosis)"
    assert "power-scaling sensitivity, 500 draws; sensitive above 0.05" in str(scaling)
    again, other = (lr.power_scaling(result.posterior(data, device="cpu"), num_samples=500, seed=s) for s in (0, 1))
    assert again.rows == scaling.rows
    assert other.rows != scaling.rows
    assert all(row["diagnosis"] == FINE for row in lr.power_scaling(
        result.posterior(data, device="cpu"), num_samples=500, threshold=50.0
    ).rows)  # fmt: skip


def test_what_is_refused(fitted: Any) -> None:
    result, data = fitted
    posterior = result.posterior(data, device="cpu")
    with pytest.raises(TypeError, match="posterior must be a Posterior"):
        lr.power_scaling(result)
    with pytest.raises(ValueError, match="num_samples must be at least 100; found 20"):
        posterior.power_scaling(num_samples=20)
    with pytest.raises(ValueError, match="threshold"):
        posterior.power_scaling(threshold=0.0)
    with pytest.raises(ValueError, match="conditioned on 12 sequences, of which these are 5 and 0 others"):
        result.posterior(data[:5], device="cpu").power_scaling()
    with pytest.raises(ValueError, match="conditioned on 12 sequences, of which these are 0 and 3 others"):
        result.posterior(level_data(3, 1.0, 1.0, seed=5), device="cpu").power_scaling()
    plain = lr.LatentRNN(data.spec, transition=lr.GRU(1), latent=lr.Deterministic(), observations={"y": lr.Gaussian()})
    with pytest.raises(ValueError, match="no parameter has a posterior"):
        lr.Posterior(plain, lr.Guide(plain), data, device="cpu").power_scaling()
    model = level_model(data, dist.Normal(0.0, 1.0), 1.0)
    with pytest.raises(ValueError, match="at one point"):
        lr.Posterior(model, lr.Guide(model, global_family="point"), data, device="cpu").power_scaling()
    held_out = lr.fit(model, lr.Guide(model), data[:8], data[8:], steps=2, **QUIET)
    assert held_out.posterior(data, device="cpu").power_scaling(num_samples=100).num_samples == 100
    with pytest.raises(ValueError, match="3 of 3 sequences were no part of the fit"):
        held_out.posterior(level_data(3, 1.0, 1.0, seed=5), device="cpu").power_scaling()
    chains = lr.sample(model, data, num_samples=200, warmup=100, chains=2, device="cpu", progress=False)
    with pytest.raises(ValueError, match="a multiple of the 2 chains; found 101"):
        chains.power_scaling(num_samples=101)


@NEEDS_ZERO
def test_an_ensemble_has_no_one_posterior(fitted: Any) -> None:
    _, data = fitted
    model = level_model(data, dist.Normal(0.0, 1.0), 1.0)
    mixture = lr.fit_ensemble(model, lr.Guide(model), data, seeds=(0, 1), steps=2, **QUIET).posterior(
        data, device="cpu"
    )
    with pytest.raises(TypeError, match="posterior must be a Posterior"):
        lr.power_scaling(mixture)
    assert "log_prior" not in mixture.to_arviz(num_samples=4).groups()
