"""A forecast from where the filter is: the Kalman filter's moments, and what `Posterior.forecast` says."""

from __future__ import annotations

import pickle

import numpy as np
import pyro.distributions as dist
import pytest
import torch
from scipy import stats

import latentrnn as lr
from tests import oracles
from tests.inference.online.streamed import STREAMED, setting, steps_of
from tests.linear_gaussian import as_data, as_model, random_problem
from tests.models.test_latents_linear_gaussian import posterior_of, summed
from tests.registry import shake

SAMPLES = 4000


@pytest.mark.parametrize("exact", [True, False], ids=["exact", "particles"])
def test_moments_and_densities_are_those_of_the_kalman_filter(exact: bool) -> None:
    """h steps ahead: mean and covariance by the model's own recursion, six standard errors of 4000 paths."""
    problem = random_problem(5, [12])
    data = as_data(problem)
    model = as_model(problem, data)
    if exact:
        online = lr.OnlineFilter(posterior_of(summed(model, data), data))
    else:
        guide = lr.Guide(model, encoder=lr.RNNEncoder(3, direction="causal")).double()
        online = lr.OnlineFilter(lr.Posterior(model, guide, data), num_particles=8000)
    for _ in online.follow(data):
        pass
    m, r = problem.model, problem.recordings[0]
    filtered = oracles.kalman_filter(m, r.y)
    mean, covariance = filtered.filtered_means[-1], filtered.filtered_covs[-1]
    forecast = online.forecast(4, num_samples=SAMPLES)
    assert forecast.samples["y"].shape == (SAMPLES, 1, 4, 3)
    observed = np.zeros((1, 4, 3))
    score = forecast.log_score("y", observed)
    room = 6 / SAMPLES**0.5 * (1 if exact else 2)
    for k in range(4):
        mean, covariance = m.A @ mean + m.b, m.A @ covariance @ m.A.T + m.Q
        loc, spread = m.C @ mean + m.d, m.C @ covariance @ m.C.T + m.R
        scale = np.sqrt(np.diag(spread))
        drawn = forecast.samples["y"][:, 0, k].numpy()
        assert (np.abs(drawn.mean(0) - loc) < room * scale).all()
        assert (np.abs(np.cov(drawn.T) - spread) < 2 * room * np.outer(scale, scale)).all()
        assert float(score[0, k, 0]) == pytest.approx(
            stats.multivariate_normal.logpdf(observed[0, k], loc, spread), abs=0.15 if exact else 0.3
        )
    frame = forecast.to_dataframe()
    assert frame["time"].unique().tolist() == [12.0, 13.0, 14.0, 15.0]
    assert pickle.loads(pickle.dumps(forecast)).samples["y"].shape == (SAMPLES, 1, 4, 3)


def test_it_is_the_forecast_of_the_posterior() -> None:
    """The same object with the same distribution: an exact state, a slow head, covariates, several streams."""
    rng = np.random.default_rng(0)
    data = lr.SequenceData.from_arrays(
        {"y": rng.normal(size=(2, 9, 2)), "slow": rng.normal(size=(2, 4, 1))},
        {"x": rng.normal(size=(2, 9, 1))},
        clocks={"slow": 2},
        dt=0.5,
        dtype=torch.float64,
    )
    parts = {"y": lr.Gaussian("full"), "slow": lr.Gaussian(covariates=["x"])}
    model = lr.LatentRNN(data.spec, transition=lr.Linear(2), latent=lr.LinearGaussian(), observations=parts).double()
    shake(model, 0.4)
    posterior = posterior_of(model, data)
    online = lr.OnlineFilter(posterior, streams=list(data.names))
    for _ in online.follow(data):
        pass
    future = rng.normal(size=(2, 5, 1))
    expected = posterior.forecast(5, covariates={"x": future}, num_samples=SAMPLES)
    found = online.forecast(5, covariates={"x": future}, num_samples=SAMPLES)
    assert found.names == expected.names
    assert found.dt == expected.dt
    for name in parts:
        assert found.samples[name].shape == expected.samples[name].shape
        torch.testing.assert_close(found.axes[name].times, expected.axes[name].times)
        one, other = (each.samples[name].flatten(1) for each in (found, expected))
        error = (one.var(0) + other.var(0)).sqrt() / SAMPLES**0.5
        assert bool(((one.mean(0) - other.mean(0)).abs() < 6 * error).all())
        assert bool(((one.var(0) / other.var(0)).log().abs() < 6 * 2 / SAMPLES**0.5).all())
        assert bool(((one.mean(0) - other.mean(0).flip(0)).abs() > 6 * error).any())  # a negative control


