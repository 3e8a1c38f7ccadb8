"""Uncertainty without priors: closed forms, other people's standard errors, and what data leave open is named."""

from __future__ import annotations

import copy
import dataclasses
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pyro.distributions as dist
import pytest
import statsmodels.api as sm
import torch
from scipy import optimize, stats

import latentrnn as lr
from latentrnn.inference.sampling.uncertainty.refits import Resampling
from latentrnn.inference.sampling.uncertainty.uncertainty import METHODS
from tests import oracles
from tests.linear_gaussian import Problem, Recording, as_model, exact_guide
from tests.oracles import Array

QUIET = {"reporting": lr.Reporting(progress=False), "compute": lr.Compute(device="cpu")}


def without_state(data: lr.SequenceData, head: lr.Observation) -> lr.LatentRNN:
    """A model of one head "y" whose state is known to be zero: a regression on the head's covariates alone."""
    memory = lr.LeakyIntegrator(1, fixed={"time_constant": 1.0, "input_weight": 0.0})
    still = lr.Deterministic(fixed={"initial_state": 0.0})
    return lr.LatentRNN(data.spec, transition=memory, latent=still, observations={"y": head}, inputs="clock")


def fitted(model: lr.LatentRNN, data: lr.SequenceData, *, steps: int = 20, **settings: Any) -> lr.FitResult:
    optimizer = lr.AdamW(learning_rate=0.03, weight_decay=0.0)
    return lr.fit(model, lr.Guide(model), data, steps=steps, **({"optimizer": optimizer} | QUIET | settings))


def ask(result: Any, data: lr.SequenceData, quantity: Any, **settings: Any) -> lr.Uncertainty:
    return lr.uncertainty(result, data, quantity, device="cpu", progress=False, **settings)


def regression(head: Callable[..., lr.Observation], y: Array, x: Array, **options: Any) -> tuple[Any, lr.SequenceData]:
    """A fit of y (sequence, time, channel) on x (sequence, time, feature)."""
    data = lr.SequenceData.from_arrays({"y": y}, {"x": x, "clock": np.ones_like(x[..., :1])}, dt=0.5)
    return fitted(without_state(data, head(covariates="x", fixed={"weight": 0.0}, **options)), data), data


def coefficients(model: lr.LatentRNN) -> dict[str, torch.Tensor]:
    found = model.observations["y"].coefficients()
    return {"baseline": found["baseline"], "slope": found["covariate_weight"]}


@pytest.mark.parametrize("max_dense", [1000, 0])
def test_a_gaussian_regression_has_its_closed_form_in_the_units_of_the_data(max_dense: int) -> None:
    """Cov[(b, w)] = s^2 (X'X)^{-1}, Var[s] = s^2 / (2 n) s of maximum likelihood; y in microvolts, x in hertz."""
    rng = np.random.default_rng(1)
    x = 3e3 + 1e3 * rng.normal(size=(12, 9, 2))
    y = 1e-6 * (5 + 2e-3 * x[..., :1] - 1e-3 * x[..., 1:] + 0.7 * rng.normal(size=(12, 9, 1)))
    result, data = regression(lr.Gaussian, y, x)

    def asked(model: lr.LatentRNN) -> dict[str, torch.Tensor]:
        return coefficients(model) | {"scale": model.observations["y"].noise_covariance.diagonal().sqrt()}

    found = ask(result, data, asked, max_dense=max_dense)
    design = np.column_stack([np.ones(x[..., 0].size), x.reshape(-1, 2)])
    expected, *_ = np.linalg.lstsq(design, y.ravel(), rcond=None)
    scale = np.sqrt(np.mean((y.ravel() - design @ expected) ** 2))
    covariance = scale**2 * np.linalg.inv(design.T @ design)
    assert found.entries == ("baseline", "slope[0, 0]", "slope[0, 1]", "scale")
    values = np.concatenate([found.mean["baseline"].numpy(), found.mean["slope"].numpy().ravel()])
    np.testing.assert_allclose(values, expected, rtol=1e-6)
    np.testing.assert_allclose(found.covariance[:3, :3].numpy(), covariance, rtol=1e-4)
    np.testing.assert_allclose(found.sd["slope"].numpy().ravel(), np.sqrt(covariance.diagonal()[1:]), rtol=1e-4)
    assert found.mean["scale"].item() == pytest.approx(scale, rel=1e-6)
    assert found.sd["scale"].item() == pytest.approx(scale / np.sqrt(2 * y.size), rel=1e-4)
    assert found.units[3] == "of the data"
    # a positive quantity has its interval in logarithms, any other about itself
    low, high = found.interval(0.9)
    z = stats.norm.ppf(0.95)
    factor = np.exp(z / np.sqrt(2 * y.size))
    assert (low["scale"].item(), high["scale"].item()) == pytest.approx((scale / factor, scale * factor), rel=1e-4)
    assert high["slope"][0, 0].item() == pytest.approx(expected[1] + z * np.sqrt(covariance[1, 1]), rel=1e-6)
    assert found.remaining.gain < 1e-12
    assert not found.flat_directions
    assert not found.negative_directions


@pytest.mark.parametrize("max_dense", [1000, 0])
def test_standard_errors_of_a_logistic_regression_are_those_of_statsmodels(max_dense: int) -> None:
    rng = np.random.default_rng(2)
    x = rng.normal(size=(20, 15, 3))
    y = (rng.random((20, 15, 1)) < 1 / (1 + np.exp(-(0.4 + x @ [[1.0], [-0.5], [0.2]])))).astype(float)
    result, data = regression(lr.Bernoulli, y, x)
    found = ask(result, data, coefficients, max_dense=max_dense)
    expected = sm.Logit(y.ravel(), sm.add_constant(x.reshape(-1, 3))).fit(disp=0, tol=1e-12)
    np.testing.assert_allclose(found._means.numpy(), expected.params, rtol=1e-6)
    np.testing.assert_allclose(found.covariance.numpy(), expected.cov_params(), rtol=1e-5)


