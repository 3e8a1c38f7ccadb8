"""LinearGaussian against the dense joint normal, the Kalman filter and smoother by other code, and published values."""

from __future__ import annotations

import json
import math
import warnings
from pathlib import Path

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from scipy import stats
from torch import Tensor

import latentrnn as lr
from latentrnn.inference.objectives.terms import log_weights
from latentrnn.models.latents.kalman.evidence import log_normaliser
from latentrnn.models.latents.kalman.filter import Dynamics, Information, kalman_filter
from tests import oracles, registry
from tests.linear_gaussian import FILES, Problem, as_data, as_model, file_problem, random_problem
from tests.models import test_battery as battery
from tests.models.priors_everywhere import names, with_priors
from tests.models.test_every_parameter import assert_one_of, draws, log_densities
from tests.oracles import Array
from tests.registry import OBSERVATIONS, make_data, shake

LENGTHS = (6, 4, 2)
DRAWS = 4000
RAGGED = [
    pytest.param({"lengths": [9, 9], "inputs": 0, "hide": 0.0}, id="complete"),
    pytest.param({"lengths": [9, 9], "inputs": 2, "hide": 0.3}, id="inputs, missing"),
    pytest.param({"lengths": [12, 7, 20, 1], "inputs": 0, "hide": 0.0}, id="ragged"),
    pytest.param({"lengths": [12, 7, 20, 1], "inputs": 2, "hide": 0.3}, id="ragged, inputs, missing"),
]


def summed(drawn: lr.LatentRNN, data: lr.SequenceData, **options: object) -> lr.LatentRNN:
    """The same model with the states summed out."""
    config = drawn.config()
    config["latent"] = lr.LinearGaussian(**options).config()
    model = lr.LatentRNN.from_config(config, data.spec).double()
    model.load_state_dict(drawn.state_dict())
    return model


def posterior_of(model: lr.LatentRNN, data: lr.SequenceData, seed: int = 0) -> lr.Posterior:
    return lr.Posterior(model, lr.Guide(model), data, device="cpu", seed=seed)


def evidence_of(problem: Problem) -> Array:
    data = as_data(problem)
    model = summed(as_model(problem, data), data)
    return posterior_of(model, data).evidence("exact").values.numpy()


# -- against other people's code -----------------------------------------------------------------------------------


@pytest.mark.parametrize("case", RAGGED)
def test_it_is_the_kalman_filter(case: dict) -> None:
    problem = random_problem(0, **case)
    np.testing.assert_allclose(evidence_of(problem), problem.evidence(), rtol=0, atol=1e-10)


@pytest.mark.parametrize("hide", [False, True], ids=["complete", "30% missing"])
@pytest.mark.parametrize("name", ["lgssm_small", "lgssm_medium", "lgssm_inputs"])
def test_evidence_and_smoothed_means_are_those_of_other_people_s_code(name: str, hide: bool) -> None:
    if not (FILES / f"{name}.npz").exists():
        pytest.skip(f"reference file {name}.npz is not beside the repository (LATENTRNN_SHARED names its folder)")
    problem, log_evidence = file_problem(name, hide=hide)
    np.testing.assert_allclose(evidence_of(problem), log_evidence, rtol=0, atol=1e-9)
    data = as_data(problem)
    found = posterior_of(summed(as_model(problem, data), data), data).latents(1)
    with np.load(FILES / f"{name}.npz") as archive:
        means, covariances = archive["smoothed_means_missing" if hide else "smoothed_means"], archive["smoothed_covs"]
    basis = oracles.diagonalise(problem.model).T
    np.testing.assert_allclose(found["smoothed_mean"][0, 0], means @ basis.T, rtol=0, atol=1e-8)
    if not hide:
        variance = np.einsum("ij,tjk,ik->ti", basis, covariances, basis)
        np.testing.assert_allclose(found["smoothed_sd"][0, 0] ** 2, variance, rtol=0, atol=1e-8)


@pytest.mark.parametrize("broken", ["noise", "dynamics", "start", "time order"])
def test_the_oracle_notices_what_is_wrong(broken: str) -> None:
    problem = random_problem(6, [12, 7], hide=0.3)
    data = as_data(problem)
    model = summed(as_model(problem, data), data)
    with torch.no_grad():
        if broken == "noise":
            model.latent.log_scale += 1e-5
        if broken == "dynamics":
            model.transition.recurrent_weight += 1e-5
        if broken == "start":
            model.latent.initial_log_scale += 1e-5
    if broken == "time order":
        data = data.with_observations({"y": data.observations["y"].flip(1)})
    found = log_weights(model, lr.Guide(model), data, 1)[0].detach().numpy()
    assert np.abs(found - problem.evidence()).max() > 1e-7


