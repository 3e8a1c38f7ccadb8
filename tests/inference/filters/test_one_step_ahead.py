"""Predictive densities of the next step: exact where they can be, the Kalman filter's where not, never smoothed."""

from __future__ import annotations

import math

import numpy as np
import pyro.distributions as dist
import pytest
import torch
from scipy import stats

import latentrnn as lr
from tests import oracles
from tests.linear_gaussian import Problem, as_data, as_model, random_problem, set_linear
from tests.oracles import Array

# what is computed is held to oracles that count steps, whatever time lies between them
pytestmark = pytest.mark.filterwarnings("ignore:LatentRNN. the data have irregular times")
BUDGET = 6  # Monte Carlo standard errors, of many filters: with few their spread is itself too uncertain


class Blind(lr.RNNEncoder):
    """An encoder that must not be asked."""

    def forward(self, data: lr.SequenceData) -> None:
        raise AssertionError("the smoothing guide was used")


def posterior_of(model: lr.LatentRNN, data: lr.SequenceData, **settings: object) -> lr.Posterior:
    guide = lr.Guide(model, encoder=Blind(2), **settings).double()
    return lr.Posterior(model, guide, data, device="cpu")


def kalman(problem: Problem) -> Array:
    """log p(y_t | y_<t), (sequence, time), zero in padding."""
    per_sequence = problem.log_predictive()
    longest = max(map(len, per_sequence))
    return np.stack([np.pad(each, (0, longest - len(each))) for each in per_sequence])


# -- by particle filter ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", [{"inputs": 0, "hide": 0.0}, {"inputs": 1, "hide": 0.3}], ids=["complete", "missing"])
def test_the_particle_filter_agrees_with_kalman_s_step_by_step(case: dict) -> None:
    problem = random_problem(0, [8, 5], **case)
    data = as_data(problem)
    found = posterior_of(as_model(problem, data), data).one_step_ahead("y", num_particles=1000, num_filters=40)
    assert found.log_prob.shape == found.scored.shape == (2, 8, 1)
    assert not found.exact
    expected = torch.as_tensor(kalman(problem))
    seen = found.scored[..., 0]
    difference, error = (found.log_prob[..., 0] - expected).abs(), found.standard_error[..., 0]
    assert (difference[seen] < BUDGET * error[seen]).all()
    assert (found.log_prob[~found.scored] == 0).all()
    assert error[seen].max() < 0.05
    # errors of a sequence's steps go together, so that their plain sum bounds the error of the total
    assert abs(found.total - problem.evidence().sum()) < BUDGET * error[seen].sum()
    # negative control: a model that is a little wrong is told apart
    wrong = as_model(problem, data)
    with torch.no_grad():
        wrong.transition.bias += 0.3
    other = posterior_of(wrong, data).one_step_ahead("y", num_particles=1000, num_filters=40)
    assert ((other.log_prob[..., 0] - expected).abs()[seen] > BUDGET * other.standard_error[..., 0][seen]).any()


def test_the_predictive_means_are_kalman_s() -> None:
    problem = random_problem(1, [8, 5])
    data = as_data(problem)
    found = posterior_of(as_model(problem, data), data).one_step_ahead("y", num_particles=2000, num_filters=20)
    for i, r in enumerate(problem.recordings):
        filtered = oracles.kalman_filter(problem.model, r.y, r.u)
        expected = filtered.predicted_means @ problem.model.C.T + problem.model.d
        C, covariances = problem.model.C, filtered.predicted_covs
        spread = np.sqrt(np.einsum("cs,tsr,cr->tc", C, covariances, C))
        # 40,000 particles, of which weights and resampling leave at least one in five
        assert np.abs((found.mean[i, : len(r.y)].numpy() - expected) / spread).max() < BUDGET / 8000**0.5