def test_counts_have_the_standard_errors_of_statsmodels() -> None:
    rng = np.random.default_rng(3)
    x = rng.normal(size=(10, 12, 2))
    y = rng.poisson(np.exp(0.3 + x @ [[0.5], [-0.3]])).astype(float)
    result, data = regression(lr.Poisson, y, x)
    expected = sm.GLM(y.ravel(), sm.add_constant(x.reshape(-1, 2)), family=sm.families.Poisson()).fit(tol=1e-12)
    np.testing.assert_allclose(ask(result, data, coefficients).covariance.numpy(), expected.cov_params(), rtol=1e-5)


def memory(seed: int = 0, *, fixed: Mapping[str, float] | None = None) -> tuple[lr.FitResult, lr.SequenceData]:
    """y_t = -1 + 3 h_t + noise, h_t = exp(-0.5 s / tau) h_{t-1} + x_t, with tau = 5 s."""
    rng = np.random.default_rng(seed)
    x = (rng.random((15, 30, 1)) < 0.15).astype(float)
    h, seen = np.zeros((15, 1)), []
    for t in range(30):
        h = np.exp(-0.1) * h + x[:, t]
        seen.append(-1 + 3 * h + 0.5 * rng.normal(size=h.shape))
    data = lr.SequenceData.from_arrays({"y": np.stack(seen, 1)}, {"x": x}, dt=0.5)
    parts = {"transition": lr.LeakyIntegrator(1, fixed=fixed), "latent": lr.Deterministic(fixed={"initial_state": 0.0})}
    model = lr.LatentRNN(data.spec, observations={"y": lr.Gaussian()}, inputs="x", **parts)
    return fitted(model, data, steps=150), data


@pytest.fixture(scope="module")
def product() -> tuple[lr.FitResult, lr.SequenceData]:
    return memory()


def gains(model: lr.LatentRNN) -> dict[str, torch.Tensor]:
    weight = model.observations["y"].readout.weight
    return {"gain": weight * model.transition.input_weight, "weight": weight, "tau": model.transition.time_constant}


@pytest.mark.parametrize("max_dense", [1000, 0])
def test_two_weights_of_which_the_product_alone_matters_are_named(
    product: tuple[lr.FitResult, lr.SequenceData], max_dense: int
) -> None:
    result, data = product
    with pytest.warns(
        UserWarning, match=r"do not determine 'weight': it moves along a flat direction, of .*weight"
    ) as said:
        found = ask(result, data, gains, max_dense=max_dense)
    assert len(said) == 1
    assert said[0].filename == __file__
    (flat,) = found.flat_directions
    assert flat.kind == "flat"
    assert set(flat.entries) == set(flat.parameters) == {"transition.input_weight", "y.readout.weight"}
    assert flat.dimension == 1
    assert found.sd["weight"].isinf().all()
    assert found.notes[1].startswith("moves along a flat direction, of")
    assert (found.notes[0], found.notes[2]) == ("", "")
    # what the data determine is what it is where one of the two is known
    one_known, _ = memory(fixed={"input_weight": 1.0})
    known = ask(one_known, data, lambda model: {name: gains(model)[name] for name in ("weight", "tau")})
    assert found.sd["tau"].item() == pytest.approx(known.sd["tau"].item(), rel=1e-5)
    ratio = found.mean["gain"].item() / known.mean["weight"].item()  # readout weights are in units of the network's
    assert found.sd["gain"].item() == pytest.approx(known.sd["weight"].item() * ratio, rel=1e-5)
    assert known.conditional_on == "known values of transition.input_weight, latent.initial_state"
    low, high = found.interval()
    assert (low["weight"].item(), high["weight"].item()) == (-np.inf, np.inf)
    assert found.units[2] == "seconds"
    assert found.mean["tau"].item() == pytest.approx(5.0, abs=4 * found.sd["tau"].item())


def test_a_quantity_by_its_name_has_unit_and_support(product: tuple[lr.FitResult, lr.SequenceData]) -> None:
    result, data = product
    found = ask(result, data, "transition.time_constant")
    assert found.entries == ("transition.time_constant",)
    assert found.units == ("seconds",)
    mean, sd = found.mean.item(), found.sd.item()
    low, high = (end.item() for end in found.interval(0.95))
    factor = np.exp(stats.norm.ppf(0.975) * sd / mean)
    assert (low, high) == pytest.approx((mean / factor, mean * factor), rel=1e-9)


def test_every_learned_number_of_the_table_can_be_asked_for_by_name(
    product: tuple[lr.FitResult, lr.SequenceData],
) -> None:
    """Those of which no part says anything, too: they go by the names of their tensors."""
    result, data = product
    table = result.model.parameters_table()
    names = list(table.index[table["given"] == "point estimate"])
    assert "transition.input_weight" in names
    with pytest.warns(UserWarning, match="do not determine"):  # the product of two of them alone matters
        found = ask(result, data, names)
    assert list(found.mean) == names
    assert [name for name in names if found.sd[name].isinf().any()] == ["transition.input_weight", "y.readout.weight"]