def local_level(y: Array, level: float, noise: float, start: tuple[float, float]) -> tuple[lr.LatentRNN, object]:
    """z_0 ~ Normal(start), z_t = z_{t-1} + Normal(0, level^2), y_t = z_t + Normal(0, noise^2): standard deviations."""
    data = lr.SequenceData.from_arrays({"y": y[None, :, None]}, dtype=torch.float64)
    model = lr.LatentRNN(
        data.spec, transition=lr.Linear(1), latent=lr.LinearGaussian(), observations={"y": lr.Gaussian()}
    ).double()
    with torch.no_grad():
        model.transition.recurrent_weight.fill_(1.0)
        model.transition.input_weight.zero_()
        model.latent.log_scale.fill_(math.log(level))
        model.latent.initial_loc.fill_(start[0])
        model.latent.initial_log_scale.fill_(math.log(start[1]) if start[1] else -math.inf)
        model.observations["y"].readout.weight.fill_(1.0)
        model.observations["y"].log_noise_scale.fill_(math.log(noise))
    return model, data


def test_the_nile() -> None:
    """Durbin and Koopman (2012), 2.2.5, with a_1 ~ Normal(1000, 1e5): z_0 precedes it by a step."""
    datasets = pytest.importorskip("statsmodels.datasets")
    y = datasets.nile.load_pandas().data["volume"].to_numpy(dtype=float)
    model, data = local_level(y, 1469.1**0.5, 15099**0.5, (1000.0, (1e5 - 1469.1) ** 0.5))
    found = posterior_of(model, data).evidence("exact")
    assert found.total == pytest.approx(-639.3007238, rel=0, abs=1e-6)
    assert repr(found) == "Evidence(exact: -639.30 nats in 1 sequences)"
    in_single = posterior_of(model.float(), data.to(dtype=torch.float32)).evidence("exact")
    assert in_single.total == pytest.approx(-639.3007238, rel=0, abs=1e-4)


def test_brownian_motion_of_the_inference_gym() -> None:
    file = FILES.parent / "reference_posteriors" / "brownian_motion.json"
    if not file.exists():
        pytest.skip("reference posteriors are not beside the repository (LATENTRNN_SHARED names their folder)")
    content = json.loads(file.read_text())
    y = np.array([np.nan if value is None else value for value in content["data"]["y"]])
    model, data = local_level(y, 0.1, 0.15, (0.0, 0.0))
    posterior = posterior_of(model, data)
    found = posterior.evidence("exact").total
    assert found == pytest.approx(5.61304357445821, rel=0, abs=1e-6)
    seen, t = ~np.isnan(y), np.arange(1, len(y) + 1)
    covariance = (0.1**2 * np.minimum.outer(t, t) + 0.15**2 * np.eye(len(y)))[np.ix_(seen, seen)]
    dense = stats.multivariate_normal.logpdf(y[seen], np.zeros(seen.sum()), covariance)
    assert found == pytest.approx(dense, rel=0, abs=1e-11)
    reference, moments = content["reference"]["locs"], posterior.latents(1)
    error = np.array(reference["mean_standard_error"])
    assert (np.abs(moments["smoothed_mean"][0, 0, :, 0].numpy() - np.array(reference["mean"])) < 6 * error).all()
    np.testing.assert_allclose(moments["smoothed_sd"][0, 0, :, 0], reference["sd"], rtol=0.03)


# -- several heads of every kind, against the dense joint normal -----------------------------------------------------


