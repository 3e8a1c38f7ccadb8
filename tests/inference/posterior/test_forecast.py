"""Forecasts: the Kalman filter's where that is exact, one-step densities, joint probabilities of free runs, scores."""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

import latentrnn as lr
from tests import oracles
from tests.linear_gaussian import ExactGuide, Problem, as_data, as_model, exact_guide, random_problem
from tests.oracles import Array
from tests.registry import LATENTS, OBSERVATIONS, default_transition, make_data, make_model

SAMPLES, HORIZON = 4000, 4
# what is computed is held to oracles that count steps, whatever time lies between them
pytestmark = pytest.mark.filterwarnings("ignore:LatentRNN. the data have irregular times")
BUDGET = 6  # Monte Carlo standard errors


def extended_moments(problem: Problem, row: int, future: Array) -> tuple[Array, Array]:
    """Mean (horizon, channel) and covariances of y after the end of a sequence, from the dense joint Gaussian."""
    model, r = problem.model, problem.recordings[row]
    steps, more = len(r.y), len(future)
    y = np.concatenate([r.y, np.zeros((more, r.y.shape[1]))])
    hidden = np.concatenate([r.missing, np.ones((more, r.y.shape[1]), bool)])
    found = oracles.dense_posterior(model, y, np.concatenate([r.u, future]), hidden)
    n = len(model.b)
    blocks = found.covariance.reshape(steps + more, n, steps + more, n)
    means = found.mean[steps:] @ model.C.T + model.d
    covariances = [model.C @ blocks[t, :, t] @ model.C.T + model.R for t in range(steps, steps + more)]
    return means, np.stack(covariances)


@pytest.mark.parametrize("hide", [0.0, 0.3])
def test_paths_have_the_kalman_predictor_s_moments_and_densities(hide: float) -> None:
    problem = random_problem(3, [8, 5], inputs=1, hide=hide)
    data = as_data(problem)
    posterior = lr.Posterior(as_model(problem, data), exact_guide(problem), data, device="cpu")
    future = np.random.default_rng(0).normal(size=(2, HORIZON, 1))
    found = posterior.forecast(HORIZON, {"u": future}, num_samples=SAMPLES)
    assert found.samples["y"].shape == (SAMPLES, 2, HORIZON, 3)
    y = np.random.default_rng(1).normal(size=(2, HORIZON, 3))
    log_score = found.log_score("y", y)
    wrong = posterior.forecast(HORIZON, {"u": future + 1.0}, num_samples=SAMPLES)
    off = []
    for row in range(2):
        means, covariances = extended_moments(problem, row, future[row])
        spread = np.sqrt(np.diagonal(covariances, axis1=1, axis2=2))
        assert (np.abs(found.mean("y")[row].numpy() - means) < BUDGET * spread / SAMPLES**0.5).all()
        for t, covariance in enumerate(covariances):
            drawn = np.cov(found.samples["y"][:, row, t].numpy().T)
            scale = np.sqrt(np.outer(np.diag(covariance), np.diag(covariance)))
            assert (np.abs(drawn - covariance) < BUDGET * scale * (2 / SAMPLES) ** 0.5).all()
            expected = stats.multivariate_normal.logpdf(y[row, t], means[t], covariance)
            assert float(log_score[row, t, 0]) == pytest.approx(expected, abs=0.15)
        z = stats.norm.ppf([0.05, 0.5, 0.95])[:, None, None]
        quantiles = found.quantiles("y", [0.05, 0.5, 0.95])[:, row].numpy()
        assert np.abs((quantiles - means - z * spread) / spread).max() < BUDGET * 2.2 / SAMPLES**0.5
        scaled = (y[row] - means) / spread  # Gneiting and Raftery's formula for a normal forecast
        exact = spread * (scaled * (2 * stats.norm.cdf(scaled) - 1) + 2 * stats.norm.pdf(scaled) - np.pi**-0.5)
        assert (np.abs(found.crps("y", y)[row].numpy() - exact) < BUDGET * spread / SAMPLES**0.5).all()
        off.append(np.abs(wrong.mean("y")[row].numpy() - means) > BUDGET * spread / SAMPLES**0.5)
    assert np.any(off)  # negative control