@pytest.mark.parametrize("clock", ["steps", "times"])
@pytest.mark.parametrize("prior", ["white", "ar1"])
def test_random_inputs_are_filtered_with_their_own_memory(prior: str, clock: str) -> None:
    """Linear, Innovations, Gaussian: y_1, ..., y_t are jointly Gaussian, and the density of the next is a ratio."""
    rng = np.random.default_rng(2)
    numbers = oracles.random_lgssm(rng, state_dim=2, channels=2)
    times = np.cumsum(rng.uniform(0.5, 4.0, 7)) if clock == "times" else np.arange(7.0)
    y = rng.normal(size=(7, 2))
    data = lr.SequenceData.from_arrays(
        {"y": y[None]}, times=times[None] if clock == "times" else None, dtype=torch.float64
    )
    model = lr.LatentRNN(
        data.spec,
        transition=lr.Linear(2),
        latent=lr.Innovations(1, prior=prior),
        observations={"y": lr.Gaussian(covariance="full")},
    ).double()
    set_linear(model, numbers)
    with torch.no_grad():
        model.transition.input_weight.copy_(torch.tensor([[1.0], [-0.7]]))
        model.latent.log_scale.fill_(0.2)
    kernel = np.eye(7)
    if prior == "ar1":
        kernel = np.exp(-np.abs(np.subtract.outer(times, times)) / model.latent.time_constant.item())
    means, read, h, H = [], [], np.zeros(2), np.zeros((2, 7))
    for t in range(7):
        h, H = numbers.A @ h + numbers.b, numbers.A @ H
        H[:, t] += [1.0, -0.7]
        means.append(numbers.C @ h + numbers.d)
        read.append(numbers.C @ H)
    read = np.concatenate(read)
    covariance = math.exp(0.4) * read @ kernel @ read.T + np.kron(np.eye(7), numbers.R)
    joint = [
        stats.multivariate_normal.logpdf(
            y.ravel()[: 2 * t], np.concatenate(means)[: 2 * t], covariance[: 2 * t, : 2 * t]
        )
        for t in range(1, 8)
    ]
    expected = torch.as_tensor(np.diff(joint, prepend=0.0))
    found = posterior_of(model, data).one_step_ahead("y", num_particles=2000, num_filters=40)
    difference = (found.log_prob[0, :, 0] - expected).abs()
    assert (difference < BUDGET * found.standard_error[0, :, 0] + 1e-9).all()
    assert found.standard_error.max() < 0.03


def test_counts_are_filtered_as_on_a_fine_grid() -> None:
    """A one-dimensional state under Poisson counts: the filter's integrals by quadrature."""
    y = np.array([0.0, 3.0, 1.0, 0.0, 5.0, 2.0])
    data = lr.SequenceData.from_arrays({"n": y[None, :, None]}, dtype=torch.float64)
    model = lr.LatentRNN(
        data.spec, transition=lr.Linear(1), latent=lr.MarkovNormal(), observations={"n": lr.Poisson()}
    ).double()
    with torch.no_grad():
        model.transition.recurrent_weight.fill_(0.8)
        model.transition.input_weight.zero_()
        model.latent.log_scale.fill_(math.log(0.6))
        model.observations["n"].readout.weight.fill_(1.0)
        model.observations["n"].readout.baseline.fill_(0.3)
    grid = np.linspace(-7, 7, 1401)
    density, expected, means = stats.norm.pdf(grid), [], []
    move = stats.norm.pdf(grid[:, None], 0.8 * grid[None], 0.6) * (grid[1] - grid[0])
    for count in y:
        density = move @ density
        density /= density.sum()
        rate = np.exp(grid + 0.3)
        expected.append(np.log(density @ stats.poisson.pmf(count, rate)))
        means.append(density @ rate)
        density *= stats.poisson.pmf(count, rate)
    found = posterior_of(model, data).one_step_ahead("n", num_particles=2000, num_filters=40)
    assert ((found.log_prob[0, :, 0] - torch.tensor(expected)).abs() < BUDGET * found.standard_error[0, :, 0]).all()
    np.testing.assert_allclose(found.mean[0, :, 0], means, rtol=0.05)


@pytest.mark.parametrize("latent", [lr.MarkovNormal(), lr.Innovations(2, initial=2, prior="ar1"), lr.Deterministic()])
def test_nothing_later_is_looked_at(latent: object) -> None:
    """Bit for bit: other observations after t leave every density up to t as it was, and change those after it."""
    rng = np.random.default_rng(3)
    y = rng.poisson(1.0, (2, 9, 3)).astype(float)
    data = lr.SequenceData.from_arrays({"y": y}, dtype=torch.float64)
    feedback = None if isinstance(latent, lr.MarkovNormal) else lr.History(3, filters=2)
    model = lr.LatentRNN(
        data.spec, transition=lr.GRU(4), latent=latent, observations={"y": lr.Poisson(feedback=feedback)}
    ).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    later = y.copy()
    later[:, 5:] = rng.poisson(4.0, (2, 4, 3))
    before, after = (
        posterior_of(model, each).one_step_ahead("y", num_particles=100, num_filters=4)
        for each in (data, data.with_observations({"y": torch.as_tensor(later)}))
    )
    assert torch.equal(before.log_prob[:, :5], after.log_prob[:, :5])
    assert torch.equal(before.mean[:, :6], after.mean[:, :6])  # the mean at 5 does not see y_5 either
    assert not torch.equal(before.mean[:, 6:], after.mean[:, 6:])
    assert (before.log_prob[:, 5:] != after.log_prob[:, 5:]).any()