def make(hide: float = 0.25, lengths: tuple[int, ...] = LENGTHS) -> tuple[lr.LatentRNN, lr.SequenceData]:
    """Heads with full noise and holes; slow, driven by a covariate; low-rank through factors, with a fixed gain."""
    rng = np.random.default_rng(0)
    full = [rng.normal(3.0, 2.0, (n, 2)) for n in lengths]
    data = lr.SequenceData.from_arrays(
        {
            "full": [np.where(rng.random(each.shape) < hide, np.nan, each) for each in full],
            "slow": [rng.normal(size=(n // 2, 2)) for n in lengths],
            "wide": [np.where(rng.random((n, 3)) < hide, np.nan, rng.normal(size=(n, 3))) for n in lengths],
        },
        {name: [rng.normal(size=(n, 1)) for n in lengths] for name in ("x", "s", "u")},
        clocks={"slow": 2},
        standardise=["slow"],
        dtype=torch.float64,
    )
    model = lr.LatentRNN(
        data.spec,
        transition=lr.Linear(2),
        latent=lr.LinearGaussian(),
        observations={
            "full": lr.Gaussian("full"),
            "slow": lr.Gaussian(covariates=["x"]),
            "wide": lr.Gaussian(
                "low_rank", 1, readout=lr.FactorReadout(2), gain=lr.StimulusGain("s", gated=False, lags=2)
            ),
        },
        inputs=["u"],
    )
    pyro.set_rng_seed(0)
    model.initialise(data)  # units of the data
    model.double()
    shake(model, 0.4)
    return model, data


class Dense:
    """The joint normal of states and observed entries of one sequence, the model's equations written out in NumPy."""

    def __init__(self, model: lr.LatentRNN, data: lr.SequenceData, n: int) -> None:
        w = {name: value.detach().numpy() for name, value in model.state_dict().items()}
        length, size = int(data.lengths[n]), len(w["latent.log_scale"])
        inputs = model.transition_inputs(data)[n, :length].detach().numpy()
        weight = w["transition.recurrent_weight"]
        drive = inputs @ w["transition.input_weight"].T + w["transition.bias"]
        lower = np.eye((length + 1) * size) - np.kron(np.eye(length + 1, k=-1), weight)
        unroll = np.linalg.inv(lower)
        scales = [w["latent.initial_log_scale"], *[w["latent.log_scale"]] * length]
        mean = unroll @ np.concatenate([w["latent.initial_loc"], drive.ravel()])
        covariance = unroll @ np.diag(np.exp(2 * np.concatenate(scales))) @ unroll.T
        self.length, self.mean, self.covariance = length, mean[size:], covariance[size:, size:]  # without z_0
        self.rows: dict[str, Array] = {}
        self.step: dict[str, Array] = {}
        read, level, noise = [], [], []
        start = 0
        for name, head in model.observations.items():
            clock = head.head.clock
            loading, constant, own, shared = self._head(model, data, w, name, n)
            frames = length // clock
            y, mask = data.observations[name][n, :frames].numpy(), data.masks[name][n, :frames].numpy()
            steps = clock * np.arange(frames) + clock - 1
            picks = np.kron(np.eye(length)[steps], loading)
            read.append(picks[mask.ravel()])
            level.append((y - constant[steps])[mask])
            block = np.kron(np.eye(frames), own + shared)
            noise.append(block[np.ix_(mask.ravel(), mask.ravel())])
            self.rows[name] = np.arange(start, start + mask.sum())
            self.step[name] = np.repeat(steps, mask.sum(-1))
            start += mask.sum()
        self.read, self.residual = np.concatenate(read), np.concatenate(level)
        total = sum(len(block) for block in noise)
        self.noise = np.zeros((total, total))
        for name, block in zip(self.rows, noise, strict=True):
            self.noise[np.ix_(self.rows[name], self.rows[name])] = block

    @staticmethod
    def _head(
        model: lr.LatentRNN, data: lr.SequenceData, w: dict[str, Array], name: str, n: int
    ) -> tuple[Array, Array, Array, Array]:
        """Loading (channel, state), level (time, channel), and the covariances of own and shared noise."""
        p = {key.removeprefix(f"observations.{name}."): v for key, v in w.items() if f"observations.{name}." in key}
        head, scale = model.observations[name], p["scale"]
        weight = p["readout.weight"]
        if "readout.loading" in p:
            weight = p["readout.loading"] @ (weight / np.linalg.norm(weight, axis=1, keepdims=True))
        eta = np.tile(p["readout.baseline"], (data.num_steps, 1))
        if head.covariates:
            eta = eta + head.reader(data)[n].detach().numpy() @ p["covariate_weight"].T
        if head.gain is not None:
            eta = eta + head.gain.reader(data)[n].detach().numpy() @ p["gain.beta"].T
        own = np.diag(np.exp(2 * p["log_noise_scale"]))
        shared = np.zeros_like(own)
        if "noise_ratio" in p:
            rows = np.tril(p["noise_ratio"], -1) + np.eye(len(own))
            lengths = np.linalg.norm(rows, axis=1)
            own = np.sqrt(own) @ (rows @ rows.T / np.outer(lengths, lengths)) @ np.sqrt(own)
        if "noise_factor" in p:
            shared = p["noise_factor"] @ p["noise_factor"].T
        both = np.outer(scale, scale)
        return scale[:, None] * weight, p["location"] + scale * eta, both * own, both * shared

    def log_density(self, rows: Array) -> float:
        """log p of some of the observed entries."""
        read = self.read[rows]
        covariance = read @ self.covariance @ read.T + self.noise[np.ix_(rows, rows)]
        return float(stats.multivariate_normal.logpdf(self.residual[rows], read @ self.mean, covariance))

    def joint(self, heads: list[str]) -> float:
        rows = np.concatenate([self.rows[name] for name in heads]).astype(int)
        return self.log_density(rows) if len(rows) else 0.0

    def smoothed(self) -> tuple[Array, Array]:
        """Mean (time * state,) and covariance of the states given all heads."""
        cross = self.covariance @ self.read.T
        gain = np.linalg.solve(self.read @ cross + self.noise, cross.T).T
        return self.mean + gain @ (self.residual - self.read @ self.mean), self.covariance - gain @ cross.T


def densities(model: lr.LatentRNN, data: lr.SequenceData) -> dict[str, Tensor]:
    trace = poutine.trace(model).get_trace(data)
    return {n: trace.nodes[n]["fn"].log_prob(trace.nodes[n]["value"]) for n in model.observations}


@pytest.mark.parametrize("hide", [0.0, 0.25])
def test_it_is_the_integral_over_all_states(hide: float) -> None:
    """Head by head p(y^1), p(y^2 | y^1), p(y^3 | y^1, y^2); ragged, with holes, on different clocks."""
    model, data = make(hide)
    found = densities(model, data)
    for n in range(len(data)):
        dense, before = Dense(model, data, n), 0.0
        for k, name in enumerate(model.observations):
            total = dense.joint(list(model.observations)[: k + 1])
            assert found[name][n].item() == pytest.approx(total - before, rel=0, abs=1e-10)
            before = total


def test_the_order_of_the_heads_does_not_change_their_joint_density() -> None:
    model, data = make()
    config = model.config()
    config["observations"] = dict(reversed(config["observations"].items()))
    turned = lr.LatentRNN.from_config(config, data.spec).double()
    turned.load_state_dict(model.state_dict())
    expected = sum(densities(model, data).values())
    torch.testing.assert_close(sum(densities(turned, data).values()), expected, rtol=0, atol=1e-10)


def test_moments_and_draws_of_the_states() -> None:
    """Draws of whole paths: their means and covariances, between steps too, are those of the joint normal."""
    model, data = make()
    found = posterior_of(model, data).latents(DRAWS)
    for n, length in enumerate(LENGTHS):
        mean, covariance = Dense(model, data, n).smoothed()
        variance = np.diag(covariance)
        np.testing.assert_allclose(found["smoothed_mean"][0, n, :length].ravel(), mean, rtol=0, atol=1e-10)
        np.testing.assert_allclose(found["smoothed_sd"][0, n, :length].ravel() ** 2, variance, rtol=0, atol=1e-10)
        assert bool(found["smoothed_sd"][:, n, length:].isnan().all())
        drawn = found["states"][:, n, :length].flatten(1).numpy()
        assert (np.abs(drawn.mean(0) - mean) < 6 * (variance / DRAWS) ** 0.5).all()
        error = ((np.outer(variance, variance) + covariance**2) / DRAWS) ** 0.5
        assert (np.abs(np.cov(drawn.T) - covariance) < 6 * error).all()
        assert (np.abs(np.diag(np.cov(drawn.T)) * 1.3 - variance) > 6 * np.diag(error)).all()  # negative control


def test_draws_from_the_prior() -> None:
    model, data = make()
    drawn = posterior_of(model, data).prior_predictive(DRAWS, heads=["wide"])["wide"]
    for n, length in enumerate(LENGTHS):
        dense = Dense(model, data, n)
        loading, level, own, shared = Dense._head(
            model, data, {k: v.detach().numpy() for k, v in model.state_dict().items()}, "wide", n
        )
        read = np.kron(np.eye(length), loading)
        covariance = read @ dense.covariance @ read.T + np.kron(np.eye(length), own + shared)
        mean, variance = read @ dense.mean + level[:length].ravel(), np.diag(covariance)
        found = drawn[:, n, :length].flatten(1).numpy()
        assert (np.abs(found.mean(0) - mean) < 6 * (variance / DRAWS) ** 0.5).all()
        error = ((np.outer(variance, variance) + covariance**2) / DRAWS) ** 0.5
        assert (np.abs(np.cov(found.T) - covariance) < 6 * error).all()


@pytest.mark.parametrize("name", ["full", "slow", "wide"])
def test_one_step_ahead_is_exact(name: str) -> None:
    model, data = make()
    found = posterior_of(model, data).one_step_ahead(name)
    assert found.exact
    for n in range(len(data)):
        dense = Dense(model, data, n)
        for step in sorted(set(dense.step[name])):
            past = np.concatenate([dense.rows[other][dense.step[other] < step] for other in dense.rows])
            now = dense.rows[name][dense.step[name] == step]
            frame = (step + 1) // model.observations[name].head.clock - 1
            before = dense.log_density(past) if len(past) else 0.0
            groups = [[entry] for entry in now] if name == "slow" else [list(now)]  # channels apart, or together
            expected = sum(dense.log_density(np.append(past, group).astype(int)) - before for group in groups)
            assert found.log_prob[n, frame].sum().item() == pytest.approx(expected, rel=0, abs=1e-9)


def test_steps_of_the_context_inform_but_are_not_scored() -> None:
    rng = np.random.default_rng(0)
    data = lr.SequenceData.from_arrays(
        {"a": rng.normal(size=(2, 6, 1)), "b": rng.normal(size=(2, 6, 2))}, dtype=torch.float64
    )
    model = lr.LatentRNN(
        data.spec,
        transition=lr.Linear(1),
        latent=lr.LinearGaussian(),
        observations={"a": lr.Gaussian(), "b": lr.Gaussian("full")},
    ).double()
    shake(model, 0.7)
    later = data.windows(3, context=3)
    assert later.host_context.any()
    whole = log_weights(model, lr.Guide(model), data, 1).sum()
    informed = log_weights(model, lr.Guide(model), later, 1).sum()
    torch.testing.assert_close(informed, whole, rtol=0, atol=1e-10)
    blind = log_weights(model, lr.Guide(model), data.windows(3), 1).sum()
    assert abs(float((blind - whole).detach())) > 1e-3


def test_forecasts_and_imputations_follow_the_joint_normal() -> None:
    """What is missing at the end of a longer recording is both; its moments are those of the smoothed states."""
    rng = np.random.default_rng(0)
    y = rng.normal(size=(1, 8, 1)).cumsum(1)
    model, short = local_level(y[0, :5, 0], 0.7, 0.5, (0.0, 1.0))
    whole = lr.SequenceData.from_arrays({"y": np.where(np.arange(8)[:, None] < 5, y, np.nan)}, dtype=torch.float64)
    longer = lr.LatentRNN.from_config(model.config(), whole.spec).double()
    longer.load_state_dict(model.state_dict())
    smoothed = posterior_of(longer, whole).latents(1)
    mean = smoothed["smoothed_mean"][0, 0, 5:, 0]
    variance = smoothed["smoothed_sd"][0, 0, 5:, 0] ** 2 + 0.25
    np.testing.assert_allclose(variance.diff(), 0.49, rtol=0, atol=1e-10)
    forecast = posterior_of(model, short).forecast(3, num_samples=DRAWS)
    imputed = posterior_of(longer, whole).impute("y", DRAWS)
    for drawn in (forecast.samples["y"][:, 0, :, 0], imputed[:, 0, 5:, 0]):
        assert ((drawn.mean(0) - mean).abs() < 6 * (variance / DRAWS) ** 0.5).all()
        assert ((drawn.var(0) / variance - 1).abs() < 6 * (2 / DRAWS) ** 0.5).all()
    given = forecast.log_score("y", torch.zeros(1, 3, 1))[0, :, 0]
    expected = torch.distributions.Normal(mean, variance.sqrt()).log_prob(torch.zeros(3))
    torch.testing.assert_close(given, expected, rtol=0, atol=0.2)


def test_counterfactuals_keep_the_noise_of_every_step() -> None:
    """z'_t - z_t = sum_s A^(t-s) B (u'_s - u_s), and nothing where nothing is changed."""
    problem = random_problem(3, [8, 5], inputs=1, hide=0.2)
    data = as_data(problem)
    posterior = posterior_of(summed(as_model(problem, data), data), data)
    before = posterior.rates("y", 5)
    assert torch.equal(posterior.counterfactual(num_samples=5).rates["y"].nan_to_num(), before.nan_to_num())
    other = np.random.default_rng(0).normal(size=(2, 8, 1))
    found = posterior.counterfactual({"u": other}, from_step=3, num_samples=5).rates["y"]
    for row, recording in enumerate(problem.recordings):
        state, added = np.zeros(2), []
        for t in range(len(recording.y)):
            push = other[row, t] - recording.u[t] if t >= 3 else np.zeros(1)
            state = problem.model.A @ state + problem.model.B @ push
            added.append(problem.model.C @ state)
        difference = (found - before)[:, row, : len(added)].numpy()
        np.testing.assert_allclose(difference, np.broadcast_to(added, difference.shape), rtol=0, atol=1e-9)
    with pytest.raises(ValueError, match="has no gate 'forget'"):
        posterior.counterfactual(clamp={"forget": 0.0}, num_samples=2)


def test_what_is_held_out_does_not_inform_the_states() -> None:
    found = []
    for held_out in (0.0, 5.0):
        data = lr.SequenceData.from_arrays({"a": np.zeros((1, 4, 1)), "b": np.full((1, 4, 1), held_out)})
        pyro.set_rng_seed(0)
        model = lr.LatentRNN(
            data.spec,
            transition=lr.Linear(2),
            latent=lr.LinearGaussian(observes=["a"]),
            observations={"a": lr.Gaussian(), "b": lr.Gaussian()},
        )
        found.append(posterior_of(model, data).mean("b", 20))
    assert torch.equal(*found)


@torch.no_grad()
def test_draws_of_parameters_lead_with_axes_of_their_own() -> None:
    """Three draws of dynamics and noise, (draw, 1, ...), have the densities of each by itself."""
    model, data = make()
    parameters = [
        (part, name, value) for part in (model.transition, model.latent) for name, value in part.named_parameters()
    ]
    draws = [value + 0.1 * torch.randn(3, 1, *value.shape, dtype=value.dtype) for _, _, value in parameters]
    expected: list[dict[str, Tensor]] = []
    for k in range(3):
        for (_, _, value), drawn in zip(parameters, draws, strict=True):
            value.copy_(drawn[k, 0])
        expected.append(densities(model, data))
    for (part, name, _), drawn in zip(parameters, draws, strict=True):
        delattr(part, name)
        setattr(part, name, drawn)
    for name, found in densities(model, data).items():
        assert found.shape == (3, 3)
        torch.testing.assert_close(found, torch.stack([each[name] for each in expected]), rtol=0, atol=1e-10)
        assert float((found[0] - found[1]).abs().max()) > 0.01


def with_priors_on_all(hide: float = 0.25) -> tuple[lr.LatentRNN, lr.SequenceData]:
    """The same heads, and features, with a prior on every parameter."""
    data = make(hide)[1]
    described = {
        "transition": lr.Linear(2),
        "latent": lr.LinearGaussian(),
        "observations": {
            "full": lr.Gaussian("full"),
            "slow": lr.Gaussian(covariates=[lr.Convolution("x", 1, widths=2, activation="tanh")]),
            "wide": lr.Gaussian(
                "low_rank", 1, readout=lr.FactorReadout(2), gain=lr.StimulusGain("s", gated=False, lags=2)
            ),
        },
        "inputs": [lr.Convolution("u", 1, widths=2, activation="tanh")],
    }
    priors = names(lr.LatentRNN(data.spec, **described))
    model = lr.LatentRNN(data.spec, **{name: with_priors(part, priors) for name, part in described.items()}).double()
    shake(model)
    return model, data


@pytest.mark.parametrize("hide", [0.0, 0.25])
def test_draws_of_every_parameter_have_the_densities_of_each(hide: float) -> None:
    """Of all at once, and of one with single values of the others."""
    model, data = with_priors_on_all(hide)
    assert list(model.parameters()) == []
    many = draws(model)
    values = registry.fixed_latents(model, data)
    together = log_densities(model, data, values | many)
    for number in range(3):
        one = {name: value[number, 0] for name, value in many.items()}
        assert_one_of(together, number, log_densities(model, data, values | one))
    for name, drawn in many.items():
        together = log_densities(model, data, values | {name: drawn})
        assert_one_of(together, -1, log_densities(model, data, values | {name: drawn[-1, 0]}))


# -- gradients and precision ----------------------------------------------------------------------------------------


def test_every_parameter_has_the_gradient_of_finite_differences() -> None:
    model, data = make()

    def evidence() -> Tensor:
        return sum(densities(model, data).values()).sum()

    names, parameters = zip(*model.named_parameters(), strict=True)
    gradients = torch.autograd.grad(evidence(), parameters)
    for name, parameter, gradient in zip(names, parameters, gradients, strict=True):
        direction, start, values = torch.randn_like(parameter), parameter.detach().clone(), []
        with torch.no_grad():
            for step in (1e-5, -1e-5):
                parameter.copy_(start + step * direction)
                values.append(float(evidence()))
            parameter.copy_(start)
        expected = (values[0] - values[1]) / 2e-5
        assert abs(expected) > 1e-3, name
        assert float((gradient * direction).sum()) == pytest.approx(expected, rel=1e-6, abs=1e-6), name


def chain(shape: tuple[int, ...], steps: int, sample: tuple[int, ...] = ()) -> list[Tensor]:
    """Random A, c, q, m, s, J and j of a chain of two states; `shape` has the leading axes of J."""

    def normal(*sizes: int) -> Tensor:
        return torch.randn(*sizes, dtype=torch.float64)

    root = normal(*shape, 2, 2)
    parts = [0.5 * normal(*sample, 2, 2), normal(2, steps, 2), normal(2).exp(), normal(2), normal(2).exp()]
    return [part.requires_grad_() for part in (*parts, root.mT @ root, normal(2, steps, 2))]


@pytest.mark.parametrize(
    ("shape", "steps", "sample", "padded"),
    [
        pytest.param((1,), 4, (), False, id="complete"),
        pytest.param((2, 4), 4, (), False, id="own gaps"),
        pytest.param((4,), 4, (), False, id="gaps of all"),
        pytest.param((2, 4), 4, (), True, id="padded"),
        pytest.param((1,), 3, (2, 1), False, id="draws of weights"),
        pytest.param((2, 1, 3), 3, (2, 1), False, id="draws of weights and gaps"),
        pytest.param((1,), 1, (), False, id="one step"),
    ],
)
def test_the_written_out_backward_is_the_gradient_and_can_be_differentiated_again(
    shape: tuple[int, ...], steps: int, sample: tuple[int, ...], padded: bool
) -> None:
    torch.manual_seed(0)
    inputs = chain(shape, steps, sample)
    valid = torch.tensor([[True] * steps, [True] * 2 + [False] * (steps - 2)]) if padded else None

    def evidence(*parts: Tensor) -> Tensor:
        precision = 0.5 * (parts[5] + parts[5].mT)
        if valid is not None:
            precision = precision * valid[..., None, None]
        vector = parts[6] if valid is None else parts[6] * valid.unsqueeze(-1)
        rest, states = log_normaliser(Dynamics(*parts[:5], valid), Information(precision, vector))
        quadratic = (states.unsqueeze(-2) @ precision @ states.unsqueeze(-1)).flatten(-3).sum(-1)
        return rest + (vector * states).sum((-2, -1)) - 0.5 * quadratic

    assert torch.autograd.gradcheck(evidence, inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(evidence, inputs, fast_mode=True)
    by_transforms = torch.func.grad(lambda *parts: evidence(*parts).sum(), tuple(range(7)))(*inputs)
    for found, expected in zip(torch.autograd.grad(evidence(*inputs).sum(), inputs), by_transforms, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def test_covariances_that_have_settled_are_held() -> None:
    """A long recording without gaps beside one whose last entry is missing, which goes through every step."""
    y = np.random.default_rng(0).normal(size=300).cumsum()
    posterior = posterior_of(*local_level(y, 0.3, 1.0, (0.0, 50.0)))
    ahead, whole = posterior.one_step_ahead("y").log_prob[0, :, 0], posterior.evidence("exact").total
    missing = posterior_of(*local_level(np.append(y[:-1], np.nan), 0.3, 1.0, (0.0, 50.0))).evidence("exact").total
    assert missing == pytest.approx(whole - float(ahead[-1]), rel=0, abs=1e-9)
    torch.manual_seed(0)
    inputs = chain((1,), 100)
    held = torch.autograd.grad(log_normaliser(Dynamics(*inputs[:5]), Information(*inputs[5:]))[0].sum(), inputs[:5])

    def through_every_step(*parts: Tensor) -> Tensor:
        precision, vector = inputs[5:]
        rest, states = log_normaliser(Dynamics(*parts), Information(precision, vector))
        quadratic = (states.unsqueeze(-2) @ precision @ states.unsqueeze(-1)).sum()
        return rest.sum() + (vector * states).sum() - 0.5 * quadratic

    expected = torch.func.grad(through_every_step, tuple(range(5)))(*inputs[:5])
    for found, gradient in zip(held, expected, strict=True):
        torch.testing.assert_close(found, gradient, rtol=1e-9, atol=1e-9)


def test_levels_far_from_zero_lose_no_digits() -> None:
    """Data at a million, a start a thousand times as wide as the noise: the same evidence as at zero."""
    rng = np.random.default_rng(0)
    y = rng.normal(size=40).cumsum() * 0.1
    expected = posterior_of(*local_level(y, 0.1, 0.05, (0.0, 100.0))).evidence("exact").total
    found = posterior_of(*local_level(y + 1e6, 0.1, 0.05, (1e6, 100.0))).evidence("exact").total
    assert found == pytest.approx(expected, rel=0, abs=1e-6)


def test_gradients_in_single_precision_are_those_in_double() -> None:
    model, data = make()
    gradients = []
    for dtype in (torch.float64, torch.float32):
        loss = sum(densities(model.to(dtype), data.to(dtype=dtype)).values()).sum()
        assert loss.dtype == dtype
        gradients.append([g.double() for g in torch.autograd.grad(loss, list(model.parameters()))])
    for double, single in zip(*gradients, strict=True):
        torch.testing.assert_close(single, double, rtol=1e-4, atol=1e-4)


def test_a_chain_without_any_noise_has_no_density_rather_than_a_wrong_one() -> None:
    zero = torch.zeros(1, dtype=torch.float64)
    dynamics = Dynamics(torch.ones(1, 1).double(), torch.zeros(1, 3, 1).double(), zero, zero, zero)
    found = kalman_filter(dynamics, Information(torch.ones(1, 1, 1).double(), torch.ones(1, 3, 1).double()))
    assert bool(found.log_normaliser.isnan().all())


# -- with the rest of the package -----------------------------------------------------------------------------------


def test_laplace_sees_parameters_alone_and_is_exact_where_they_are_normal() -> None:
    """A Normal prior on a baseline: its posterior is Normal, in closed form by the joint normal of level and data."""
    rng = np.random.default_rng(0)
    y = rng.normal(2.0, 1.0, 12)
    drawn, data = local_level(y, 0.4, 0.8, (0.0, 0.7))
    model = lr.LatentRNN(
        data.spec,
        transition=lr.Linear(1),
        latent=lr.LinearGaussian(),
        observations={"y": lr.Gaussian(priors={"baseline": dist.Normal(0.0, 2.0)})},
    ).double()
    model.load_state_dict(drawn.state_dict())
    assert model.latent_sites() == []
    result = lr.laplace(model, data, device="cpu")
    dense = Dense(drawn, data, 0)
    covariance = dense.read @ dense.covariance @ dense.read.T + dense.noise
    ones = np.ones(len(y))
    variance = 1 / (ones @ np.linalg.solve(covariance, ones) + 1 / 4)
    mean = variance * (ones @ np.linalg.solve(covariance, y))
    found = result.posterior(data).parameters(DRAWS)["y.readout.baseline"]
    assert float((found.mean() - mean).abs()) < 6 * (variance / DRAWS) ** 0.5
    assert float((found.var() / variance - 1).abs()) < 6 * (2 / DRAWS) ** 0.5
    with pytest.raises(ValueError, match=r"'exact' needs parameters that are points, but \['y.readout.baseline'\]"):
        result.posterior(data).evidence("exact")
    average = result.posterior(data).evidence("iwae", num_particles=2000)
    marginal = stats.multivariate_normal.logpdf(y, np.zeros(len(y)), covariance + 4 * np.outer(ones, ones))
    in_posterior = stats.multivariate_normal.logpdf(y, mean * ones, covariance + variance * np.outer(ones, ones))
    assert average.total == pytest.approx(in_posterior, rel=0, abs=0.2)
    assert marginal < in_posterior


def test_a_fit_finds_the_dynamics() -> None:
    """As much evidence of held-out sequences as the truth has; the planted decay is found."""
    rng = np.random.default_rng(0)
    truth = oracles.LGSSM(
        A=np.array([[0.9]]), b=np.zeros(1), B=np.zeros((1, 0)), Q=np.array([[0.25]]), C=np.array([[1.0], [0.5]]),
        d=np.zeros(2), R=0.25 * np.eye(2), m0=np.zeros(1), S0=np.eye(1),
    )  # fmt: skip
    y = np.stack([oracles.simulate_lgssm(rng, truth, 40)[1] for _ in range(30)])
    data = lr.SequenceData.from_arrays({"y": y})
    model = lr.LatentRNN(
        data.spec, transition=lr.Linear(1), latent=lr.LinearGaussian(), observations={"y": lr.Gaussian()}
    )
    settings = {"steps": 80, "optimizer": lr.AdamW(0.1), "reporting": lr.Reporting(progress=False)}
    result = lr.fit(model, lr.Guide(model), data[:20], seed=0, **settings)
    expected = sum(oracles.kalman_filter(truth, each).log_evidence for each in y[20:])
    found = result.posterior(data[20:]).evidence("exact")
    assert found.total > expected - 15  # of 800 numbers, with nine parameters from 1600 others
    assert result.model.transition.recurrent_weight.item() == pytest.approx(0.9, abs=0.06)


# -- what is refused -------------------------------------------------------------------------------------------------


def data_of() -> lr.SequenceData:
    rng = np.random.default_rng(0)
    return lr.SequenceData.from_arrays(
        {"y": rng.normal(size=(2, 4, 2)), "label": np.ones((2, 1))},
        {"s": rng.normal(size=(2, 4, 1))},
        per_sequence=["label"],
    )


@pytest.mark.parametrize(
    ("heads", "message"),
    [
        ({"y": lambda: lr.StudentT()}, "is StudentT, of which no Gaussian is left; expected Gaussian"),
        ({"y": lambda: lr.Gaussian(link="arcsinh")}, "bends its mean by the link 'arcsinh'"),
        ({"y": lambda: lr.Gaussian(feedback=lr.History(2, into="readout"))}, "the head feeds back"),
        ({"y": lambda: lr.Gaussian(feedback=lr.History(2))}, "draws its states before any observation"),
        ({"y": lambda: lr.Gaussian(readout=lr.MLPReadout(4))}, "reads its states through MLPReadout"),
        ({"y": lambda: lr.Gaussian(gain=lr.StimulusGain("s"))}, "has a gain that the state gates"),
        ({"label": lambda: lr.Gaussian()}, "one value for the whole sequence"),
    ],
)
def test_heads_that_are_not_affine_are_refused_with_the_reason(heads: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        lr.LatentRNN(
            data_of().spec,
            transition=lr.Linear(2),
            latent=lr.LinearGaussian(),
            observations={name: head() for name, head in heads.items()},
        )


def test_what_else_does_not_go_together_is_refused_with_the_reason() -> None:
    data, heads = data_of(), {"y": lr.Gaussian()}
    with pytest.raises(ValueError, match=r"expected Linear, or MarkovNormal as the latent; found GRU\(hidden_size=2\)"):
        lr.LatentRNN(data.spec, transition=lr.GRU(2), latent=lr.LinearGaussian(), observations=heads)
    with pytest.raises(ValueError, match="a scale that depends on the state leaves no Gaussian"):
        lr.LinearGaussian(scale="state")
    with pytest.raises(ValueError, match="observes unknown head 'x'"):
        lr.LatentRNN(data.spec, transition=lr.Linear(2), latent=lr.LinearGaussian(observes=["x"]), observations=heads)
    with pytest.raises(ValueError, match="LinearGaussian sums its states out of every head's density"):
        lr.LatentRNN(
            data.spec,
            transition=lr.Linear(2),
            latent=lr.LinearGaussian(),
            observations=heads,
            couplings=[lr.PhysicalPenalty(lambda rollout: rollout, name="p")],
        )
    model = lr.LatentRNN(data.spec, transition=lr.Linear(2), latent=lr.LinearGaussian(), observations=heads)
    with pytest.raises(ValueError, match="once `sample_marginalised` drew them"):
        model.unroll(data).states()


def test_exact_evidence_of_states_that_are_drawn_is_refused_with_the_reason() -> None:
    data = data_of()
    model = lr.LatentRNN(
        data.spec, transition=lr.Linear(2), latent=lr.MarkovNormal(), observations={"y": lr.Gaussian()}
    )
    with pytest.raises(ValueError, match=r"MarkovNormal\(\) draws \['initial', 'states'\]; use 'auto'"):
        lr.Posterior(model, lr.Guide(model, encoder=lr.RNNEncoder(2)), data).evidence("exact")


# -- the battery -----------------------------------------------------------------------------------------------------


def goes(observation: str) -> bool:
    """Whether the states can be summed out of the heads of a row of the registry."""
    heads, data = OBSERVATIONS[observation], make_data(OBSERVATIONS[observation])
    if heads.transition is not None:  # which they name
        return False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # that irregular times are ignored
            lr.LatentRNN(
                data.spec,
                transition=lr.Linear(3),
                latent=lr.LinearGaussian(),
                observations=heads.observations(),
                inputs=heads.inputs(),
            )
    except ValueError as error:
        if "LinearGaussian" not in str(error):
            raise
        return False
    return True


@pytest.mark.parametrize("observation", [name for name in OBSERVATIONS if goes(name)])
def test_battery(observation: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Shapes, gradients, padding, order, batches, precision and samples with every family of heads that goes."""
    monkeypatch.setitem(registry.LATENTS, "linear gaussian", lr.LinearGaussian)
    parts = ("linear", "linear gaussian", observation)
    battery.check_combination(parts, set(battery.TRIED) - {"context", "files"}, tmp_path)


def test_gaussian_heads_go() -> None:
    assert {name for name in OBSERVATIONS if goes(name)} >= {"gaussian"}
