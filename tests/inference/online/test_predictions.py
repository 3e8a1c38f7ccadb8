"""What is expected of a step before it is seen: against the Kalman filter, against draws, and uniform where right."""

from __future__ import annotations

import dataclasses

import numpy as np
import pyro.distributions as dist
import pytest
import torch
from scipy import stats

import latentrnn as lr
from latentrnn.inference.online.prediction import Prediction
from tests import oracles
from tests.inference.online.streamed import STREAMED, setting, steps_of
from tests.linear_gaussian import as_data, as_model, random_problem
from tests.models.test_latents_linear_gaussian import posterior_of, summed
from tests.registry import shake

CODES = ("categorical, missing", "categorical history")


@pytest.mark.parametrize("number", [None, 3])
def test_they_are_those_of_the_kalman_filter(number: int | None) -> None:
    """Exactly: the density, transform, quantiles and variance of every channel."""
    problem = random_problem(3, [15], inputs=1, hide=0.2)
    data = as_data(problem)
    model = summed(as_model(problem, data), data)
    online = lr.OnlineFilter(posterior_of(model, data), num_draws=number)
    r = problem.recordings[0]
    exact = oracles.kalman_filter(problem.model, r.y, r.u, r.missing)
    for t, told in enumerate(steps_of(data)):
        found = online.update(**told)
        mean = problem.model.C @ exact.predicted_means[t] + problem.model.d
        variance = np.diag(problem.model.C @ exact.predicted_covs[t] @ problem.model.C.T + problem.model.R)
        normal = stats.norm(mean, np.sqrt(variance))
        expected = np.where(r.missing[t], np.nan, r.y[t])
        np.testing.assert_allclose(found.log_density("y"), normal.logpdf(expected), rtol=0, atol=1e-9)
        np.testing.assert_allclose(found.pit("y"), normal.cdf(expected), rtol=0, atol=1e-9)
        np.testing.assert_allclose(found.variance("y"), variance, rtol=0, atol=1e-9)
        for k, p in enumerate((0.01, 0.5, 0.9)):
            quantiles = found.quantiles("y", [0.01, 0.5, 0.9])
            np.testing.assert_allclose(quantiles[k], normal.ppf(p), rtol=0, atol=1e-6)


def test_particles_come_near_the_kalman_filter() -> None:
    problem = random_problem(4, [10], hide=0.1)
    data = as_data(problem)
    model = as_model(problem, data)
    guide = lr.Guide(model, encoder=lr.RNNEncoder(3, direction="causal", mask_input=True)).double()
    online = lr.OnlineFilter(lr.Posterior(model, guide, data), num_particles=4000)
    exact = lr.OnlineFilter(posterior_of(summed(model, data), data))
    for told in steps_of(data):
        found, expected = online.update(**told), exact.update(**told)
        torch.testing.assert_close(found.pit("y"), expected.pit("y"), rtol=0, atol=0.06, equal_nan=True)
        scale = expected.variance("y").sqrt()
        off = (found.quantiles("y") - expected.quantiles("y")) / scale
        assert float(off.abs().max()) < 0.2


@pytest.mark.parametrize("observation", STREAMED)
def test_every_head_has_them(observation: str) -> None:
    """Closed forms against draws of the same mixture, and quantiles against the distribution function."""
    model, guide, data = setting(observation, "innovations with initial")
    online = lr.OnlineFilter(lr.Posterior(model, guide, data), num_particles=40)
    for told in steps_of(data)[:4]:
        found = online.update(**told)
        for name in found.predicted:
            prediction = found.predictions[name]
            pit, seen = found.pit(name), prediction.mask[0]
            assert pit.shape == seen.shape
            assert torch.equal(pit.isnan(), ~seen)
            assert bool(((pit >= 0) & (pit <= 1))[seen].all())
            assert torch.equal(found.pit(name).nan_to_num(), pit.nan_to_num())  # asked again, the same
            density = found.log_density(name)
            assert density.shape == seen.shape or (prediction.marginals is None and density.shape == (1,))
            low, high = found.quantiles(name, [0.1, 0.9])
            assert bool((low <= high).all())
            drawn, weights = prediction._drawn()
            weights = weights.unsqueeze(-1)
            # of 2000 draws or more with 40 particles; six standard errors of a share
            room = 6 * 0.5 / len(drawn) ** 0.5
            for value, p in ((low, 0.1), (high, 0.9)):
                assert bool(((weights * (drawn <= value)).sum(0)[0] >= p - room).all())
                assert bool(((weights * (drawn < value)).sum(0)[0] <= p + room).all())
            if observation in CODES:
                with pytest.raises(ValueError, match="codes of classes"):
                    found.variance(name)
            else:
                variance, share = found.variance(name), (weights * drawn).sum(0)[0]
                assert bool((variance > 0).all())
                error = (weights * (drawn[:, 0] - share).unsqueeze(1).square()).sum(0)[0]
                assert bool(((variance / error).log().abs() < 0.7).all() | (observation == "student t, missing"))
            if prediction.marginals is None:
                continue
            by_draws = dataclasses.replace(prediction, marginals=None, whole=prediction.marginals)
            torch.testing.assert_close(by_draws.pit()[0], pit, rtol=0, atol=room, equal_nan=True)


