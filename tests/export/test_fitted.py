"""The export of a model that was really fitted: what is saved gives the same posterior, and ArviZ can work with it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyro.distributions as dist
import pytest
import torch
import xarray as xr
from pyro import poutine

import latentrnn as lr
from latentrnn.support import arviz_generations
from tests.generations import CONTAINERS, NEEDS_ZERO

DRAWS = 12


def make_data() -> lr.SequenceData:
    rng = np.random.default_rng(0)
    lengths = [8, 8, 5, 8, 6, 8]
    return lr.SequenceData.from_arrays(
        {
            "spikes": [rng.poisson(1.0, (length, 2)).astype(float) for length in lengths],
            "choice": rng.integers(0, 2, (len(lengths), 1)),
        },
        {"stimulus": [rng.normal(size=(length, 1)) for length in lengths]},
        dt=0.01,
        per_sequence=("choice",),
    )


def fit(latent: lr.Latent, priors: dict[str, dist.Distribution] | None) -> lr.FitResult:
    data = make_data()
    model = lr.LatentRNN(
        data.spec,
        transition=lr.GRU(4),
        latent=latent,
        observations={
            "spikes": lr.Poisson(gain=lr.StimulusGain("stimulus"), feedback=lr.History(2), priors=priors),
            "choice": lr.Bernoulli(),
        },
    )
    guide = lr.Guide(model, encoder=lr.RNNEncoder(4))
    return lr.fit(
        model,
        guide,
        data[:4],
        data[4:],
        seed=0,
        steps=3,
        reporting=lr.Reporting(progress=False),
        compute=lr.Compute(device="cpu"),
    )


@pytest.fixture(scope="module")
def point() -> lr.FitResult:
    """Weights are point estimates."""
    return fit(lr.Innovations(2, initial=3), None)


@pytest.fixture(scope="module")
def bayesian() -> lr.FitResult:
    """The baseline has a posterior, and no local latent is random, so that its likelihood is exact."""
    return fit(lr.Deterministic(), {"baseline": dist.Normal(0.0, 1.0)})


@pytest.mark.parametrize("name", ["point", "bayesian"])
def test_what_is_saved_gives_the_same_posterior(name: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    result, data = request.getfixturevalue(name), make_data()
    result.save(tmp_path)
    loaded = lr.load(tmp_path, spec=data.spec)
    before, after = (fit.posterior(data, device="cpu") for fit in (result, loaded))
    np.testing.assert_array_equal(after.rates("spikes", 3), before.rates("spikes", 3))
    assert torch.equal(after.evidence("iwae", num_particles=4).values, before.evidence("iwae", num_particles=4).values)
    assert loaded.used == result.used
    assert loaded.settings == json.loads(json.dumps(result.settings)), "tuples come back as lists"
    np.testing.assert_equal(loaded.history, result.history)
    for field in ("best_step", "stop_reason", "seed", "events"):
        assert getattr(loaded, field) == getattr(result, field), field


def test_a_fit_goes_on_from_what_was_saved(point: lr.FitResult, tmp_path: Path) -> None:
    point.save(tmp_path)
    data = make_data()
    settings = {"steps": 2, "seed": 1, "reporting": lr.Reporting(progress=False), "compute": lr.Compute(device="cpu")}
    on, on_loaded = (
        lr.fit(start.model, start.guide, data, start_from=start, **settings) for start in (point, lr.load(tmp_path))
    )
    for name, tensor in on.model.state_dict().items():
        assert torch.equal(tensor, on_loaded.model.state_dict()[name]), name


@pytest.mark.parametrize("container", CONTAINERS)
def test_groups_of_point_estimates(point: lr.FitResult, container: str) -> None:
    exported = point.posterior(make_data(), device="cpu").to_arviz(
        num_samples=DRAWS, num_particles=4, container=container
    )
    assert set(exported["latents"].data_vars) == {"states", "innovations", "initial"}
    assert exported["latents"]["states"].shape == (1, DRAWS, 6, 8, 4)
    for group in ("posterior_predictive", "prior_predictive"):
        assert exported[group]["spikes"].dims == ("chain", "draw", "sequence", "time", "spikes_channel")
        assert exported[group]["choice"].dtype.kind == "i"
    assert dict(exported["log_evidence"].sizes) == {"sequence": 6}
    np.testing.assert_allclose(exported["observed_data"]["time"], np.arange(8) * 0.01)


def test_log_evidence_belongs_to_the_exported_parameters(bayesian: lr.FitResult) -> None:
    """Draw by draw: log p(y_n | theta_s) of the theta_s that stands in the posterior group."""
    posterior, data = bayesian.posterior(make_data(), device="cpu"), make_data()
    exported = posterior.to_arviz(num_samples=DRAWS, num_particles=4, container="datatree")
    baseline = exported["posterior"]["spikes.readout.baseline"]
    assert baseline.dims == ("chain", "draw", "spikes_channel")
    for draw in range(DRAWS):
        theta = {"spikes.readout.baseline": torch.as_tensor(baseline.values[0, draw])}
        with torch.no_grad():
            trace = poutine.trace(poutine.condition(bayesian.model, theta)).get_trace(data)
            trace.compute_log_prob()
        expected = sum(trace.nodes[head]["log_prob"] for head in ("spikes", "choice"))
        found = exported["log_evidence"]["log_evidence_by_draw"].values[0, draw]
        np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_seeds(point: lr.FitResult) -> None:
    posterior = point.posterior(make_data(), device="cpu")
    same, again, other = (
        posterior.to_arviz(num_samples=3, num_particles=2, container="datatree", seed=seed) for seed in (None, 0, 1)
    )
    xr.testing.assert_identical(same.isomorphic(again) and same, again)
    assert not same["latents"].equals(other["latents"])
    assert posterior.seed == 0


@NEEDS_ZERO
def test_arviz_draws_a_fit(point: lr.FitResult, bayesian: lr.FitResult, tmp_path: Path) -> None:
    exported = bayesian.posterior(make_data(), device="cpu").to_arviz(num_samples=DRAWS, container="inferencedata")
    az = arviz_generations.library()
    az.plot_ppc(exported)
    az.plot_trace(exported, var_names=["spikes.readout.baseline"])
    rows = az.summary(exported, var_names=["spikes.readout.baseline"]).index
    assert list(rows) == ["spikes.readout.baseline[0]", "spikes.readout.baseline[1]"]
    stored = az.from_netcdf(exported.to_netcdf(str(tmp_path / "fit.nc")))
    xr.testing.assert_equal(stored.posterior, exported.posterior)
    az.plot_ppc(point.posterior(make_data(), device="cpu").to_arviz(num_samples=DRAWS))


def test_gains_have_named_channels_and_stimuli() -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(6, 2)), columns=["loudness", "pitch"])
    data = lr.SequenceData.from_arrays(
        {"y": rng.poisson(1.0, (2, 6, 2))}, {"sound": [frame, frame]}, channel_names={"y": ["left", "right"]}
    )
    names = data.spec.covariates["sound"].feature_names
    gain = lr.StimulusGain("sound", lags=2, priors={"beta": dist.Normal(0.0, 1.0)})
    model = lr.LatentRNN(
        data.spec, transition=lr.GRU(2), latent=lr.Deterministic(), observations={"y": lr.Poisson(gain=gain)}
    )
    posterior = lr.Posterior(model, lr.Guide(model), data, device="cpu")
    beta = posterior.to_arviz(num_samples=3, num_particles=1, container="datatree")["posterior"]["y.gain.beta"]
    assert beta.dims == ("chain", "draw", "y_channel", "y_stimulus")
    assert beta["y_channel"].values.tolist() == ["left", "right"]
    assert beta["y_stimulus"].values.tolist() == [*names, *(f"{name}, 1 ago" for name in names)]


def test_parameters_at_a_point_are_exported() -> None:
    data = make_data()
    priors = {"baseline": dist.Normal(0.0, 1.0)}
    model = lr.LatentRNN(
        data.spec, transition=lr.GRU(2), latent=lr.Deterministic(), observations={"spikes": lr.Poisson(priors=priors)}
    )
    posterior = lr.Posterior(model, lr.Guide(model, global_family="point"), data, device="cpu")
    exported = posterior.to_arviz(num_samples=3, num_particles=1, container="datatree")
    baseline = exported["posterior"]["spikes.readout.baseline"].values[0]
    assert np.ptp(baseline, axis=0).max() == 0
    assert not posterior.parameters(1)["spikes.readout.baseline"].requires_grad
