"""The grasshopper recordings and the regressions that the demo compares against."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("nitime", reason="the recordings come with nitime (the examples extra)")

from examples.grasshopper.baselines import block_standard_error, design, fit_baseline, grasshopper_baselines
from examples.grasshopper.data import load_recording, load_recordings, stretches


def test_recordings_hold_every_spike_once() -> None:
    for recording, spikes in zip(load_recordings(), [929, 868], strict=True):
        assert recording.counts.shape == (10_000, 1)
        assert recording.stimulus.shape == (10_000, 2)
        assert recording.counts.sum() == len(recording.spike_times) == spikes
        assert recording.counts.max() == 1
        assert recording.dt * len(recording.counts) == pytest.approx(10.0)
        # Each spike lies in its own bin, also those at a whole millisecond (to half of the 0.1 ms resolution).
        starts = np.flatnonzero(recording.counts[:, 0]) * recording.dt
        offset = recording.spike_times - starts
        assert offset.min() > -5e-5
        assert offset.max() < recording.dt - 5e-5


def test_the_stimulus_is_the_mean_amplitude_and_the_mean_of_its_logarithm() -> None:
    amplitude, log_amplitude = load_recording(1).stimulus.T
    assert np.isfinite(log_amplitude).all()
    assert 0.0158 < amplitude.min() < amplitude.max() <= 1.0
    assert (np.exp(log_amplitude) <= amplitude + 1e-12).all()  # Jensen's inequality, within a bin
    assert np.corrcoef(np.log(amplitude), log_amplitude)[0, 1] > 0.999
    # 20 / log(10) decibels per natural logarithm; the header of the recording says 6 dB (clipped at the two ends).
    assert log_amplitude.std() * 20 / np.log(10) == pytest.approx(6.0, abs=0.5)


def test_unknown_recording_is_refused() -> None:
    with pytest.raises(ValueError, match="number: nitime ships recordings 1 and 2; got 3"):
        load_recording(3)


def test_stretches_are_consecutive_and_cover_the_recording() -> None:
    parts = stretches(10_000)
    assert [parts.train, parts.validation, parts.test] == [slice(0, 6400), slice(6400, 8000), slice(8000, 10_000)]


def test_the_design_sees_the_present_stimulus_and_only_past_counts() -> None:
    x = design(np.array([1.0, 2.0, 3.0]), np.array([[10.0], [20.0], [30.0]]), stimulus_lags=2, history_lags=2)
    np.testing.assert_array_equal(x, [[10, 0, 0, 0], [20, 10, 1, 0], [30, 20, 2, 1]])


def test_the_regressions_reach_their_known_scores() -> None:
    recording = load_recording(1)
    parts = stretches(len(recording.counts))
    rows = grasshopper_baselines(
        recording.counts, recording.stimulus, train=parts.train, validation=parts.validation, test=parts.test
    )
    assert [row.bits_per_spike for row in rows] == pytest.approx([0.710, 1.374, 1.360, 1.920, 2.232], abs=0.01)
    assert all(0.05 < row.standard_error < 0.2 for row in rows)
    assert all(row.rate.shape == row.log_prob.shape == (2000,) for row in rows)


def test_the_test_stretch_is_never_fitted_or_chosen_on() -> None:
    recording = load_recording(1)
    counts = recording.counts[:4000].copy()
    split = {"train": slice(0, 2500), "validation": slice(2500, 3200), "test": slice(3200, 4000)}
    before = fit_baseline("GLM", counts, recording.stimulus[:4000, :1], ridges=(1e-3, 1e-2), **split)
    counts[3200:] = counts[3200:][::-1]
    after = fit_baseline("GLM", counts, recording.stimulus[:4000, :1], ridges=(1e-3, 1e-2), **split)
    np.testing.assert_array_equal(before.rate, after.rate)
    assert before.ridge == after.ridge
    assert before.bits_per_spike != after.bits_per_spike


def test_the_block_standard_error_is_that_of_independent_sums() -> None:
    rng = np.random.default_rng(0)
    gains = rng.normal(size=(400, 100))
    errors = np.array([block_standard_error(row.repeat(10), num_spikes=50, block=10) for row in gains])
    # Sums of 100 independent blocks, each 10 times a standard normal, over 50 spikes: sd 10 * 10 / 50 = 2.
    assert errors.mean() == pytest.approx(2.0, rel=0.02)