@pytest.mark.parametrize("observation", [n for n, h in OBSERVATIONS.items() if not h.totals and not h.irregular])
def test_the_next_step_has_the_one_step_ahead_density(observation: str) -> None:
    """Without randomness in the state the forecast of one step is exact, whatever feeds back and what is missing."""
    lengths = (7, 7)  # whole frames of slow heads, and one step more
    data = make_data(OBSERVATIONS[observation], lengths)
    model, guide = make_model(default_transition(observation), "deterministic", observation, data)
    if model.parameter_sites() or math.isinf(model.lookahead):
        pytest.skip("densities are averaged over parameters, or there is no next step")
    past = data.time_slice(0, 6)
    future = {name: values[:, 6:] for name, values in data.covariates.items()}
    totals = {name: torch.ones(2, 1) for name, head in model.observations.items() if head.head.per_step}
    known = {}
    for name, head in model.observations.items():
        if isinstance(head, lr.Multinomial | lr.DirichletMultinomial):  # both sides are told the last step's total
            mask = data.masks[name]
            total = torch.where(mask, data.observations[name], 0.0).sum(-1) + 2.0 * (~mask).any(-1)
            totals[name] = total[:, 6:]
            known[name] = torch.cat([torch.full_like(total[:, :6], torch.nan), total[:, 6:]], 1)
    found = lr.Posterior(model, guide, past, device="cpu").forecast(1, future, totals=totals, num_samples=3)
    whole = lr.Posterior(model, guide, dataclasses.replace(data, totals=data.totals | known), device="cpu")
    for name, head in model.observations.items():
        if not head.head.per_step or head.head.clock > 1:
            continue
        ahead = whole.one_step_ahead(name)
        score = found.log_score(name, data.observations[name][:, 6:], data.masks[name][:, 6:])
        assert torch.equal(~score.isnan(), ahead.scored[:, 6:]) or observation == "hazard, missing"
        expected = torch.where(score.isnan(), torch.nan, ahead.log_prob[:, 6:])
        torch.testing.assert_close(score, expected, rtol=0, atol=1e-9, equal_nan=True)


