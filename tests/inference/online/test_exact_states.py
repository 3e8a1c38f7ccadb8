"""States of `LinearGaussian` as they come in: the Kalman filter's numbers, step by step, under draws too."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

import latentrnn as lr
from latentrnn.inference.posterior.draws.stored_draws import StoredDraws
from tests import oracles
from tests.inference.online.streamed import steps_of
from tests.linear_gaussian import as_data, as_model, random_problem
from tests.models.test_latents_linear_gaussian import make, posterior_of, summed, with_priors_on_all

DRAWS = 3


@pytest.mark.parametrize("hide", [0.0, 0.3])
@pytest.mark.parametrize("inputs", [0, 2])
def test_every_step_is_that_of_the_kalman_filter(inputs: int, hide: float) -> None:
    """Of other code: densities, means and covariances before and after each step; particles are not needed."""
    problem = random_problem(3, [20], inputs=inputs, hide=hide)
    data = as_data(problem)
    model = summed(as_model(problem, data), data)
    online = lr.OnlineFilter(posterior_of(model, data), num_particles=None)
    r = problem.recordings[0]
    exact = oracles.kalman_filter(problem.model, r.y, r.u, r.missing)
    back = np.linalg.inv(oracles.diagonalise(problem.model).T)
    for t, told in enumerate(steps_of(data)):
        found = online.update(**told)
        assert found.log_prob == pytest.approx(exact.log_predictive[t], abs=1e-9)
        np.testing.assert_allclose(back @ found.mean.numpy(), exact.filtered_means[t], rtol=0, atol=1e-9)
        covariance = back @ found.covariance.numpy() @ back.T
        np.testing.assert_allclose(covariance, exact.filtered_covs[t], rtol=0, atol=1e-9)
        for mean, said in ((exact.predicted_means[t], found.predicted), (exact.filtered_means[t], found.rates)):
            expected = problem.model.C @ mean + problem.model.d
            np.testing.assert_allclose(said["y"].numpy(), expected, rtol=0, atol=1e-9)
        assert found.weights.tolist() == [1.0]
        assert found.effective_sample_size is None
        assert "effective sample size" not in repr(found)


def test_heads_of_every_kind_and_clock_come_to_the_batch_filter() -> None:
    """Full and low-rank noise with holes, a slow head with a covariate, a gain that looks a step back."""
    model, whole = make()
    data = whole[:1]
    online = lr.OnlineFilter(posterior_of(model, data))
    ahead = {name: posterior_of(model, data).one_step_ahead(name) for name in model.observations}
    total = 0.0
    for t, told in enumerate(steps_of(data)):
        found = online.update(**told)
        total += found.log_prob
        prefix = posterior_of(model, data.time_slice(0, t + 1))
        assert total == pytest.approx(prefix.evidence("exact").total, abs=1e-9)
        moments = prefix.latents(1)  # the smoother's: at the last step the filter's
        torch.testing.assert_close(found.mean, moments["smoothed_mean"][0, 0, -1], rtol=0, atol=1e-9)
        sd = found.covariance.diagonal().sqrt()
        torch.testing.assert_close(sd, moments["smoothed_sd"][0, 0, -1], rtol=0, atol=1e-9)
        due = {name for name, head in data.spec.heads.items() if (t + 1) % head.clock == 0}
        assert found.predicted.keys() == found.rates.keys() == due
        for name in due:
            frame = (t + 1) // data.spec.heads[name].clock - 1
            torch.testing.assert_close(found.predicted[name], ahead[name].mean[0, frame], rtol=0, atol=1e-9)


def under_draws() -> tuple[lr.Posterior, lr.SequenceData]:
    """The same heads with priors on all parameters, and draws of these."""
    model, whole = with_priors_on_all()
    data = whole[:1]
    torch.manual_seed(0)
    draws = {name: prior.sample(torch.Size((DRAWS,))).double() for name, (prior, _) in model.parameter_sites().items()}
    return lr.Posterior(model, StoredDraws([], draws, ()), data, device="cpu"), data


def test_draws_of_parameters_each_have_a_kalman_filter_of_their_own() -> None:
    """The evidence of each draw by the batch filter weighs it; means and covariances are those of the mixture."""
    posterior, data = under_draws()
    online = lr.OnlineFilter(posterior, num_draws=DRAWS)
    total = shared = 0.0
    for t, told in enumerate(steps_of(data)):
        found = online.update(**told)
        total += found.log_prob
        prefix = lr.Posterior(posterior.model, posterior.guide, data.time_slice(0, t + 1), device="cpu")
        evidence = prefix.log_likelihood(num_draws=DRAWS)[:, 0]
        assert total == pytest.approx(float(torch.logsumexp(evidence, 0)) - math.log(DRAWS), abs=1e-8)
        weights = evidence.softmax(0)
        torch.testing.assert_close(found.draw_weights, weights, rtol=0, atol=1e-8)
        moments = prefix.latents(DRAWS)
        means, sds = (moments[name][:, 0, -1] for name in ("smoothed_mean", "smoothed_sd"))
        mean = weights @ means
        torch.testing.assert_close(found.mean, mean, rtol=0, atol=1e-8)
        variance = weights @ (sds**2 + (means - mean) ** 2)
        torch.testing.assert_close(found.covariance.diagonal(), variance, rtol=1e-8, atol=1e-8)
        assert found.values.shape == (DRAWS, 2)
        shared = max(shared, 1 - float(weights.max()))
    assert shared > 0.01  # or the others would not count


@pytest.mark.parametrize("number", [None, DRAWS])
def test_it_goes_on_after_being_saved(tmp_path: Path, number: int | None) -> None:
    posterior, data = under_draws()
    told = steps_of(data)
    whole, first, second = (lr.OnlineFilter(posterior, num_draws=number) for _ in range(3))
    expected = [whole.update(**each) for each in told]
    fresh = first.state_dict()
    for each in told[:3]:
        first.update(**each)
    first.save(tmp_path / "stream.safetensors")
    second.load(tmp_path / "stream.safetensors")
    for each, state in zip(told[3:], expected[3:], strict=True):
        found = second.update(**each)
        assert torch.equal(found.values, state.values)
        assert torch.equal(found.covariance, state.covariance)
        assert found.log_prob == state.log_prob
    second.load_state_dict(fresh)  # back to before the first step
    assert second.update(**told[0]).log_prob == expected[0].log_prob


def test_in_single_precision_only_what_comes_out_is_rounded() -> None:
    problem = random_problem(3, [20])
    data = as_data(problem)
    model = summed(as_model(problem, data), data).float()
    again = summed(as_model(problem, data), data)
    again.load_state_dict(model.state_dict())  # the same numbers, rounded once
    online = lr.OnlineFilter(posterior_of(model, data.to(dtype=torch.float32)))
    exact = lr.OnlineFilter(posterior_of(again, data.to(dtype=torch.float32).to(dtype=torch.float64)))
    for told in steps_of(data.to(dtype=torch.float32)):
        found, expected = online.update(**told), exact.update(**told)
        assert found.states.dtype == torch.float32
        assert found.log_prob == pytest.approx(expected.log_prob, abs=1e-5)
