"""The table of settings compares what it says, and recordings are laid out as said."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from benchmarks import recorded
from benchmarks.settings import DEFAULT, Outcome, best, gain, kept, known, page


def outcome(valid: float, test: float, seconds: float = 10.0) -> Outcome:
    return Outcome([valid - 1, valid + 1], [test - 1, test, test + 1], 800, seconds, "converged")


def test_validation_chooses_and_the_test_judges(tmp_path: Path) -> None:
    fits = {
        DEFAULT: outcome(-10.0, -20.0),
        "weight decay 1": outcome(-9.0, -21.0),
        "batches of 4": outcome(-11.0, -5.0),
    }
    for setting, each in fits.items():
        file = kept(tmp_path, "battery", setting, 0)
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(asdict(each)))
    found = known(tmp_path)
    assert found == {("battery", 0): fits}
    assert best(found["battery", 0]) == "weight decay 1"
    text = page(found, "\nby hand")
    assert (
        "| battery | 0 | -20.00 (0.58) | 2 | weight decay 1 | +1.00 (0.00) | -1.00 (0.00) | yes | yes | 1.00 |" in text
    )
    assert text.endswith("\nby hand")
    lost = {DEFAULT: fits[DEFAULT], "weight decay 1": outcome(-9.0, -18.0, 4.0)}
    assert "| +2.00 (0.00) | **no** | **no** | 2.50 |" in page({("battery", 0): lost}, "")


def test_errors_of_differences_are_paired() -> None:
    value, error = gain([1.0, 5.0, 12.0], [0.0, 4.0, 8.0])
    assert (value, error) == (2.0, pytest.approx(1.0))


def test_a_battery_is_cut_into_stretches_of_three_temperatures() -> None:
    if not (recorded.SHARED / "battery_leaf_cell").is_dir():
        pytest.skip(f"no recordings in {recorded.SHARED / 'battery_leaf_cell'}")
    parts = recorded.battery()
    assert [len(part) for part in parts] == [36, 12, 18]
    voltage = np.concatenate([part.observations["voltage"][..., 0].numpy() for part in parts])
    current = np.concatenate([part.covariates["known"][..., 0].numpy() for part in parts])
    assert 2.4 < voltage.min() < voltage.max() < 4.3
    pulses = np.abs(np.diff(current, axis=1)) > 0.5
    assert pulses.any()
    assert np.corrcoef(np.diff(voltage, axis=1)[pulses], np.diff(current, axis=1)[pulses])[0, 1] > 0.5
    degrees = {round(float(value), 6) for part in parts for value in part.covariates["known"][..., 2].unique()}
    assert degrees == {-1.0, 0.0, 1.0}