def test_free_runs_have_the_model_s_joint_probabilities() -> None:
    """Three more steps of one binary channel that feeds back: eight paths, each with its product of densities."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, (1, 6, 1)).astype(float)
    y[0, 3] = np.nan
    data = lr.SequenceData.from_arrays({"y": y}, dtype=torch.float64)
    model = lr.LatentRNN(
        data.spec,
        transition=lr.GRU(3),
        latent=lr.Deterministic(),
        observations={"y": lr.Bernoulli(feedback=lr.History(3, filters=2))},
    ).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter))
    guide = lr.Guide(model).double()
    paths = lr.Posterior(model, guide, data, device="cpu").forecast(3, num_samples=SAMPLES).samples["y"][:, 0, :, 0]
    probabilities, counts = [], []
    for path in itertools.product((0.0, 1.0), repeat=3):
        whole = np.concatenate([y[0], np.array(path)[:, None]])
        ahead = lr.Posterior(model, guide, lr.SequenceData.from_arrays({"y": whole[None]}, dtype=torch.float64))
        probabilities.append(float(ahead.one_step_ahead("y").log_prob[0, 6:].sum().exp()))
        counts.append(int((paths == torch.tensor(path)).all(-1).sum()))
    assert sum(probabilities) == pytest.approx(1.0)
    assert sum(counts) == SAMPLES
    error = [(p * (1 - p) / SAMPLES) ** 0.5 for p in probabilities]
    assert all(abs(c / SAMPLES - p) < BUDGET * e for c, p, e in zip(counts, probabilities, error, strict=True))
    # negative control: independent steps with the same first marginal
    first = sum(probabilities[4:])
    product = [first ** sum(p) * (1 - first) ** (3 - sum(p)) for p in itertools.product((0, 1), repeat=3)]
    assert any(abs(c / SAMPLES - p) > BUDGET * e for c, p, e in zip(counts, product, error, strict=True))


@pytest.mark.parametrize("prior", ["ar1", "white"])
def test_inputs_go_on_from_where_they_were_over_the_time_that_passes(prior: str) -> None:
    times = np.array([[0.0, 0.4, 1.5, 2.0], [0.0, 1.0, 2.0, np.nan]])
    lengths = [4, 3]
    data = lr.SequenceData.from_arrays(
        {"y": [np.zeros((n, 1)) for n in lengths]},
        times=[t[:n] for t, n in zip(times, lengths, strict=True)],
        dtype=torch.float64,
    )
    model = lr.LatentRNN(
        data.spec, transition=lr.Linear(1), latent=lr.Innovations(1, prior=prior), observations={"y": lr.Gaussian()}
    ).double()
    with torch.no_grad():
        for parameter in model.transition.parameters():
            parameter.zero_()
        model.transition.input_weight[:, -1] = 1.0  # y_t = u_t and next to no noise
        model.observations["y"].readout.weight.fill_(1.0)
        model.observations["y"].log_noise_scale.fill_(-9.0)
        model.latent.log_scale.fill_(math.log(0.5))
        if prior == "ar1":
            model.latent.log_time_constant.fill_(math.log(1.7))
    last = [1.2, -0.8]
    tight = [(np.full(n, value), 1e-12 * np.eye(n)) for n, value in zip(lengths, last, strict=True)]
    guide = ExactGuide(tight, initial=0, along_time=("innovations", 1))
    after = np.array([[0.3, 2.0], [1.0, 1.1]])
    posterior = lr.Posterior(model, guide, data, device="cpu")
    end = np.array([[2.0], [2.0]])
    found = posterior.forecast(2, times=end + after, num_samples=SAMPLES).samples["y"][..., 0]
    memory = np.exp(-after / 1.7) if prior == "ar1" else np.zeros((2, 2))
    variance = 0.25 * (1 - memory**2)
    mean = memory * np.array(last)[:, None]
    assert (np.abs(found.mean(0).numpy() - mean) < BUDGET * (variance / SAMPLES) ** 0.5).all()
    assert (np.abs(found.var(0).numpy() / variance - 1) < BUDGET * (2 / SAMPLES) ** 0.5).all()


@pytest.mark.parametrize("latent", [*LATENTS, "discrete"])
def test_every_latent_goes_on(latent: str) -> None:
    data = make_data(OBSERVATIONS["gaussian"])
    if latent == "discrete":
        model = lr.LatentRNN(
            data.spec, transition=lr.GRU(3), latent=lr.Discrete(2), observations={"y": lr.Gaussian()}
        ).double()
        guide = lr.Guide(model)
    else:
        model, guide = make_model("gru", latent, "gaussian", data)
    posterior = lr.Posterior(model, guide, data, device="cpu")
    future = {name: np.zeros((3, 5, spec.features)) for name, spec in data.spec.covariates.items()}
    found = posterior.forecast(5, future, num_samples=6)
    assert found.samples["y"].shape == (6, 3, 5, 2)
    assert torch.isfinite(found.samples["y"]).all()
    assert torch.equal(found.samples["y"], posterior.forecast(5, future, num_samples=6).samples["y"])
    assert torch.isfinite(found.log_score("y", torch.zeros(3, 5, 2))).all()
    assert not torch.equal(found.samples["y"], posterior.reseeded(1).forecast(5, future, num_samples=6).samples["y"])


def test_a_switch_goes_on_by_its_chain() -> None:
    """`Discrete`: the probabilities of the regimes after the end, by matrix powers from the filtered ones."""
    rng = np.random.default_rng(0)
    y = np.concatenate([rng.normal(0, 1, (5, 1)), rng.normal(3, 1, (3, 1))])[None]
    data = lr.SequenceData.from_arrays({"y": y}, dtype=torch.float64)
    model = lr.LatentRNN(
        data.spec, transition=lr.GRU(2), latent=lr.Discrete(2), observations={"y": lr.Gaussian()}
    ).double()
    with torch.no_grad():
        model.observations["y"].readout.weight.copy_(torch.tensor([[0.0, 0.0, 0.0, 3.0]]))
        model.latent.switch_logits.copy_(torch.tensor([[0.9, 0.1], [0.3, 0.7]]).log())
    posterior = lr.Posterior(model, lr.Guide(model), data, device="cpu")
    filtered = posterior.latents(1)["switch"][0, 0, -1].numpy()
    drawn = posterior.forecast(3, num_samples=SAMPLES).mean("y")[0, :, 0].numpy()
    moves = np.array([[0.9, 0.1], [0.3, 0.7]])
    for k in range(3):
        p = (filtered @ np.linalg.matrix_power(moves, k + 1))[1]
        assert abs(drawn[k] - 3 * p) < BUDGET * ((9 * p * (1 - p) + 1) / SAMPLES) ** 0.5
    assert abs(drawn[0] - 3 * filtered[1]) > BUDGET * ((9 * p * (1 - p) + 1) / SAMPLES) ** 0.5  # negative control


def test_slow_heads_have_the_frames_that_are_complete() -> None:
    data = make_data(OBSERVATIONS["several"])  # lengths 6, 3 and 5; the head `slow` has a frame every second step
    model, guide = make_model("gru", "innovations", "several", data)
    future = {name: np.zeros((3, 3, spec.features)) for name, spec in data.spec.covariates.items()}
    found = lr.Posterior(model, guide, data, device="cpu").forecast(3, future, num_samples=4)
    assert set(found.samples) == {"y", "slow"}
    assert torch.isfinite(found.samples["y"]).all()
    assert torch.isfinite(found.samples["slow"]).all(-1)[0].tolist() == [[True, False], [True, True], [True, True]]


def test_chunks_change_nothing_where_nothing_in_the_state_is_random() -> None:
    data = make_data(OBSERVATIONS["several"], (6, 3, 5, 4))
    model, guide = make_model("gru", "deterministic", "several", data)
    posterior = lr.Posterior(model, guide, data, device="cpu")
    future = {name: np.ones((4, 3, spec.features)) for name, spec in data.spec.covariates.items()}
    y = {"y": torch.zeros(4, 3, 2), "slow": torch.zeros(4, 2, 2)}

    def scores(of: lr.Posterior) -> dict[str, Tensor]:
        found = of.forecast(3, future, num_samples=4)
        return {name: found.log_score(name, value) for name, value in y.items()}

    whole = scores(posterior)
    for name, value in scores(lr.Posterior(model, guide, data, device="cpu", max_elements=1)).items():
        torch.testing.assert_close(value, whole[name], equal_nan=True)


ERRORS: dict[str, tuple[str, dict[str, Any], str]] = {
    "no covariates": ("poisson", {}, r"driven by \['drive', 'stimulus'\].*\(3, 2, 1\).*\(3, 2, 2\)"),
    "too few": (
        "poisson",
        {"covariates": {"drive": np.zeros((3, 2, 1)), "stimulus": np.zeros((3, 1, 2))}},
        r"covariates\['stimulus'\]: expected .*\(3, 2, 2\).* \[1\] steps",
    ),
    "unknown": ("poisson", {"covariates": {"odd": np.zeros((3, 2, 1))}}, "'odd'|driven by"),
    "not a number": (
        "poisson",
        {"covariates": {"drive": np.full((3, 2, 1), np.nan), "stimulus": np.zeros((3, 2, 2))}},
        "every step of the future",
    ),
    "no times": ("gaussian irregular", {"covariates": "zeros"}, r"times: the steps are irregular.*\(3, 2\)"),
    "times that go back": ("gaussian irregular", {"covariates": "zeros", "times": np.zeros((3, 2))}, "to increase"),
    "times without need": ("poisson", {"covariates": "zeros", "times": np.zeros((3, 2))}, "regular clock"),
    "no totals": ("multinomial totals", {"covariates": "zeros"}, r"channels of 'y' share a total"),
    "unknown head": ("poisson", {"covariates": "zeros", "heads": ["z"]}, "unknown head 'z'"),
    "label": ("several", {"covariates": "zeros", "heads": ["label"]}, "one value per sequence"),
    "a date for covariates": (
        "poisson",
        {"covariates": np.datetime64("2026-01-01")},
        "covariates: expected a dict of name to value, found datetime64",
    ),
    "an array for covariates": (
        "poisson",
        {"covariates": np.array([None, 1])},
        "covariates: expected a dict of name to value, found ndarray",
    ),
    "a list of totals": (
        "multinomial totals",
        {"covariates": "zeros", "totals": [3]},
        "totals: expected a dict of name to value, found list",
    ),
}


@pytest.mark.parametrize("case", ERRORS)
def test_what_is_missing_of_the_future_is_named(case: str) -> None:
    observation, arguments, match = ERRORS[case]
    data = make_data(OBSERVATIONS[observation])
    model, guide = make_model("gru", "innovations", observation, data)
    if isinstance(arguments.get("covariates"), str):
        zeros = {name: np.zeros((3, 2, spec.features)) for name, spec in data.spec.covariates.items()}
        arguments = {**arguments, "covariates": zeros}
    with pytest.raises((ValueError, TypeError), match=match):
        lr.Posterior(model, guide, data, device="cpu").forecast(2, **arguments)


def test_a_smooth_process_without_finite_memory_is_refused() -> None:
    data = make_data(OBSERVATIONS["gaussian"])
    latent = lr.Innovations(1, prior="squared_exponential")
    model = lr.LatentRNN(data.spec, transition=lr.GRU(3), latent=latent, observations={"y": lr.Gaussian()}).double()
    guide = lr.Guide(model, encoder=lr.RNNEncoder(3)).double()
    future = {name: np.zeros((3, 2, spec.features)) for name, spec in data.spec.covariates.items()}
    with pytest.raises(ValueError, match="no finite memory"):
        lr.Posterior(model, guide, data, device="cpu").forecast(2, future)


def test_what_only_the_guide_looks_at_need_not_be_known() -> None:
    data = make_data(OBSERVATIONS["poisson"])
    model = lr.LatentRNN(
        data.spec, transition=lr.GRU(3), latent=lr.Innovations(1), observations={"y": lr.Poisson()}, inputs=["drive"]
    ).double()
    guide = lr.Guide(model, encoder=lr.RNNEncoder(3)).double()
    found = lr.Posterior(model, guide, data, device="cpu").forecast(2, {"drive": np.zeros((3, 2, 1))}, num_samples=2)
    assert found.samples["y"].shape == (2, 3, 2, 3)


# -- scores ----------------------------------------------------------------------------------------------------------


def test_the_fair_score_does_not_reward_few_samples() -> None:
    rng = np.random.default_rng(0)
    y, many = 0.4, 20000
    exact = y * (2 * stats.norm.cdf(y) - 1) + 2 * stats.norm.pdf(y) - np.pi**-0.5
    few = rng.normal(size=(3, many, 1, 1))
    fair = lr.crps(few, np.full((many, 1, 1), y))
    plain = lr.crps(few, np.full((many, 1, 1), y), fair=False)
    assert abs(float(fair.mean()) - exact) < BUDGET * float(fair.std()) / many**0.5
    assert abs(float(plain.mean()) - exact) > BUDGET * float(plain.std()) / many**0.5  # negative control
    pairs = np.abs(few[:, None] - few[None]).sum((0, 1)) / 9
    np.testing.assert_allclose(plain, np.abs(few - y).mean(0) - 0.5 * pairs, atol=1e-12)


def test_scores_leave_out_what_is_missing() -> None:
    samples = torch.arange(40.0).reshape(40, 1, 1, 1).expand(40, 1, 3, 1)  # enough for an interval of 90%
    observed = torch.tensor([3.0, torch.nan, 50.0]).reshape(1, 3, 1)
    mask = torch.tensor([True, True, True]).reshape(1, 3, 1)
    assert lr.coverage(samples, observed, mask).flatten().nan_to_num(-1.0).tolist() == [1.0, -1.0, 0.0]
    assert lr.crps(samples, observed, ~mask).isnan().all()
    assert lr.crps(samples, observed).isnan().flatten().tolist() == [False, True, False]
    with pytest.raises(ValueError, match=r"observed: expected.*\(1, 3, 1\).*found \(1, 2, 1\)"):
        lr.crps(samples, observed[:, :2])
    with pytest.raises(ValueError, match="level"):
        lr.coverage(samples, observed, level=90)


def test_baselines_by_hand() -> None:
    y = [np.array([[1.0], [2.0], [3.0], [4.0], [5.0]]), np.array([[7.0], [8.0], [np.nan], [10.0]])]
    data = lr.SequenceData.from_arrays({"y": y})
    assert lr.persistence(data, 2).samples["y"][0, :, :, 0].tolist() == [[5, 5], [10, 10]]
    seasonal = lr.seasonal_naive(data, 4, 3).samples["y"][0, :, :, 0]
    assert seasonal[0].tolist() == [3, 4, 5, 3]
    assert seasonal[1, 0] == 8
    assert seasonal[1, 1].isnan()  # nothing of this phase was ever observed
    assert seasonal[1, 2:].tolist() == [10, 8]
    past = lr.climatology(data, 3, 101)
    assert past.mean("y")[:, 0, 0].tolist() == pytest.approx([3.0, 25 / 3], abs=0.02)
    assert past.crps("y", torch.full((2, 3, 1), 3.0)).shape == (2, 3, 1)
    with pytest.raises(ValueError, match="no densities"):
        past.log_score("y", torch.zeros(2, 3, 1))


def test_a_fitted_forecast_beats_what_needs_no_model() -> None:
    """A damped oscillation with noise: the model that made it, against persistence and the past's own quantiles."""
    problem = random_problem(5, [30] * 40, state_dim=2, channels=3)
    data = as_data(problem)
    past, future = data.time_slice(0, 25), data.time_slice(25, 30)
    shorter = Problem(problem.model, tuple(type(r)(r.y[:25], r.u[:25], r.missing[:25]) for r in problem.recordings))
    posterior = lr.Posterior(as_model(problem, data), exact_guide(shorter), past, device="cpu")
    found = posterior.forecast(5, num_samples=300)
    truth = future.observations["y"]
    score = float(found.crps("y", truth).nanmean())
    inside = found.coverage("y", truth, 0.9)
    # entries of a sequence go together: an error of 40 sequences, not of 600 entries (budget 6)
    assert abs(float(inside.mean()) - 0.9) < BUDGET * float(inside.mean((1, 2)).std()) / 40**0.5
    assert score < float(lr.persistence(past, 5).crps("y", truth).nanmean())
    assert score < float(lr.climatology(past, 5).crps("y", truth).nanmean())
