"""Regressions find what is linear, trials are those of the benchmark, and recordings are read as they are."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import latentrnn as lr
from benchmarks import quality_time
from examples.gallery import RECORDINGS, SHARED
from examples.monkey_reach.baselines import by_regression, by_ridge, smoothed
from examples.monkey_reach.data import as_sequences, recorded
from examples.simulate import Reaches, reaches


def test_smoothing_keeps_what_is_constant_and_stays_within_a_trial() -> None:
    counts = np.zeros((2, 19, 3))
    counts[1] = 4.0
    np.testing.assert_allclose(smoothed(counts, 2.5), counts, atol=1e-12)


def test_a_hidden_unit_that_follows_the_shown_ones_is_predicted() -> None:
    rng = np.random.default_rng(0)
    counts = rng.poisson(1.0, (300, 19, 16)).astype(float)
    hidden = np.arange(16) % 4 == 0
    known = smoothed(counts[..., ~hidden], 2.5)
    drive = 0.7 * (known - known.mean()) @ rng.normal(size=(12, 4)) / known.std() / np.sqrt(12)
    counts[..., hidden] = rng.poisson(np.exp(drive))
    parts = as_sequences(reaches(0, 300, units=16)._replace(counts=counts))
    rates, chosen = by_regression(*parts)
    assert chosen.startswith("50 ms")
    planted = np.exp(drive)[np.arange(300) % 10 == 9]
    assert np.corrcoef(np.log(rates).ravel(), np.log(planted).ravel())[0, 1] > 0.97
    idle = parts[0].observations["hidden"].new_ones(rates.shape)
    ours, none = (lr.bits_per_spike(each, parts[2].observations["hidden"]) for each in (torch.as_tensor(rates), idle))
    assert ours > none + 0.1


def test_velocity_that_is_linear_in_what_is_known_is_read_off() -> None:
    rng = np.random.default_rng(0)
    known = [rng.normal(size=(number, 19, 5)) for number in (40, 10, 10)]
    weights = rng.normal(size=(5, 2))
    parts = [(each, each @ weights + 3.0) for each in known]
    predicted, found = by_ridge(*parts)
    np.testing.assert_allclose(predicted, parts[2][1], atol=1e-3)
    assert float(found) > 0.999
    _, nothing = by_ridge(*((each, rng.normal(size=(len(each), 19, 2))) for each in known))
    assert float(nothing) < 0.05


def test_trials_and_units_are_those_of_the_benchmark() -> None:
    folder = SHARED / RECORDINGS["monkey_reach"]
    if not folder.is_dir():
        pytest.skip(f"no recordings in {folder}")
    found = recorded(folder)
    assert isinstance(found, Reaches)
    assert found.counts.shape == (800, 19, 98)
    assert np.bincount(found.direction).tolist() == [100] * 8
    for ours, theirs in zip(as_sequences(found), quality_time.load(), strict=True):
        for head in ("shown", "hidden"):
            assert torch.equal(ours.observations[head], theirs.observations[head])
    assert np.abs(found.velocity).max() < 2000  # mm/s
