"""How many sequences a step takes where nothing is said: by what is drawn, how many there are, and what is learned."""

from __future__ import annotations

import numpy as np
import pyro.distributions as dist
import pytest

import latentrnn as lr
from latentrnn.inference.fitting.fit import suited_batch_size


def counts(sequences: int) -> lr.SequenceData:
    return lr.SequenceData.from_arrays({"y": np.random.default_rng(0).poisson(1.0, (sequences, 3, 1)).astype(float)})


def model(data: lr.SequenceData, kind: str) -> lr.LatentRNN:
    priors = {"initial_state": dist.Normal(0.0, 1.0)} if kind == "prior" else None
    latent: lr.Latent = lr.Innovations(1) if kind == "drawn" else lr.Deterministic(priors=priors)
    if kind == "numbers":
        return lr.LatentRNN(
            data.spec, transition=lr.Linear(2), latent=lr.MarkovNormal(), observations={"y": lr.Poisson()}
        )
    head = lr.Poisson(feedback=lr.History(1, 1))
    return lr.LatentRNN(data.spec, transition=lr.GRU(2), latent=latent, observations={"y": head})


@pytest.mark.parametrize(
    ("kind", "steps", "sizes"),
    [
        ("drawn", None, {1: 16, 60: 16, 100: 25, 300: 64}),  # latents
        ("prior", None, {60: 16, 300: 64}),  # a parameter
        ("known", None, {1: 16, 60: 16, 194: 16, 600: 37, 2000: 64}),  # nothing: batches alone bring noise
        ("known", 50, {60: 16, 100: 25, 300: 64}),  # as many steps are as many passes as before
        ("numbers", None, {60: 64}),  # nothing is learned by heart
    ],
)
def test_a_batch_is_a_part_of_few_sequences_by_what_is_drawn(kind: str, steps: int | None, sizes: dict) -> None:
    data = counts(2000)
    assert {size: suited_batch_size(model(data, kind), data[:size], steps) for size in sizes} == sizes


@pytest.mark.parametrize("vectorised", [False, True])
def test_a_fit_and_an_ensemble_take_it(vectorised: bool) -> None:
    data = counts(272)
    pair = model(data, "known"), lr.Guide(model(data, "known"))
    settings = {"stopping": lr.EarlyStopping(max_steps=2), "reporting": lr.Reporting(progress=False)}
    found = lr.fit_ensemble(*pair, data, seeds=[0, 1], vectorised=vectorised, **settings)
    assert [member.settings["batch_size"] for member in found.members] == [17, 17]
    given = lr.fit_ensemble(*pair, data, seeds=[0], vectorised=vectorised, batch_size=7, **settings)
    assert given.members[0].settings["batch_size"] == 7
