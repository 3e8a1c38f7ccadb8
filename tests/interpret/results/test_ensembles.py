"""Members of an ensemble that differ in size, in how many points they have, and in what they have at all."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import latentrnn as lr
from latentrnn.interpret import contrast, do, summarise
from tests.interpret.planted_dynamics import flip_flop, hold_bits, posterior_at
from tests.interpret.small import posterior_of

STARTS = np.random.default_rng(0).normal(size=(20, 2))


def mixture(*members: lr.Posterior) -> lr.EnsemblePosterior:
    return lr.EnsemblePosterior(members, torch.full((len(members),), 1 / len(members), dtype=torch.float64))


def test_smaller_members_have_nan_in_the_units_that_they_lack() -> None:
    small, large = posterior_of(lr.GRU(2), lr.Innovations(1)), posterior_of(lr.GRU(5), lr.Innovations(1))
    found = lr.interpret.trace(mixture(small, large), 4)
    assert found.sizes["unit"] == 5
    assert found.member.values.tolist() == [0, 0, 1, 1]
    np.testing.assert_array_equal(found["update"][:2, ..., :2], lr.interpret.trace(small, 2)["update"])
    np.testing.assert_array_equal(found["update"][2:], lr.interpret.trace(large, 2)["update"])
    assert bool(found["update"][:2, ..., 2:].isnull().all())
    # what a head does is asked of both alike
    effect = contrast(mixture(small, large), do("x", 1.0), num_samples=4)
    assert not bool(effect.spikes.isel(time=0).isnull().any())
    assert summarise(effect.spikes.to_dataset()).spikes.sizes["statistic"] == 3
    np.testing.assert_array_equal(effect.spikes[2:], contrast(large, do("x", 1.0), num_samples=2).spikes)


def test_members_have_points_of_their_own() -> None:
    members = [posterior_at(flip_flop(bits), STARTS[:, :bits]) for bits in (1, 2)]
    for member in members:
        hold_bits(member)
    found = lr.interpret.fixed_points(mixture(*members), num_starts=100, noise=1.5, num_samples=2)
    assert found.dataset.speed.notnull().sum("point").values.tolist() == [3, 9]
    assert bool(found.dataset.state[0, :, 1].isnull().all())
    assert found.counts() == {"stable": 2, "saddle": 0, "repeller": 1, "slow": 0}
    assert found.counts(1)["stable"] == 4


def test_members_in_which_different_things_are_found_are_named() -> None:
    several = mixture(posterior_of(lr.GRU(3), lr.Innovations(1)), posterior_of(lr.LSTM(3), lr.Innovations(1)))
    with pytest.raises(ValueError, match=r"trace: members of the ensemble have different variables .*cell.*posteriors"):
        lr.interpret.trace(several, 2)