def test_the_scale_of_an_interval_can_be_chosen(product: tuple[lr.FitResult, lr.SequenceData]) -> None:
    result, data = product

    def asked(model: lr.LatentRNN) -> dict[str, torch.Tensor]:
        tau = model.transition.time_constant
        return {"rate": 1 / tau, "retention": torch.exp(-0.5 / tau)}

    plain = ask(result, data, asked)
    low, high = plain.interval(0.9)
    z = stats.norm.ppf(0.95)
    mean, sd = plain.mean["rate"].item(), plain.sd["rate"].item()
    assert (low["rate"].item(), high["rate"].item()) == pytest.approx((mean - z * sd, mean + z * sd), rel=1e-9)
    low, high = ask(result, data, asked, transform={"rate": "log", "retention": "logit"}).interval(0.9)
    assert low["rate"].item() == pytest.approx(mean * np.exp(-z * sd / mean), rel=1e-9)
    mean, sd = plain.mean["retention"].item(), plain.sd["retention"].item()
    logit = np.log(mean / (1 - mean)) + z * sd / (mean * (1 - mean))
    assert high["retention"].item() == pytest.approx(1 / (1 + np.exp(-logit)), rel=1e-9)
    # the delta method is the same on every scale
    assert ask(result, data, lambda m: m.transition.log_time_constant).sd.item() == pytest.approx(
        ask(result, data, "transition.time_constant").sd.item()
        / ask(result, data, "transition.time_constant").mean.item()
    )


def test_of_many_names_each_has_its_own(product: tuple[lr.FitResult, lr.SequenceData]) -> None:
    result, data = product
    found = ask(result, data, ["transition.time_constant", "y.scale"])
    assert list(found.mean) == ["transition.time_constant", "y.scale"]
    table = found.summary(0.8)
    assert list(table.columns) == ["mean", "sd", "10%", "90%", "unit", "note"]
    assert list(table.index) == ["transition.time_constant", "y.scale"]
    assert table["unit"].tolist() == ["seconds", "of the data"]
    assert repr(found).startswith("Uncertainty(laplace: transition.time_constant ")
    assert "; 1 flat direction; conditional on known values of latent.initial_state)" in repr(found)


def test_weights_that_play_no_part_are_named_and_leave_open_what_follows_from_them() -> None:
    rng = np.random.default_rng(0)
    y = rng.normal(size=(6, 5, 2))
    result, data = regression(lr.Gaussian, y, rng.normal(size=(6, 5, 1)), covariance="full")
    for max_dense in (1000, 0):
        with pytest.warns(
            UserWarning, match=r"'quantity\[0, 0\]': it moves along y.correlation_factor.*, which plays no part"
        ):
            found = ask(result, data, lambda model: model.observations["y"].noise_ratio, max_dense=max_dense)
        assert found.sd.isinf().tolist() == [[True, True], [False, True]]  # what lies below the diagonal alone counts
        (unused,) = found.flat_directions
        assert unused.kind == "unused"
        assert unused.entries == (
            "y.correlation_factor[0, 0]",
            "y.correlation_factor[0, 1]",
            "y.correlation_factor[1, 1]",
        )


def test_parameters_with_priors_are_as_laplace_has_them() -> None:
    """The same density in unconstrained space, the same mode, the same curvature."""
    rng = np.random.default_rng(4)
    y = 2.0 + 0.5 * rng.normal(size=(6, 4, 1))
    data = lr.SequenceData.from_arrays({"y": y}, {"clock": np.ones_like(y)}, dtype=torch.float64)
    priors = {"baseline": dist.Normal(0.0, 1.0), "scale": dist.Gamma(2.0, 1.0)}
    model = without_state(data, lr.Gaussian(priors=priors, fixed={"weight": 0.0})).double()
    model.initialise(data)
    known = lr.laplace(model, data, device="cpu")
    joint = known.guide.parameter_sites.joint()
    found = ask(known, data, ["y.readout.baseline", "y.scale"])
    sd = joint.variance.sqrt().detach()
    names = list(model.parameter_sites())
    where = {name: i for i, name in enumerate(names)}
    scale = joint.mean[where["y.scale"]].exp().item()
    assert found.mean["y.scale"].item() == pytest.approx(scale, rel=1e-6)
    assert found.sd["y.scale"].item() == pytest.approx(scale * sd[where["y.scale"]].item(), rel=1e-6)
    assert found.sd["y.readout.baseline"].item() == pytest.approx(sd[where["y.readout.baseline"]].item(), rel=1e-6)
    assert found.conditional_on.startswith("known values of transition.")
    # beside a learned scale the baseline is less certain than where the scale is known
    half = without_state(data, lr.Gaussian(priors={"baseline": dist.Normal(0.0, 1.0)}, fixed={"weight": 0.0}))
    result = fitted(half.double(), data)
    assert ask(result, data, "y.scale").sd.item() == pytest.approx(scale / np.sqrt(2 * y.size), rel=0.2)


def test_a_population_is_a_penalty_too() -> None:
    """Members of a population with known location and scale shrink as under its Normal."""
    rng = np.random.default_rng(5)
    y = rng.poisson(2.0, (6, 5, 3)).astype(float)
    data = lr.SequenceData.from_arrays({"y": y}, {"clock": np.ones_like(y[..., :1])}, dtype=torch.float64)
    prior = dist.Normal(0.5, 0.2)
    model = without_state(data, lr.Poisson(priors={"baseline": prior}, fixed={"weight": 0.0}))
    result = fitted(model, data)
    found = ask(result, data, "y.readout.baseline")
    for total, mean, sd in zip(y.sum((0, 1)), found.mean.tolist(), found.sd.tolist(), strict=True):

        def energy(b: float, total: float = total) -> float:
            return 30 * np.exp(b) - total * b + (b - 0.5) ** 2 / 0.08

        mode = optimize.minimize_scalar(energy, bracket=(-1, 2), tol=1e-12).x
        assert mean == pytest.approx(mode, abs=1e-6)
        assert sd == pytest.approx((30 * np.exp(mode) + 25) ** -0.5, rel=1e-6)


