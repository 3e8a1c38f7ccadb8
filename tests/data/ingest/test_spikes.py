"""Spike times become counts per bin, to the bin."""

from __future__ import annotations

import numpy as np
import pytest
import torch

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


@pytest.mark.parametrize(
    ("times", "dt", "start"),
    [
        (np.arange(20_000) * 0.001, 0.001, 0.0),
        (1.7e9 + np.arange(20_000) * 0.001, 0.001, 1.7e9),  # seconds since 1970 are rounded to 2.4e-7 s
        ((3000 + np.arange(20_000) * 0.01).astype(np.float32), 0.01, 3000.0),  # near an hour: to 2.4e-4 s
        ((3000 + np.arange(20_000) * 0.01).astype(np.float32), np.float32(0.01), np.float32(3000.0)),
        (torch.arange(20_000) * 0.01, 0.01, 0.0),
    ],
    ids=["float64", "since 1970", "float32", "all in float32", "torch"],
)
def test_spikes_on_a_grid_fill_every_bin(times: object, dt: float, start: float) -> None:
    data = SequenceData.from_spike_times([[times]], dt=dt, duration=20_000 * float(str(dt)), start=start)
    assert (data.observations["spikes"] == 1).all()


def test_single_precision_moves_no_spike_by_more_than_its_rounding() -> None:
    exact = np.sort(np.random.default_rng(0).uniform(3000, 3100, 5000))
    times = exact.astype(np.float32)
    data = SequenceData.from_spike_times([[times]], dt=0.01, duration=100.0, start=3000.0)
    bins = np.repeat(np.arange(10_000), data.observations["spikes"][0, :, 0].numpy().astype(int))
    beyond = np.maximum(3000 + bins * 0.01 - exact, exact - (3000 + (bins + 1) * 0.01))
    assert beyond.max() < np.spacing(np.float32(3100)) * 2  # outside its own bin by the rounding, at most


def test_a_spike_just_before_the_end_is_in_the_last_bin() -> None:
    last = np.nextafter(np.float32(3600), np.float32(0))
    data = SequenceData.from_spike_times([[np.array([last])]], dt=0.01, duration=10.0, start=3590.0)
    assert data.observations["spikes"][0, -1, 0] == 1


def test_times_that_cannot_tell_bins_apart_are_refused() -> None:
    times = np.array([1.7e9], dtype=np.float32)
    with pytest.raises(ValueError, match="found times that are rounded to 2e\\+02 s at sequence 0, channel 0"):
        SequenceData.from_spike_times([[times]], dt=0.001, duration=1.0, start=1.7e9)


def test_milliseconds_taken_for_seconds() -> None:
    with pytest.raises(ValueError, match="are dt, duration and start all in seconds"):
        SequenceData.from_spike_times([[[0.1]]], dt=1e-15, duration=1000.0)


class Units(dict[int, object]):
    """The units of one recording, as pynapple holds them."""

    time_support = None


class Times:
    """Times beside values, as pynapple holds them."""

    time_support = None

    def __init__(self, t: list[float]) -> None:
        self.t = np.array(t)

    def __array__(self, dtype: object = None, copy: object = None) -> np.ndarray:
        return np.full(len(self.t), 99.0)


def test_pynapple_keeps_times_beside_values() -> None:
    units = Units({0: Times([0.1, 0.2]), 7: Times([0.25])})
    data = SequenceData.from_spike_times([units], dt=0.1, duration=0.4)
    assert data.observations["spikes"][0].tolist() == [[0, 0], [1, 0], [1, 1], [0, 0]]
    assert data.spec.heads["spikes"].channel_names == ("0", "7")
    with pytest.raises(TypeError, match=r"expected a list over sequences, found one Units; write \[x\]"):
        SequenceData.from_spike_times(units, dt=0.1, duration=0.4)