def test_steps_of_the_context_inform_but_are_not_scored() -> None:
    problem = random_problem(4, [9])
    data = as_data(problem)
    _, _, later = data.split(1 / 3, 1 / 3, 1 / 3, along="time", context=6)
    assert later.context.tolist() == [6]
    model = as_model(problem, data)
    found = posterior_of(model, later).one_step_ahead("y", num_particles=2000, num_filters=40)
    assert found.scored[0, :, 0].tolist() == [False] * 6 + [True] * 3
    assert (found.log_prob[0, :6] == 0).all()
    expected = torch.as_tensor(kalman(problem)[0, 6:])
    assert ((found.log_prob[0, 6:, 0] - expected).abs() < BUDGET * found.standard_error[0, 6:, 0]).all()


# -- exact ----------------------------------------------------------------------------------------------------------


def deterministic(feedback: lr.History | None, *, hide: float = 0.0) -> tuple[lr.LatentRNN, lr.SequenceData]:
    rng = np.random.default_rng(5)
    lengths = [8, 5]
    y = [rng.poisson(1.5, (n, 2)).astype(float) for n in lengths]
    y = [np.where(rng.random(each.shape) < hide, np.nan, each) for each in y]
    x = [rng.normal(size=(n, 2)) for n in lengths]
    data = lr.SequenceData.from_arrays({"y": y}, {"x": x}, dtype=torch.float64)
    model = lr.LatentRNN(
        data.spec, transition=lr.GRU(3), latent=lr.Deterministic(), observations={"y": lr.Poisson(feedback=feedback)}
    ).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.4 * torch.randn_like(parameter))
        head = model.observations["y"]
        head.history_centre.copy_(torch.tensor([1.2, 0.7]))
        head.history_scale.copy_(torch.tensor([1.1, 2.0]))
    return model, data


def by_hand(model: lr.LatentRNN, data: lr.SequenceData) -> Array:
    """log Poisson(y_t; exp(eta_t)) written out: filters of the recorded past into a GRU and into the predictor."""
    numbers = {name: value.detach().numpy() for name, value in model.state_dict().items()}
    cell = {k.removeprefix("transition.kernel.")[:-3]: v for k, v in numbers.items() if "kernel" in k}
    head, feedback = "observations.y.", model.observations["y"].feedback
    out = np.zeros(data.observations["y"].shape)
    for i, length in enumerate(data.lengths.tolist()):
        y, seen = data.observations["y"][i].numpy(), data.masks["y"][i].numpy()
        past = (y - numbers[head + "history_centre"]) / numbers[head + "history_scale"]
        past = np.where(seen, past, 0.0)
        h = numbers["latent.initial_state"]
        for t in range(length):
            inputs = [data.covariates["x"][i, t].numpy()]
            eta = numbers[head + "readout.baseline"].copy()
            if feedback is not None:
                weight = numbers[head + "feedback.weight"]  # (channel, filter, lag), the oldest lag first
                features = np.zeros(weight.shape[:2])
                for lag in range(1, feedback.steps + 1):
                    if t - lag >= 0:
                        features += past[t - lag][:, None] * weight[:, :, -lag]
                if "transition" in feedback.into:
                    inputs.append(features.ravel())
                if "readout" in feedback.into:
                    eta += (numbers[head + "feedback.own"][:, 0] * features).sum(1)
            h = oracles.gru_step(np.concatenate(inputs), h, cell)
            eta += numbers[head + "readout.weight"] @ h
            out[i, t] = np.where(seen[t], stats.poisson.logpmf(y[t], np.exp(eta)), 0.0)
    return out