def kalman_energy(raw: Array, ys: Array) -> float:
    """Minus the log evidence of scalar chains, (sequence, time), of (A, b, log q, C, d, log r, m_0, log s_0)."""
    a, b, log_q, c, d, log_r, mean, log_s = raw
    q, r, variance, total = np.exp(2 * log_q), np.exp(2 * log_r), np.exp(2 * log_s), 0.0
    mean = np.full(len(ys), mean)
    for y in ys.T:
        mean, variance = a * mean + b, a**2 * variance + q
        spread, error = c**2 * variance + r, y - d - c * mean
        total += stats.norm.logpdf(error, 0.0, np.sqrt(spread)).sum()
        mean, variance = mean + c * variance / spread * error, variance * r / spread
    return -total


def numeric_hessian(energy: Callable[[Array], float], at: Array, step: float = 1e-3) -> Array:
    """Central differences of fourth order in every pair."""
    size = len(at)
    found = np.zeros((size, size))
    eye = np.eye(size) * step

    def second(i: int, j: int, h: float) -> float:
        return (
            energy(at + h * (eye[i] + eye[j])) - energy(at + h * (eye[i] - eye[j]))
            - energy(at - h * (eye[i] - eye[j])) + energy(at - h * (eye[i] + eye[j]))
        ) / (4 * h**2 * step**2)  # fmt: skip

    for i in range(size):
        for j in range(i + 1):
            found[i, j] = found[j, i] = (4 * second(i, j, 1.0) - second(i, j, 2.0)) / 3
    return found


def chain(latent: lr.Latent, data: lr.SequenceData) -> lr.LatentRNN:
    heads = {"y": lr.Gaussian(covariance="full")}
    return lr.LatentRNN(data.spec, transition=lr.Linear(1), latent=latent, observations=heads).double()


def raw_numbers(model: lr.LatentRNN) -> torch.Tensor:
    transition, latent, head = model.transition, model.latent, model.observations["y"]
    parts = (
        transition.recurrent_weight, transition.bias + transition.input_weight[:, 0],  # the one input is a constant
        latent.log_scale, head.scale * head.readout.weight, head.location + head.scale * head.readout.baseline,
        head.log_noise_scale + head.scale.log(), latent.initial_loc, latent.initial_log_scale,
    )  # fmt: skip
    return torch.cat([part.reshape(-1) for part in parts])


def chains(seed: int, sequences: int, steps: int) -> Array:
    """z_t = 0.8 z_{t-1} + 0.1 + 0.7 noise, y_t = z_t + 0.3 + 0.6 noise, (sequence, time)."""
    rng = np.random.default_rng(seed)
    z, seen = rng.normal(size=sequences), []
    for _ in range(steps):
        z = 0.8 * z + 0.1 + 0.7 * rng.normal(size=sequences)
        seen.append(z + 0.3 + 0.6 * rng.normal(size=sequences))
    return np.stack(seen, 1)


def test_latents_that_are_summed_out_count_as_in_the_kalman_filter() -> None:
    """Every number of a linear-Gaussian chain is learned; where zero is and what unit states have, nothing tells."""
    ys = chains(6, 12, 25)
    data = lr.SequenceData.from_arrays({"y": ys[..., None]}, dtype=torch.float64)
    result = fitted(chain(lr.LinearGaussian(), data), data, steps=100)
    with pytest.warns(UserWarning, match="do not determine"):
        found = ask(result, data, raw_numbers)
    at = found.mean.numpy()
    hessian = numeric_hessian(lambda raw: kalman_energy(raw, ys), at)
    assert np.abs(optimize.approx_fprime(at, lambda raw: kalman_energy(raw, ys), 1e-6)).max() < 1e-2
    values, vectors = np.linalg.eigh(hessian)
    flat = np.abs(values) < 1e-6 * values.max()
    assert flat.sum() == 2
    moves = np.linalg.norm(vectors[:, flat], axis=1) > 1e-4
    assert found.sd.isinf().numpy().tolist() == moves.tolist()
    covariance = (vectors[:, ~flat] / values[~flat]) @ vectors[:, ~flat].T
    np.testing.assert_allclose(found.sd.numpy()[~moves], np.sqrt(covariance.diagonal())[~moves], rtol=1e-3)
    assert (~moves).sum() == 2  # the recurrent weight, and the noise of what is observed
    # a constant input and a bias are one more
    assert sum(each.dimension for each in found.flat_directions if each.kind == "flat") == 3
    assert found.conditional_on is None


def known_scale(latent: type[lr.Latent], data: lr.SequenceData) -> lr.LatentRNN:
    """A chain of which unit, zero and start of the states are known, so that nothing is flat."""
    known = {"initial_loc": 0.0, "initial_scale": 1.0, "scale": 1.0}
    moves = lr.Linear(1, fixed={"bias": 0.0, "input_weight": 0.0})
    heads = {"y": lr.Gaussian(covariance="full", fixed={"correlation_factor": [[1.0]]})}
    return lr.LatentRNN(data.spec, transition=moves, latent=latent(fixed=known), observations=heads).double()


