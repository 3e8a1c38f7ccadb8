"""Fits that were never run, for saving and loading, and how two of them are compared."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pyro.distributions as dist
import torch
from torch import Tensor

import latentrnn as lr

HISTORY = {"step": [1, 2], "elbo": [-math.inf, -0.1], "validation_elbo": [math.nan, -0.3]}


def make_data(channels: int = 2) -> lr.SequenceData:
    rng = np.random.default_rng(0)
    return lr.SequenceData.from_arrays(
        {"spikes": rng.poisson(1.0, (3, 5, channels))},
        {"stimulus": rng.normal(size=(3, 5, 1))},
        dt=0.01,
        standardise=["stimulus"],
    )


def make_result(hidden: int = 4, **parts: Any) -> lr.FitResult:
    """A result that was never fitted: its weights are random, its history is made up."""
    data = make_data()
    priors = {"beta": dist.Normal(0.0, 1.0)}
    gain = lr.StimulusGain("stimulus", priors=priors)
    arguments = {"transition": lr.GRU(hidden), "latent": lr.Innovations(2)} | parts
    model = lr.LatentRNN(data.spec, observations={"spikes": lr.Poisson(gain=gain)}, **arguments)
    guide = lr.Guide(model, encoder=lr.RNNEncoder(3))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_()
    return lr.FitResult(
        model=model,
        guide=guide,
        history=HISTORY,
        stop_reason="max_steps: try more steps",
        best_step=2,
        seed=7,
        used=frozenset(data.keys),
        settings={"learning_rate": 1e-3, "clip": None},
        events=["step 2: interrupted"],
    )


def states(result: lr.FitResult) -> dict[str, Tensor]:
    return {
        f"{part}.{name}": tensor
        for part in ("model", "guide")
        for name, tensor in getattr(result, part).state_dict().items()
    }


def assert_same(found: lr.FitResult, expected: lr.FitResult) -> None:
    assert found.model.config() == expected.model.config()
    assert found.guide.config() == expected.guide.config()
    assert found.spec == expected.spec
    assert states(found).keys() == states(expected).keys()
    for name, tensor in states(expected).items():
        assert states(found)[name].dtype == tensor.dtype, name
        assert torch.equal(states(found)[name], tensor), name
    for field in ("stop_reason", "best_step", "seed", "used", "settings", "events"):
        assert getattr(found, field) == getattr(expected, field), field
    np.testing.assert_equal(dict(found.history), dict(expected.history))  # NaN equals NaN here