@pytest.mark.parametrize("observation", STREAMED)
def test_every_head_goes_on(observation: str) -> None:
    model, guide, data = setting(observation, "innovations with initial")
    online = lr.OnlineFilter(lr.Posterior(model, guide, data), num_particles=30)
    told = steps_of(data)
    for step in told[:5]:
        found = online.update(**step)
    before = online.state_dict()
    options: dict = {
        "covariates": {name: torch.stack([values[0, 5], values[0, 6]]) for name, values in data.covariates.items()}
    }
    if data.times is not None:
        options["times"] = data.times[0, 5:7]
    if online.stream.counted:
        options["totals"] = {name: np.array([6.0, 9.0]) for name in online.stream.counted}
    if "several" in observation or "clocked" in observation:
        options["covariates"] = {name: torch.cat([value, value]) for name, value in options["covariates"].items()}
    horizon = len(next(iter(options["covariates"].values())))
    forecast = online.forecast(horizon, num_samples=50, **options)
    for name, samples in forecast.samples.items():
        assert samples.isfinite().all()
        head = model.observations[name]
        head.check(name, samples.flatten(0, 1), torch.ones(samples.flatten(0, 1).shape, dtype=torch.bool))
        score = forecast.log_score(name, samples[0])
        assert score.isfinite().all()
    after = online.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert torch.equal(online.forecast(horizon, num_samples=50, **options).samples[name], samples)
    assert found.step == 4


def test_under_draws_of_parameters_paths_come_from_those_that_count() -> None:
    """A level that is unknown: forecasts spread as the posterior of the level does, not as its prior."""
    rng = np.random.default_rng(0)
    data = lr.SequenceData.from_arrays({"y": 3.0 + 0.1 * rng.normal(size=(1, 30, 1))}, dtype=torch.float64)
    head = lr.Gaussian(priors={"baseline": dist.Normal(0.0, 5.0)}, fixed={"weight": 0.0, "scale": 0.1})
    model = lr.LatentRNN(data.spec, transition=lr.GRU(1), latent=lr.Deterministic(), observations={"y": head}).double()
    posterior = lr.Posterior(model, lr.Guide(model).double(), data, device="cpu")
    with torch.no_grad():  # a guide that knows nothing yet: the filter's draws are as wide as the prior
        for parameter in posterior.guide.parameters():
            parameter.zero_()
    online = lr.OnlineFilter(posterior, num_draws=400, seed=1)
    state = list(online.follow(data))[-1]
    level = online.forecast(3, num_samples=2000).samples["y"]
    draws = (
        online.draws["y.baseline"].flatten()
        if "y.baseline" in online.draws
        else next(iter(online.draws.values())).flatten()
    )
    expected = float(state.draw_weights @ draws)
    assert float(level.mean()) == pytest.approx(expected, abs=0.05)
    assert float(level.std()) < 0.5
    assert float(draws.std()) > 0.5  # a negative control


def test_what_is_missing_is_named() -> None:
    model, guide, data = setting("poisson", "innovations")
    online = lr.OnlineFilter(lr.Posterior(model, guide, data), num_particles=5)
    with pytest.raises(ValueError, match="nothing was taken in yet"):
        online.forecast(2)
    online.update(**steps_of(data)[0])
    with pytest.raises(ValueError, match="driven by"):
        online.forecast(2)
    known = {"drive": np.zeros((2, 1)), "stimulus": np.zeros((2, 2))}
    with pytest.raises(ValueError, match=r"covariates\['drive'\]: expected \(step, feature\) of shape \(3, 1\)"):
        online.forecast(3, covariates=known)
    with pytest.raises(ValueError, match="regular clock"):
        online.forecast(2, covariates=known, times=[1.0, 2.0])
    alone = lr.OnlineFilter(lr.Posterior(model, guide, data), num_particles=None, proposal="guide")
    alone.update(**steps_of(data)[0])
    with pytest.raises(ValueError, match="the guide alone has no distribution of the state"):
        alone.forecast(2, covariates=known)
    model, guide, data = setting("gaussian irregular", "innovations")
    irregular = lr.OnlineFilter(lr.Posterior(model, guide, data), num_particles=5)
    irregular.update(**steps_of(data)[0])
    known = {name: np.zeros((2, value.shape[-1])) for name, value in data.covariates.items()}
    with pytest.raises(ValueError, match="times: the steps are irregular; expected the seconds of 2 steps"):
        irregular.forecast(2, covariates=known)
    with pytest.raises(ValueError, match="seconds that grow"):
        irregular.forecast(2, covariates=known, times=[0.0, 1.0])
