"""The script that compares priors over networks, on tiny simulated data in the place of the recordings."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

import latentrnn as lr
from benchmarks import network_priors


def tiny(seed: int) -> network_priors.Parts:
    """Counts of three units in 24 short trials of two kinds."""
    rng = np.random.default_rng(0)
    kind = np.arange(24) % 2
    drive = rng.normal(size=(24, 6, 2)) + kind[:, None, None]
    counts = rng.poisson(np.exp(0.3 * drive @ np.ones((2, 3))))
    data = lr.SequenceData.from_arrays({"counts": counts.astype(float)}, {"drive": drive}, dt=0.02)
    return network_priors.by_kind(data, kind, (4, 2, 6), seed)


@pytest.fixture
def recordings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both recordings, replaced, with few steps for each fit and few draws."""
    found = {
        name: dataclasses.replace(each, load=tiny, hidden_size=2) for name, each in network_priors.RECORDINGS.items()
    }
    monkeypatch.setattr(network_priors, "RECORDINGS", found)
    for name, number in (("DRAWS", 4), ("REPLICATES", 20), ("MEMBERS", 2)):
        monkeypatch.setattr(network_priors, name, number)


@pytest.mark.usefixtures("recordings")
def test_every_arm_fills_its_row() -> None:
    few = network_priors.Settings(steps=3)
    found = {
        name: {arm: [network_priors.run(name, arm, 0, few)] for arm in network_priors.ARMS}
        for name in network_priors.RECORDINGS
    }
    table = network_priors.report(found, [], 1.0)
    for name, recording in network_priors.RECORDINGS.items():
        assert f"## {recording.title}" in table
        assert set(network_priors.CHOSEN[name]) == set(network_priors.ARMS)
    for arm in network_priors.ARMS:
        assert table.count(f"| {arm} |") == 2
    assert "nan" not in table


def test_the_test_part_is_the_same_for_all_seeds_and_nothing_is_in_two_parts() -> None:
    first, second = tiny(0), tiny(1)
    assert first[2].keys == second[2].keys
    assert first[0].keys != second[0].keys
    for parts in (first, second):
        keys = [key for part in parts for key in part.keys]
        assert len(set(keys)) == len(keys) == 24


def test_intervals_of_counts_hold_what_they_say() -> None:
    """Low counts of the very distribution of the replicates: ties are broken, so that the share is the level."""
    torch.manual_seed(0)
    rate = torch.tensor(0.7)
    drawn, seen = torch.poisson(rate.expand(400, 20000)), torch.poisson(rate.expand(20000))
    inside = float(network_priors.within(drawn, seen).mean())
    assert inside == pytest.approx(0.9, abs=6 * (0.09 / 20000) ** 0.5)
    narrow = torch.full_like(drawn, 1.0)
    assert float(network_priors.within(narrow, seen).mean()) < 0.6