@pytest.mark.parametrize("hide", [0.0, 0.25], ids=["complete", "missing"])
@pytest.mark.parametrize("into", [None, ("transition",), ("readout",), ("transition", "readout")], ids=str)
def test_without_randomness_densities_are_exact_and_add_up_to_the_evidence(
    into: tuple[str, ...] | None, hide: float
) -> None:
    model, data = deterministic(None if into is None else lr.History(3, filters=2, into=into), hide=hide)
    posterior = lr.Posterior(model, lr.Guide(model), data, device="cpu")
    found = posterior.one_step_ahead("y")
    assert found.exact
    assert torch.equal(found.scored, data.masks["y"])
    np.testing.assert_allclose(found.log_prob, by_hand(model, data), rtol=0, atol=1e-10)
    np.testing.assert_allclose(found.log_prob.sum((1, 2)), posterior.evidence().values, rtol=0, atol=1e-10)


def test_the_recorded_past_is_what_is_fed_back() -> None:
    """Negative control of the hand-written history: a filter off by one step gives other numbers."""
    model, data = deterministic(lr.History(3, filters=2))
    expected = by_hand(model, data)
    with torch.no_grad():
        model.observations["y"].feedback.weight.copy_(model.observations["y"].feedback.weight.roll(1, -1))
    found = lr.Posterior(model, lr.Guide(model), data, device="cpu").one_step_ahead("y")
    assert np.abs(found.log_prob.numpy() - expected).max() > 1e-3


def test_densities_averaged_over_parameters_say_so() -> None:
    """With a posterior on the baseline: an average over its draws, weighed by the past, within its error.

    The sum over the steps is the log predictive density of the sequence.
    """
    data = lr.SequenceData.from_arrays({"n": np.array([[[0.0], [2.0], [5.0]]])}, dtype=torch.float64)
    model = lr.LatentRNN(
        data.spec,
        transition=lr.GRU(2),
        latent=lr.Deterministic(),
        observations={"n": lr.Poisson(priors={"baseline": dist.Normal(0.0, 1.0)})},
    ).double()
    guide = lr.Guide(model).double()
    with torch.no_grad():
        model.observations["n"].readout.weight.zero_()
        guide.parameter_sites.loc["n_readout_baseline"].fill_(0.5)
        guide.parameter_sites.log_scale["n_readout_baseline"].fill_(math.log(0.3))
    found = lr.Posterior(model, guide, data, device="cpu").one_step_ahead("n")
    assert not found.exact
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    rate = np.exp(0.5 + 0.3 * nodes)
    expected = []
    for y in (0, 2, 5):
        likelihood = stats.poisson.pmf(y, rate)
        expected.append(np.log(weights @ likelihood / weights.sum()))
        weights = weights * likelihood
    difference = np.abs(found.log_prob[0, :, 0].numpy() - expected)
    assert (found.standard_error > 0).all()
    # sixteen draws: a t-value of 15 degrees of freedom beyond 9 has probability 2e-7
    assert (difference < 9 * found.standard_error[0, :, 0].numpy()).all()
    closer = lr.Posterior(model, guide, data, device="cpu").one_step_ahead("n", num_draws=256)
    assert (closer.standard_error < found.standard_error / 3).all()
    difference = np.abs(closer.log_prob[0, :, 0].numpy() - expected)
    assert (difference < 6 * closer.standard_error[0, :, 0].numpy()).all()
    together = lr.Posterior(model, guide, data, device="cpu").evidence("iwae", 4000)
    assert float(together.values) == pytest.approx(sum(expected), abs=6 * float(together.standard_error))


