"""Axes of exported parameters: as their components declare them, with names of channels and of covariates' features."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyro.distributions as dist
import pytest
import torch
import xarray as xr

import latentrnn as lr

CHANNELS, FEATURES = ["left", "right"], ["loudness", "pitch"]


def sounds() -> lr.SequenceData:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(6, 2)), columns=FEATURES)
    arrays = {"y": rng.normal(size=(2, 6, 2)), "z": rng.integers(0, 3, (2, 6, 1)).astype(float)}
    return lr.SequenceData.from_arrays(arrays, {"sound": [frame, frame]}, channel_names={"y": CHANNELS})


def exported(**parts: Any) -> xr.Dataset:
    """The posterior of a model with these parts under an untrained guide."""
    data = sounds()
    described: dict[str, Any] = {"transition": lr.GRU(2), "latent": lr.Deterministic(), "inputs": ["sound"]}
    model = lr.LatentRNN(data.spec, **described | {"observations": {"y": lr.Gaussian()}} | parts)
    guide = lr.Guide(model, encoder=lr.RNNEncoder(3))
    posterior = lr.Posterior(model, guide, data, device="cpu")
    tree = posterior.to_arviz(num_samples=3, num_particles=1, container="datatree", latents=False)
    drawn = model.prior_predictive(data, 3, device="cpu").to_arviz(container="datatree")
    found: xr.Dataset = tree["posterior"].to_dataset()
    prior = drawn["prior"].to_dataset()
    for name, values in found.data_vars.items():  # what is drawn from the prior is laid out alike
        xr.testing.assert_equal(xr.zeros_like(values, float), xr.zeros_like(prior[name], float))
    return found


NORMAL, POSITIVE = dist.Normal(0.0, 0.5), dist.LogNormal(0.0, 0.5)
FACTOR = dist.LKJCholesky(2, 2.0)
CASES: dict[str, tuple[dict[str, Any], dict[str, dict[str, list[Any]]]]] = {
    "a head's family, readout and covariates": (
        {
            "observations": {
                "y": lr.Gaussian(
                    covariates=["sound"],
                    priors={"scale": POSITIVE, "weight": NORMAL, "baseline": NORMAL, "covariate_weight": NORMAL},
                )
            }
        },
        {
            "y.scale": {"y_channel": CHANNELS},
            "y.readout.weight": {"y_channel": CHANNELS, "y.readout.weight_unit": [0, 1]},
            "y.readout.baseline": {"y_channel": CHANNELS},
            "y.covariate_weight": {"y_channel": CHANNELS, "y.covariate_weight_feature": FEATURES},
        },
    ),
    "correlations": (
        {"observations": {"y": lr.Gaussian("full", priors={"correlation_factor": FACTOR})}},
        {"y.correlation_factor": {"y_channel": CHANNELS, "y.correlation_factor_channel_before": CHANNELS}},
    ),
    "factors": (
        {"observations": {"y": lr.Gaussian(readout=lr.FactorReadout(1, priors={"loading": NORMAL}))}},
        {"y.readout.loading": {"y_channel": CHANNELS, "y.readout.loading_factor": [0]}},
    ),
    "several outputs a channel": (
        {"observations": {"z": lr.Categorical(3, priors={"baseline": NORMAL})}},
        {"z.readout.baseline": {"z.readout.baseline_output": [0, 1, 2]}},
    ),
    "memories that read covariates alone": (
        {"transition": lr.LeakyIntegrator(3, priors={"time_constant": POSITIVE, "input_weight": NORMAL})},
        {
            "transition.time_constant": {"transition.time_constant_unit": [0, 1, 2]},
            "transition.input_weight": {
                "transition.input_weight_unit": [0, 1, 2],
                "transition.input_weight_input": FEATURES,
            },
        },
    ),
    "memories that read what has no name, too": (
        {
            "transition": lr.LeakyIntegrator(1, priors={"input_weight": NORMAL}),
            "latent": lr.Innovations(1, prior="ar1", priors={"persistence": dist.Beta(2.0, 2.0)}),
        },
        {
            "transition.input_weight": {
                "transition.input_weight_unit": [0],
                "transition.input_weight_input": [0, 1, 2],
            },
            "latent.persistence": {"latent.persistence_innovation": [0]},
        },
    ),
    "features that are made of covariates": (
        {
            "transition": lr.Linear(2, priors={"input_weight": NORMAL, "weight": NORMAL}),
            "inputs": [lr.Lags("sound", 2)],
        },
        {
            "transition.input_weight": {
                "transition.input_weight_state": [0, 1],
                "transition.input_weight_input": [f"{lr.Lags('sound', 2)!r}[{place}]" for place in range(4)],
            },
            "transition.weight": {"transition.weight_state": [0, 1], "transition.weight_state_before": [0, 1]},
        },
    ),
    "what is not declared": (
        {"transition": lr.GRU(2, priors={"kernel.bias_hh_l0": NORMAL})},
        {"transition.kernel.bias_hh_l0": {"transition.kernel.bias_hh_l0_dim_0": list(range(6))}},
    ),
    "a population of scalars": (
        {"observations": {"y": lr.Gaussian(priors={"baseline": lr.Population("level")})}},
        {"y.readout.baseline": {"y_channel": CHANNELS}, "level.location": {}, "level.scale": {}},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_axes_are_those_that_are_declared(case: str) -> None:
    torch.manual_seed(0)
    parts, expected = CASES[case]
    found = exported(**parts)
    assert {
        name: {dim: values[dim].values.tolist() for dim in values.dims[2:]} for name, values in found.data_vars.items()
    } == expected
    assert all(values.dims[:2] == ("chain", "draw") for values in found.data_vars.values())


def test_a_switch_has_where_it_comes_from_and_goes_to() -> None:
    rows = dist.Dirichlet(torch.ones(2))
    found = exported(transition=lr.SwitchingLinear(2, 2), latent=lr.Discrete(2, priors={"transition": rows}))
    values = found["latent.transition"]
    assert values.dims == ("chain", "draw", "latent.transition_from", "latent.transition_to")
    np.testing.assert_allclose(values.sum("latent.transition_to"), 1, rtol=1e-5)


def test_a_summary_and_a_file_have_them(tmp_path: Path) -> None:
    data = sounds()
    heads = {"y": lr.Gaussian(priors={"scale": POSITIVE})}
    model = lr.LatentRNN(data.spec, transition=lr.GRU(2), latent=lr.Deterministic(), observations=heads)
    posterior = lr.Posterior(model, lr.Guide(model), data, device="cpu")
    assert posterior.summary(num_samples=10).index.tolist() == ["y.scale[left]", "y.scale[right]"]
    posterior.to_netcdf(tmp_path / "fit.nc", num_samples=2, num_particles=1)
    with xr.open_datatree(tmp_path / "fit.nc") as stored:
        assert stored["posterior"]["y.scale"].dims == ("chain", "draw", "y_channel")
        assert stored["posterior"]["y_channel"].values.tolist() == CHANNELS
