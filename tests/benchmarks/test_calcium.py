"""The script that judges spikes inferred from fluorescence, on tiny simulated cells and without its rival."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.signal import lfilter

from benchmarks import calcium

WEIGHT = 30.0


def simulated(seed: int, seconds: float = 24.0) -> calcium.Cell:
    """A cell that fires now and then; every spike adds ten times the noise, which decays within half a second."""
    rng = np.random.default_rng(seed)
    spikes = rng.poisson(0.04, int(seconds / calcium.BIN)).astype(float)
    brightness = lfilter([10.0], [1.0, -np.exp(-calcium.BIN / 0.5)], spikes)
    return [calcium.Epoch(brightness + rng.normal(size=len(spikes)), spikes)]


@pytest.fixture
def cells(monkeypatch: pytest.MonkeyPatch) -> dict[str, calcium.Cell]:
    found = {name: simulated(seed) for seed, name in enumerate(("a", "b", "c"))}
    monkeypatch.setattr(calcium, "load_cells", lambda dataset: found)
    monkeypatch.setattr(calcium, "STEPS", 2)
    return found


def test_the_rivals_that_are_ours_find_planted_spikes(
    cells: dict[str, calcium.Cell], monkeypatch: pytest.MonkeyPatch
) -> None:
    def differences(epoch: calcium.Epoch, decay: float | None = None, width: float = 0.0) -> np.ndarray:
        return np.roll(np.diff(epoch.fluorescence, prepend=0.0), 2)  # late by two bins, which tuning finds

    monkeypatch.setattr(calcium, "oasis", differences)
    train = [cells["a"], cells["b"]]
    rolled = [calcium.Epoch(epoch.fluorescence, np.roll(epoch.spikes, 200)) for epoch in cells["c"]]
    assert calcium.correlation(calcium.tuned_oasis(train, cells["c"]), cells["c"]) > 0.7
    assert abs(calcium.correlation([differences(epoch) for epoch in cells["c"]], cells["c"])) < 0.3  # untuned
    guesses = calcium.linear(train, cells["c"])
    assert calcium.correlation(guesses, cells["c"]) > 0.8
    assert abs(calcium.correlation(guesses, rolled)) < 0.2  # the control


def test_the_joint_model_never_sees_the_spikes_of_the_judged_cell(cells: dict[str, calcium.Cell]) -> None:
    other = [calcium.Epoch(epoch.fluorescence, epoch.spikes + 1) for epoch in cells["c"]]
    first, second = (calcium.joint([cells["a"]], cell, weight=WEIGHT, seed=0) for cell in (cells["c"], other))
    assert [guess.shape for guess in first] == [epoch.spikes.shape for epoch in cells["c"]]
    np.testing.assert_array_equal(first, second)
    assert np.ptp(first[0]) > 0


def test_a_weight_is_chosen_without_the_judged_cell() -> None:
    pairs = {
        ("x", "a", "b", 1.0): (0.9, 0.1),
        ("x", "a", "b", 2.0): (0.1, 0.2),
        ("x", "b", "c", 1.0): (0.1, 0.0),
        ("x", "b", "c", 2.0): (0.0, 0.9),
        ("x", "a", "c", 1.0): (0.5, 0.5),
        ("x", "a", "c", 2.0): (0.1, 0.1),
        ("y", "a", "b", 2.0): (9.0, 9.0),
    }
    assert calcium.choose_weight("a", pairs, "x") == 1.0  # b 0.1, c 0.5 against b 0.2, c 0.1
    assert calcium.choose_weight("b", pairs, "x") == 2.0  # a 0.9, c 0.0 against a 0.1, c 0.9: its own 0.1 is not read
    assert calcium.choose_weight("c", pairs, "x") == 1.0


def test_from_cells_to_the_table(
    cells: dict[str, calcium.Cell], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def pulses(epoch: calcium.Epoch, decay: float | None = None, width: float = 0.0) -> np.ndarray:
        return np.maximum(np.diff(epoch.fluorescence, prepend=0.0), 0)

    monkeypatch.setattr(calcium, "oasis", pulses)
    monkeypatch.setattr(calcium, "version", lambda package: "0")
    assert all(-1 <= score <= 1 for score in calcium.score_pair(("DS09", "a", "b", WEIGHT)))
    rows = [calcium.judge((dataset, name, WEIGHT, 1)) for dataset in calcium.DATASETS for name in ("a", "b")]
    table = calcium.report(rows, 1, 1.0)
    assert sum(line.startswith(f"| {name} | a |") for line in table.splitlines() for name in calcium.DATASETS) == 2
    for row in rows:
        assert set(row.scores) == set(calcium.METHODS)
        assert all(f"{score:.3f}" in table for score in row.scores.values())


def test_frames_are_averaged_in_bins_and_spikes_counted() -> None:
    times = np.arange(0.0, 60.0, 0.01)
    values = 100.0 + np.where((times >= 30) & (times < 30.2), 50.0, 0.0)
    values += np.random.default_rng(0).normal(size=len(times))
    entry = {"fluo_mean": values[:, None], "fluo_time": times[:, None], "events_AP": np.array([[300_001.0, 300_399.0]])}
    epoch = calcium.read_epoch(entry)
    assert len(epoch.spikes) == len(epoch.fluorescence) == int(times[-1] / calcium.BIN)
    assert epoch.spikes[750] == epoch.spikes.sum() == 2
    assert (np.flatnonzero(epoch.fluorescence > 30) == np.arange(750, 755)).all()
    assert np.std(np.r_[epoch.fluorescence[:700], epoch.fluorescence[800:]]) == pytest.approx(1.0, rel=0.2)