def test_draws_are_weighed_by_all_heads_whatever_their_clocks() -> None:
    """Baselines of two heads, one of them slow, with and without a random state: by conjugate updates."""
    rng = np.random.default_rng(0)
    fast, slow = rng.normal(1.5, 1.0, 6), rng.normal(1.5, 0.5, 2)
    arrays = {"fast": fast[None, :, None], "slow": slow[None, :, None]}
    data = lr.SequenceData.from_arrays(arrays, clocks={"slow": 3}, dtype=torch.float64)
    for latent in (lr.Deterministic(fixed={"initial_state": 1.0}), lr.Innovations(1, fixed={"initial_state": 1.0})):
        still = lr.Linear(1, fixed={"weight": 1.0, "input_weight": 0.0, "bias": 0.0})
        heads = {
            "fast": lr.Gaussian(fixed={"weight": 0.0, "scale": 1.0}, priors={"baseline": dist.Normal(0.0, 2.0)}),
            "slow": lr.Gaussian(fixed={"weight": 0.0, "scale": 0.5}, priors={"baseline": dist.Normal(0.0, 2.0)}),
        }
        model = lr.LatentRNN(data.spec, transition=still, latent=latent, observations=heads).double()
        guide = lr.Guide(model, encoder=lr.RNNEncoder(2) if model.latent_sites() else None).double()
        with torch.no_grad():
            for name in heads:
                guide.parameter_sites.loc[f"{name}_readout_baseline"].fill_(0.0)
                guide.parameter_sites.log_scale[f"{name}_readout_baseline"].fill_(math.log(2.0))
        posterior = lr.Posterior(model, guide, data, device="cpu")
        draws = 100 if model.latent_sites() else 400
        found = {n: posterior.one_step_ahead(n, num_particles=2, num_filters=2, num_draws=draws) for n in heads}
        for name, y, scale in (("fast", fast, 1.0), ("slow", slow, 0.5)):
            mean, variance = 0.0, 4.0
            for t, value in enumerate(y):
                expected = stats.norm.logpdf(value, mean, np.hypot(variance**0.5, scale))
                error = float(found[name].standard_error[0, t, 0])
                assert error < 6 / draws**0.5
                assert float(found[name].log_prob[0, t, 0]) == pytest.approx(expected, abs=6 * error)
                precision = 1 / variance + 1 / scale**2
                mean, variance = (mean / variance + value / scale**2) / precision, 1 / precision


def test_heads_that_count_events_tell_how_probable_none_is() -> None:
    """With randomness as on a fine grid, without as by hand; a head that counts nothing has no such number."""
    y = np.array([0.0, 3.0, 1.0, 0.0, 5.0, 2.0])
    data = lr.SequenceData.from_arrays({"n": y[None, :, None]}, dtype=torch.float64)
    model = lr.LatentRNN(
        data.spec, transition=lr.Linear(1), latent=lr.Innovations(1), observations={"n": lr.Poisson()}
    ).double()
    with torch.no_grad():  # the state is u_t alone, standard normal at every step
        model.transition.recurrent_weight.zero_()
        model.transition.input_weight.fill_(1.0)
        model.transition.bias.zero_()
        model.latent.log_scale.zero_()
        model.observations["n"].readout.weight.fill_(0.8)
        model.observations["n"].readout.baseline.fill_(-0.3)
    found = posterior_of(model, data).one_step_ahead("n", num_particles=500, num_filters=20)
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    none = np.log(weights @ np.exp(-np.exp(0.8 * nodes - 0.3)) / weights.sum())
    difference = (found.log_prob_zero[0, :, 0] - none).abs()
    assert (difference < BUDGET * found.standard_error_zero[0, :, 0]).all()
    assert (difference < 0.05).all()
    torch.testing.assert_close(found.log_prob_zero[0, [0, 3]], found.log_prob[0, [0, 3]])
    assert found.family == "Poisson"
    assert "Poisson" in repr(found) and len(repr(found)) < 200  # noqa: PT018
    exact_model, exact_data = deterministic(None)
    exact = lr.Posterior(exact_model, lr.Guide(exact_model), exact_data, device="cpu").one_step_ahead("y")
    expected = torch.where(exact.scored, -exact.mean, 0.0)
    torch.testing.assert_close(exact.log_prob_zero, expected)
    assert exact.standard_error_zero is None
    problem = random_problem(0, [4])
    gaussian = as_data(problem)
    assert posterior_of(as_model(problem, gaussian), gaussian).one_step_ahead("y", 10, 2).log_prob_zero is None


def test_a_binary_head_tells_how_probable_none_is() -> None:
    y = np.random.default_rng(0).integers(0, 2, (2, 5, 3)).astype(float)
    data = lr.SequenceData.from_arrays({"y": y}, dtype=torch.float64)
    torch.manual_seed(0)
    model = lr.LatentRNN(
        data.spec, transition=lr.GRU(2), latent=lr.Deterministic(), observations={"y": lr.Bernoulli()}
    ).double()
    found = lr.Posterior(model, lr.Guide(model), data, device="cpu").one_step_ahead("y")
    np.testing.assert_allclose(found.log_prob_zero, stats.bernoulli.logpmf(0, found.mean.numpy()), rtol=1e-12)
    np.testing.assert_allclose(found.log_prob, stats.bernoulli.logpmf(y, found.mean.numpy()), rtol=1e-12)