def test_latents_that_are_drawn_are_integrated_out_by_importance() -> None:
    """With the exact posterior as guide, the standard deviations that the filter gives, which sums the latents out."""
    ys = chains(2, 20, 12)
    data = lr.SequenceData.from_arrays({"y": ys[..., None]}, dtype=torch.float64)
    result = fitted(known_scale(lr.LinearGaussian, data), data, steps=60)
    determined = [0, 3, 4, 5]
    expected = ask(result, data, lambda model: raw_numbers(model)[determined])
    a, c, d, log_r = expected.mean.tolist()
    numbers = oracles.LGSSM(
        A=np.array([[a]]), b=np.zeros(1), B=np.zeros((1, 0)), Q=np.eye(1), C=np.array([[c]]),
        d=np.array([d]), R=np.array([[np.exp(2 * log_r)]]), m0=np.zeros(1), S0=np.array([[a**2 + 1]]),
    )  # fmt: skip
    recordings = tuple(Recording(y[:, None], np.zeros((len(y), 0)), np.zeros((len(y), 1), dtype=bool)) for y in ys)
    problem = Problem(numbers, recordings)
    drawn, diagonal = known_scale(lr.MarkovNormal, data), as_model(problem, data)
    sign = float(
        torch.sign(diagonal.observations["y"].readout.weight.detach() * c)
    )  # of the basis of the guide's states
    with torch.no_grad():
        drawn.transition.recurrent_weight.fill_(a)
        head = drawn.observations["y"]
        head.readout.weight.fill_(sign * c), head.readout.baseline.fill_(d), head.log_noise_scale.fill_(log_r)
    given = lr.FitResult(drawn, exact_guide(problem), {}, "", 0, 0, {}, frozenset(data.keys))
    found = ask(given, data, lambda model: raw_numbers(model)[determined], num_particles=4000, polish=1)
    # what is left is Monte Carlo error, of a Hessian that is a difference of two large ones; were the states known, the
    # readout's weight would have a fifth of this
    np.testing.assert_allclose(found.sd.numpy(), expected.sd.numpy(), rtol=0.15)
    assert bool((found.mean.abs() - expected.mean.abs()).abs().lt(0.3 * expected.sd).all())
    assert expected.sd[1] > 4 * (np.exp(log_r) / np.sqrt(240 / (1 - a**2)))
    # few samples do not tell as much, and it is said
    for max_dense in (1000, 0):
        with warnings.catch_warnings(record=True) as said:  # of their mode and their error as well
            warnings.simplefilter("always")
            few = ask(
                given, data, lambda m: raw_numbers(m)[determined], num_particles=40, max_dense=max_dense, polish=0
            )
        # which of the two depends on the draws: a direction that cannot be told from flat, or an error beyond use
        assert any("raise num_particles" in str(each.message) for each in said)
        assert few.sd.isinf().any() or float((few.sd / expected.sd).log().abs().max()) > 0.1


def test_a_guide_that_does_not_cover_is_told_of() -> None:
    ys = chains(8, 6, 10)
    data = lr.SequenceData.from_arrays({"y": ys[..., None]}, dtype=torch.float64)
    model = chain(lr.MarkovNormal(), data)
    model.initialise(data)
    guide = lr.Guide(model, encoder=lr.RNNEncoder(2)).double()
    given = lr.FitResult(model, guide, {}, "", 0, 0, {}, frozenset(data.keys))
    with pytest.warns(UserWarning, match="uncertainty:") as said:
        ask(given, data, lambda model: model.latent.log_scale, polish=0)
    assert any("have a heavy tail" in str(each.message) for each in said)
    assert any("the point is no mode: a further step would gain" in str(each.message) for each in said)


def saddle() -> tuple[lr.FitResult, lr.SequenceData]:
    """Both factors of a gain at zero, where neither alone changes anything."""
    result, data = memory()
    model = result.model
    with torch.no_grad():
        model.transition.input_weight.zero_(), model.observations["y"].readout.weight.zero_()
        centred = data.observations["y"].mean()
        head = model.observations["y"]
        head.readout.baseline.copy_((centred - head.location) / head.scale)
    return result, data


@pytest.mark.parametrize("max_dense", [1000, 0])
def test_negative_curvature_is_never_hidden(max_dense: int) -> None:
    result, data = saddle()
    with pytest.warns(UserWarning, match="uncertainty:") as said:
        found = ask(result, data, gains, polish=0, max_dense=max_dense)
    text = " ".join(str(each.message) for each in said)
    assert "the density still rises along a direction of negative curvature, of " in text
    assert "do not determine 'weight': it moves along a direction of negative curvature" in text
    (negative,) = found.negative_directions
    assert set(negative.parameters) >= {"transition.input_weight", "y.readout.weight"}
    assert negative.curvature < 0
    assert found.remaining.lowest < 0
    assert found.sd["weight"].isnan().all()
    low, high = found.interval()
    assert low["weight"].isnan().all()
    assert high["weight"].isnan().all()


def test_the_way_to_the_mode_is_told() -> None:
    result, data = constant()
    stopped = copy.deepcopy(result)
    with torch.no_grad():
        stopped.model.observations["y"].log_noise_scale += 0.5
    with pytest.warns(UserWarning, match=r"a further step would gain [0-9.e+]+ nats and move an entry by .*now 0"):
        there = ask(stopped, data, lambda model: model.observations["y"].log_noise_scale, polish=0)
    assert there.remaining.steps == 0
    assert there.remaining.rise == 0
    found = ask(stopped, data, "y.scale")
    assert found.remaining.steps > 0
    assert found.remaining.rise > 1
    assert found.remaining.gain < 1e-10
    assert found.mean.item() == pytest.approx(ask(result, data, "y.scale").mean.item(), rel=1e-6)


