"""Spike times become counts per bin, to the bin."""

from __future__ import annotations

import numpy as np
import pytest

from latentrnn.data import SequenceData


def test_counts_agree_with_a_histogram() -> None:
    random = np.random.default_rng(0)
    times = [[random.uniform(2.0, 3.0, random.poisson(200)) for _ in range(3)] for _ in range(2)]
    data = SequenceData.from_spike_times(times, dt=0.01, duration=1.0, start=2.0)
    assert data.observations["spikes"].shape == (2, 100, 3)
    assert data.spec.dt == 0.01
    edges = np.linspace(2.0, 3.0, 101)
    for row in range(2):
        for channel in range(3):
            expected = np.histogram(times[row][channel], edges)[0]
            np.testing.assert_array_equal(data.observations["spikes"][row, :, channel], expected)


@pytest.mark.parametrize("dt", [0.001, 0.0005, 0.1, 1 / 3])
def test_a_spike_on_an_edge_opens_its_bin(dt: float) -> None:
    bins = np.arange(1000)
    data = SequenceData.from_spike_times([[bins * dt]], dt=dt, duration=1000 * dt)
    assert (data.observations["spikes"] == 1).all()


def test_every_sequence_has_its_own_clock_time() -> None:
    data = SequenceData.from_spike_times([[[0.5]], [[10.5, 11.5]]], dt=1.0, duration=[1.0, 3.0], start=[0.0, 10.0])
    assert data.lengths.tolist() == [1, 3]
    assert data.observations["spikes"][1, :, 0].tolist() == [1, 1, 0]
    assert data.masks["spikes"][0, :, 0].tolist() == [True, False, False]


def test_channels_by_name_at_either_level() -> None:
    by_sequence = [{"a": [0.1], "b": []}, {"b": [0.3, 0.35], "a": []}]
    by_channel = {"a": [[0.1], []], "b": [[], [0.3, 0.35]]}
    first, second = (SequenceData.from_spike_times(times, dt=0.1, duration=0.5) for times in (by_sequence, by_channel))
    assert first.spec == second.spec
    assert first.keys == second.keys
    assert first.spec.heads["spikes"].channel_names == ("a", "b")
    assert first.observations["spikes"][1, 3, 1] == 2


def test_a_silent_channel_and_a_stimulus_with_names() -> None:
    stimulus = np.zeros((1, 4, 1))
    data = SequenceData.from_spike_times(
        [[[], [0.01]]], dt=0.01, duration=0.04, covariates={"x": stimulus}, name="units", channel_names=["u", "v"]
    )
    assert data.observations["units"].sum((0, 1)).tolist() == [0, 1]
    assert data.spec.heads["units"].channel_names == ("u", "v")
    assert list(data.covariates) == ["x"]
