"""Displays and files say what intervals leave out: everything that was learned as a point estimate."""

from __future__ import annotations

import copy
import pickle
import warnings
from typing import Any

import numpy as np
import pyro.distributions as dist
import pytest
import torch

import latentrnn as lr
from latentrnn.export.groups import posterior_groups, small_groups

RNG = np.random.default_rng(0)
DATA = lr.SequenceData.from_arrays({"y": RNG.normal(size=(4, 6, 2))}, covariates={"x": RNG.normal(size=(4, 6, 1))})
GIVEN = "point estimates of transition, latent, observations['y'] noise scale, observations['y'] readout weight"
NORMAL = dist.Normal(0.0, 1.0)


def model_with(priors: dict[str, Any] | None, gain: bool = True) -> lr.LatentRNN:
    listens = lr.StimulusGain("x", gated=False, priors={"beta": NORMAL} if priors else None) if gain else None
    heads = {"y": lr.Gaussian(priors=priors, gain=listens)}
    return lr.LatentRNN(DATA.spec, transition=lr.GRU(2), latent=lr.Deterministic(), observations=heads)


def posterior_with(priors: dict[str, Any] | None, family: str = "normal") -> lr.Posterior:
    model = model_with(priors)
    return lr.Posterior(model, lr.Guide(model, global_family=family), DATA, device="cpu")


@pytest.mark.parametrize(
    ("priors", "family", "expected"),
    [
        ({"baseline": NORMAL}, "normal", GIVEN),
        ({"baseline": NORMAL, "weight": NORMAL}, "flow", GIVEN.removesuffix(", observations['y'] readout weight")),
        ({"baseline": NORMAL}, "point", "point estimates of transition, latent, observations['y']"),
        ({"baseline": lr.Population("all")}, "point",
         "point estimates of transition, latent, observations['y'], Population 'all'"),
        (None, "normal", "point estimates of transition, latent, observations['y']"),
    ],
)  # fmt: skip
def test_what_has_no_posterior_is_listed(priors: Any, family: str, expected: str) -> None:
    posterior = posterior_with(priors, family)
    assert posterior.conditional_on == expected
    partly = priors is not None and family != "point"
    assert (f"intervals conditional on {expected}" in repr(posterior)) == partly


def test_draws_of_a_gain_say_so_wherever_they_go() -> None:
    posterior = posterior_with({"baseline": NORMAL})
    found = posterior.gain("y", 3)
    beta, gate = found
    assert torch.equal(beta, found.beta)
    assert gate.shape == (3, 4, 6, 1)
    for same in (found, pickle.loads(pickle.dumps(found)), copy.deepcopy(found)):
        assert same.conditional_on == GIVEN
        assert repr(same) == (
            f"GainSamples(beta of shape (3, 2, 1), gate of shape (3, 4, 6, 1), conditional on {GIVEN})"
        )
    mixture = lr.EnsemblePosterior([posterior, posterior.reseeded(1)], torch.ones(2, dtype=torch.float64) / 2)
    assert mixture.gain("y", 4).conditional_on == f"each member's {GIVEN}"


def test_results_of_laplace_and_sample_say_so() -> None:
    model = model_with({"baseline": NORMAL}, gain=False)
    assert f"intervals conditional on {GIVEN}" in repr(lr.laplace(model, DATA, device="cpu"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # too few draws to mix
        drawn = lr.sample(model, DATA, num_samples=2, warmup=1, chains=1, max_tree_depth=1, progress=False)
    assert f"intervals conditional on {GIVEN}" in repr(drawn)
    assert f"intervals conditional on {GIVEN}" in repr(drawn.result)


def test_files_carry_it() -> None:
    posterior = posterior_with({"baseline": NORMAL})
    settings: dict[str, Any] = {"num_samples": 3, "num_particles": 2, "latents": True}
    whole = posterior_groups(posterior, prior_predictive=False, seed=None, **settings)
    streamed = small_groups(posterior, drawn=[], **settings).groups
    for groups in (whole, streamed):
        assert groups["posterior"].attrs["conditional_on"] == GIVEN
        assert "conditional_on" not in groups["observed_data"].attrs