def many_channels(channels: int, features: int, rows: int) -> tuple[lr.FitResult, lr.SequenceData, Array, Array]:
    """Regressions of many channels on the same features: weights by the thousand, each with a closed form."""
    rng = np.random.default_rng(9)
    x = rng.normal(size=(rows // 10, 10, features))
    y = x @ rng.normal(size=(features, channels)) + rng.normal(size=(rows // 10, 10, channels))
    result, data = regression(lr.Gaussian, y, x)
    return result, data, x.reshape(rows, features), y.reshape(rows, channels)


@pytest.mark.parametrize(
    ("channels", "features", "rows"), [(50, 48, 200), pytest.param(500, 98, 400, marks=pytest.mark.slow)]
)
def test_many_weights_take_products_with_the_hessian_alone(channels: int, features: int, rows: int) -> None:
    result, data, x, y = many_channels(channels, features, rows)
    size = sum(parameter.numel() for parameter in result.model.parameters())
    assert size == channels * (features + 2)  # 2,500 and 50,000

    def asked(model: lr.LatentRNN) -> torch.Tensor:
        return coefficients(model)["slope"][3, :2]

    found = ask(result, data, asked)
    design = np.column_stack([np.ones(rows), x])
    expected, residual, *_ = np.linalg.lstsq(design, y[:, 3], rcond=None)
    covariance = residual[0] / rows * np.linalg.inv(design.T @ design)
    np.testing.assert_allclose(found.mean.numpy(), expected[1:3], rtol=1e-6)
    np.testing.assert_allclose(found.covariance.numpy(), covariance[1:3, 1:3], rtol=1e-4, atol=1e-8)
    with pytest.raises(
        ValueError, match=f"with {size} weights a quantity may have 200 entries; found {channels * features}"
    ):
        ask(result, data, lambda model: coefficients(model)["slope"], polish=0)


def constant(sessions: int = 0, *, sequences: int = 12, seed: int = 10) -> tuple[lr.FitResult, lr.SequenceData]:
    """y ~ Normal(b, s^2) in sequences of unequal means, of one session or of several."""
    rng = np.random.default_rng(seed)
    parts = {}
    for name in "abc"[: max(sessions, 1)]:
        y = 2.0 + rng.normal(size=(sequences, 1, 1)) + 0.3 * rng.normal(size=(sequences, 4, 1))
        parts[name] = lr.SequenceData.from_arrays({"y": y}, {"clock": np.ones_like(y)}, dtype=torch.float64)
    data = lr.SequenceData.join(parts, shared=["y"]) if sessions else parts["a"]
    return fitted(without_state(data, lr.Gaussian(fixed={"weight": 0.0})), data), data


def test_the_bootstrap_of_a_mean_is_that_of_numpy() -> None:
    result, data = constant()
    found = ask(result, data, "y.readout.baseline", how="bootstrap", refits=60)
    means = data.observations["y"].mean((1, 2)).numpy()
    # the same sequences, drawn again
    resampling, random = Resampling(data), torch.Generator().manual_seed(0)
    expected = np.array([means[resampling.draw(random)].mean() for _ in range(60)])
    np.testing.assert_allclose(found.draws[:, 0].numpy(), expected, atol=1e-3 * expected.std())
    assert found.sd.item() == pytest.approx(expected.std(ddof=1), rel=1e-3)
    assert [end.item() for end in found.interval(0.9)] == pytest.approx(np.quantile(expected, [0.05, 0.95]), rel=1e-3)
    # sequences differ in their means, which the likelihood knows nothing of: its own interval is too narrow
    theory = means.std() / len(means) ** 0.5
    assert found.sd.item() == pytest.approx(theory, rel=0.4)
    assert ask(result, data, "y.readout.baseline").sd.item() < 0.7 * theory
    assert "60 refits" in repr(found)
    with pytest.raises(ValueError, match=r"at level 0.99 the bootstrap needs at least 200 refits.*; found 60"):
        found.interval(0.99)


def test_sequences_are_drawn_within_their_session_and_windows_with_their_sequence() -> None:
    _, joined = constant(sessions=3)
    rows = Resampling(joined).draw(torch.Generator().manual_seed(1))
    assert [joined.sessions[row] for row in rows] == list(joined.sessions)
    assert len(set(rows)) < len(rows)
    _, data = constant()
    cut = data.windows(2)
    rows = Resampling(cut).draw(torch.Generator().manual_seed(1))
    drawn = [cut.keys[row] for row in rows]
    assert len(drawn) == len(cut)
    assert all(
        first.key == second.key and first.start != second.start
        for first, second in zip(drawn[::2], drawn[1::2], strict=True)
    )
    with pytest.raises(
        ValueError, match=r"needs at least 10 sequences that are independent .* in session 'a'.*; found 4"
    ):
        Resampling(constant(sessions=2, sequences=4)[1])


def test_refits_do_not_hide_what_the_data_leave_open(product: tuple[lr.FitResult, lr.SequenceData]) -> None:
    """They begin where the fit ended, from where nothing moves them along a flat direction."""
    result, data = product
    with pytest.warns(UserWarning, match="do not determine 'weight': it moves along a flat direction"):
        found = ask(result, data, gains, how="bootstrap", refits=20)
    assert found.draws[:, 1].std() < 0.5
    assert found.sd["weight"].isinf().all()
    assert found.sd["gain"].isfinite().all()
    assert found.interval(0.9)[0]["weight"].item() == -np.inf


def noisy() -> tuple[lr.FitResult, lr.SequenceData]:
    rng = np.random.default_rng(11)
    counts = rng.poisson(np.exp(rng.normal(size=(12, 1, 1)) * 0.5 + np.zeros((12, 4, 2)))).astype(float)
    data = lr.SequenceData.from_arrays({"y": counts})
    heads = {"y": lr.Poisson()}
    model = lr.LatentRNN(data.spec, transition=lr.GRU(2), latent=lr.InitialState(1), observations=heads)
    guide = lr.Guide(model, encoder=lr.RNNEncoder(2))
    return lr.fit(model, guide, data, steps=20, **QUIET), data


def test_refits_of_models_with_random_latents_are_fits_from_the_fitted_weights_on() -> None:
    result, data = noisy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = ask(result, data, "y.readout.baseline", how="bootstrap", refits=3, steps=2, polish=1, **QUIET)
        again = ask(result, data, "y.readout.baseline", how="bootstrap", refits=3, steps=2, polish=1, **QUIET)
    assert found.draws.shape == (3, 2)
    assert torch.equal(found.draws, again.draws)
    rows = torch.Generator().manual_seed(0)
    chosen = Resampling(data).draw(rows)
    refit = lr.fit(result.model, result.guide, data[chosen], seed=1, start_from=result, steps=2, **QUIET)
    assert torch.allclose(found.draws[0], refit.model.observations["y"].readout.baseline.double(), atol=1e-7)
    with pytest.warns(
        UserWarning, match=r"refits of 2 steps had not come to rest: .* further from the fit.*; raise steps"
    ):
        ask(result, data, "y.readout.baseline", how="bootstrap", refits=4, steps=2, polish=1, **QUIET)


def test_an_ensemble_has_the_spread_of_its_members() -> None:
    result, data = constant()
    members = tuple(fitted(result.model, data, steps=steps) for steps in (3, 5, 8))
    weights = torch.tensor([0.5, 0.25, 0.25], dtype=torch.float64)
    ensemble = lr.Ensemble(members, weights, None, result.used)
    found = ask(ensemble, data, lambda m: m.observations["y"].noise_covariance.diagonal().sqrt(), how="ensemble")
    values = np.array([float(m.model.observations["y"].noise_covariance.detach().sqrt()) for m in members])
    mean = weights.numpy() @ values
    variance = weights.numpy() @ (values - mean) ** 2 / (1 - 0.375)
    assert found.mean.item() == pytest.approx(mean, rel=1e-6)
    assert found.sd.item() == pytest.approx(np.sqrt(variance), rel=1e-5)
    # where the fit of another seed would lie, by t with as many degrees of freedom as the weights leave, in logarithms
    count = 1 / 0.375
    reach = stats.t.ppf(0.95, count - 1) * np.sqrt(variance * (1 + 1 / count)) / mean
    assert [end.item() for end in found.interval(0.9)] == pytest.approx(
        [mean / np.exp(reach), mean * np.exp(reach)], rel=1e-4
    )
    assert found.conditional_on.startswith("the sequences, which all members share, and known values of ")
    alone = dataclasses.replace(ensemble, weights=torch.tensor([1.0, 0.0, 0.0]))
    assert ask(alone, data, "y.scale", how="ensemble").sd.isnan().all()


def test_an_ensemble_of_other_seeds_is_fitted() -> None:
    result, data = noisy()
    found = ask(result, data, "y.readout.baseline", how="ensemble", refits=2, steps=3, **QUIET)
    members = lr.fit_ensemble(result.model, result.guide, data, seeds=[1, 2], steps=3, **QUIET).members
    expected = torch.stack([member.model.observations["y"].readout.baseline for member in members]).double()
    assert torch.allclose(found.draws, expected.detach())


def test_functions_of_numbers_will_do_for_refits_and_not_for_curvature() -> None:
    result, data = constant()

    def number(model: lr.LatentRNN) -> Any:
        return model.observations["y"].readout.baseline.detach().numpy()

    with pytest.raises(TypeError, match=r"must return a tensor, or a dict of tensors, computed in torch .*found array"):
        ask(result, data, number)
    found = ask(result, data, number, how="bootstrap", refits=2)
    assert found.draws.shape == (2, 1)


@pytest.mark.parametrize("how", METHODS)
def test_what_detaches_does_not_hide_the_weights(how: str) -> None:
    result, data = memory(fixed={"input_weight": 1.0})
    sd = ask(result, data, "transition.time_constant").sd
    settings = {} if how == "laplace" else {"refits": 2}
    if how == "ensemble":
        settings |= {"steps": 1, **QUIET}
    found = ask(result, data, lambda model: model.transition.log_time_constant.data.exp().detach(), how=how, **settings)
    assert found.units == ("seconds",)
    assert how != "laplace" or torch.allclose(found.sd, sd)


ONE, DATA = constant()
LATENT, COUNTS = noisy()


def unused(model: lr.LatentRNN) -> torch.Tensor:
    return model.observations["y"].readout.baseline


MISTAKES: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "how": (lambda: ask(ONE, DATA, unused, how="hessian"), ValueError, "how must be one of 'laplace', 'bootstrap'"),
    "no result": (lambda: ask(ONE.model, DATA, unused), TypeError, "result must be a FitResult; found LatentRNN"),
    "a posterior": (lambda: ask(ONE.posterior(DATA, device="cpu"), DATA, unused), TypeError, "must be a FitResult"),
    "no data": (lambda: ask(ONE, [1.0], unused), TypeError, r"data must be a SequenceData; found \[1.0\]"),
    "a batch": (lambda: ask(ONE, DATA.batch(torch.tensor([0])), unused), ValueError, "not a batch of a larger plate"),
    "other data": (lambda: ask(ONE, COUNTS, unused), ValueError, r"covariates\['clock'\]: expected"),
    "no quantity": (lambda: ask(ONE, DATA, 3.0), TypeError, "quantity must be a function of the model.*found 3.0"),
    "a module": (lambda: ask(ONE, DATA, ONE.model), TypeError, "quantity must be a function of the model"),
    "an unknown name": (lambda: ask(ONE, DATA, "y.gain"), ValueError, r"names 'y.gain', which is no .*y.scale"),
    "no tensor": (lambda: ask(ONE, DATA, lambda model: "a"), TypeError, "must return a tensor.*found 'a'"),
    "no name": (lambda: ask(ONE, DATA, lambda model: {1: unused(model)}), TypeError, "by name; found the name 1"),
    "nothing": (lambda: ask(ONE, DATA, lambda model: {}), ValueError, r"at least one entry; found \{\}"),
    "not finite": (
        lambda: ask(ONE, DATA, lambda model: unused(model) / 0.0), ValueError, "must be finite at .*; found -?inf",
    ),
    "a constant": (lambda: ask(ONE, DATA, lambda model: torch.ones(2)), ValueError, "depends on nothing"),
    "a known value": (lambda: ask(ONE, DATA, "transition.time_constant"), ValueError, "depends on nothing"),
    "no gradient": (
        lambda: ask(ONE, DATA, lambda model: torch.tensor(float(unused(model)))), ValueError,
        r"changes with the weights by .* where its derivative says 0: something in it leaves torch's graph",
    ),
    "a transform": (lambda: ask(ONE, DATA, unused, transform="exp"), ValueError, "transform must be one of 'auto'"),
    "of an unknown part": (
        lambda: ask(ONE, DATA, unused, transform={"a": "log"}), ValueError, r"transform names 'a'; .*'quantity'",
    ),
    "out of its range": (
        lambda: ask(ONE, DATA, lambda model: -unused(model) - 9, transform="log"), ValueError,
        r"'quantity' is -.*, outside of \(0, inf\), .* transform='log' takes",
    ),
    "polish": (lambda: ask(ONE, DATA, unused, polish=-1), ValueError, "polish must be .*; found -1"),
    "particles": (lambda: ask(ONE, DATA, unused, num_particles=1), ValueError, "num_particles must be .* at least 32"),
    "seed": (lambda: ask(ONE, DATA, unused, seed="a"), TypeError, "seed must be an integer, or None"),
    "refits of laplace": (lambda: ask(ONE, DATA, unused, refits=9), ValueError, "'refits' is for refits, of which"),
    "settings of laplace": (lambda: ask(ONE, DATA, unused, steps=9), ValueError, "'steps' is for refits, of which"),
    "an unknown setting": (
        lambda: ask(ONE, DATA, unused, how="bootstrap", learning_rate=1.0), TypeError,
        r"'learning_rate' is no setting of fit that refits share; there are \['steps',",
    ),
    "one refit": (lambda: ask(ONE, DATA, unused, how="bootstrap", refits=1), ValueError, "refits must be .* least 2"),
    "no way to the mode": (
        lambda: ask(ONE, DATA, unused, how="bootstrap", polish=0), ValueError, "polish must be positive",
    ),
    "few sequences": (
        lambda: ask(ONE, DATA[:4], unused, how="bootstrap"), ValueError,
        "needs at least 10 sequences that are independent of each other, .*; found 4",
    ),
    "a level": (lambda: ask(ONE, DATA, unused).interval(1.0), ValueError, r"level must be in \(0, 1\); found 1.0"),
    "numbers of each sequence": (
        lambda: ask(own_numbers(), COUNTS, unused, how="bootstrap", steps=1), ValueError, "numbers for every sequence",
    ),
    "weights as they were": (
        lambda: ask(lr.laplace(with_prior(), COUNTS, device="cpu"), COUNTS, unused), ValueError,
        "took the weights without priors as they were",
    ),
    "draws": (
        lambda: ask(drawn_by_nuts(), COUNTS, unused), TypeError, "holds draws of its parameters, which tell",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_named(name: str) -> None:
    mistake, kind, message = MISTAKES[name]
    with pytest.raises(kind, match=message):
        mistake()


def own_numbers() -> lr.FitResult:
    model = LATENT.model
    guide = lr.Guide(model, family=lr.PerSequence(lr.MeanField()))
    return lr.fit(model, guide, COUNTS, steps=1, **QUIET)


def with_prior() -> lr.LatentRNN:
    heads = {"y": lr.Poisson(priors={"baseline": dist.Normal(0.0, 1.0)})}
    return lr.LatentRNN(COUNTS.spec, transition=lr.GRU(1), latent=lr.Deterministic(), observations=heads)


def drawn_by_nuts() -> lr.FitResult:
    chain = lr.sample(with_prior(), COUNTS, num_samples=3, warmup=4, chains=1, device="cpu", progress=False)
    assert isinstance(chain.result, lr.FitResult)
    return chain.result


def test_sequences_that_the_fit_has_not_seen_are_told_of() -> None:
    _, other = constant(seed=12)
    with pytest.warns(UserWarning, match="12 of 12 sequences took no part in the fit"):
        ask(ONE, other, unused)


def test_the_result_tells_a_fresh_seed() -> None:
    assert isinstance(ask(ONE, DATA, unused, seed=None).seed, int)