@pytest.mark.parametrize("family", ["poisson", "negative binomial", "bernoulli", "zero-inflated", "gaussian"])
def test_transforms_are_uniform_and_independent_where_the_model_is_right(family: str) -> None:
    """At a failure budget of 1e-6 each; under a model that is wrong they are not."""
    heads = {
        "poisson": lr.Poisson(),
        "negative binomial": lr.NegativeBinomial(fixed={"dispersion": 1.0}),
        "bernoulli": lr.Bernoulli(),
        "zero-inflated": lr.ZeroInflatedPoisson(),
        "gaussian": lr.Gaussian(),
    }
    shape = lr.SequenceData.from_arrays({"y": np.ones((60, 40, 1))}, dtype=torch.float64)
    model = lr.LatentRNN(shape.spec, transition=lr.GRU(3), latent=lr.Deterministic(), observations={"y": heads[family]})
    model = model.double()
    shake(model, 1.0)
    data = model.prior_predictive(shape, num_samples=1, seed=1)
    drawn = lr.SequenceData.from_arrays({"y": data["y"][0]}, dtype=torch.float64)

    def transforms(model: lr.LatentRNN) -> np.ndarray:
        online = lr.OnlineFilter(lr.Posterior(model, lr.Guide(model), drawn), streams=len(drawn))
        return torch.stack([state.pit("y") for state in online.follow(drawn)]).numpy()

    found = transforms(model)
    assert stats.kstest(found.ravel(), "uniform").pvalue > 1e-6
    assert abs(stats.spearmanr(found[1:].ravel(), found[:-1].ravel()).statistic) < 5 / found[1:].size ** 0.5
    with torch.no_grad():
        model.observations["y"].readout.baseline += 1.0
    assert stats.kstest(transforms(model).ravel(), "uniform").pvalue < 1e-6


def test_the_guide_alone_says_that_it_has_no_densities() -> None:
    model, guide, data = setting("poisson", "innovations")
    online = lr.OnlineFilter(lr.Posterior(model, guide, data), num_particles=None, proposal="guide")
    found = online.update(**steps_of(data)[0])
    for ask in (found.pit, found.log_density, found.quantiles, found.variance):
        with pytest.raises(ValueError, match="the guide alone has no densities"):
            ask("y")
    with_particles = lr.OnlineFilter(lr.Posterior(model, guide, data), num_particles=5).update(**steps_of(data)[0])
    with pytest.raises(ValueError, match="head 'z' has no frame at this step; expected one of"):
        with_particles.pit("z")
    with pytest.raises(ValueError, match="probabilities"):
        with_particles.quantiles("y", 1.5)


def test_what_was_expected_stays_when_the_stream_goes_on() -> None:
    """The buffers are written over at every step; a state that is kept must not change."""
    for observation in ("multinomial totals", "poisson gain", "binomial totals, missing", "several"):
        model, guide, data = setting(observation, "innovations")
        online = lr.OnlineFilter(lr.Posterior(model, guide, data), num_particles=20)
        told = steps_of(data)
        kept = online.update(**told[0])
        name = next(iter(kept.predicted))
        before = kept.log_density(name), kept.pit(name), kept.quantiles(name)
        for step in told[1:]:
            online.update(**step)
        after = kept.log_density(name), kept.pit(name), kept.quantiles(name)
        for one, other in zip(before, after, strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=0, equal_nan=True)


def test_a_mixture_of_two_draws_by_hand() -> None:
    """Two Normals with known weights: density, transform, quantiles and variance of their mixture."""
    head = lr.Gaussian()
    loc = torch.tensor([0.0, 3.0]).double().reshape(2, 1, 1, 1, 1)
    weights = torch.tensor([0.25, 0.75]).double().log().reshape(2, 1, 1)
    observed = torch.tensor([[1.0]]).double()
    mixture = Prediction(
        "y", head, dist.Normal(loc, 1.0), None, weights, observed, torch.ones(1, 1, dtype=torch.bool), (0, 0, 0)
    )
    parts = stats.norm([0.0, 3.0], 1.0)
    share = np.array([0.25, 0.75])
    assert float(mixture.pit()) == pytest.approx(float(share @ parts.cdf(1.0)))
    assert float(mixture.log_density()) == pytest.approx(float(np.log(share @ parts.pdf(1.0))))
    assert float(mixture.variance()) == pytest.approx(1 + 0.25 * 0.75 * 9)
    for p in (0.05, 0.5, 0.95):
        assert float(share @ parts.cdf(float(mixture.quantiles(p)))) == pytest.approx(p, abs=1e-9)
