"""Tests of one lithium-ion cell, as the cycler wrote them: a CSV file for each, a row for each record.

A cell of a Nissan Leaf, 2013 (Oak Ridge National Laboratory and National Renewable Energy Laboratory; public repository
batterysim/equiv-circ-model): discharges at 1C, 2C and 3C, charges at 15 A, and pulses at every tenth of the charge.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

import latentrnn as lr
from examples.simulate import Battery

FOLDER, APART = "battery_leaf_cell", 30.0  # s, between the records of one step of a test that are kept
FULL = 4.15  # V at rest
FILES = {f"{rate}C": f"cell-discharge-bitrode-{rate}c.csv" for rate in (1, 2, 3)} | {
    "pulses": "cell-low-current-hppc-25c-2.csv"
}


def load(data: Path) -> pd.DataFrame:
    """Return all rows of whole cycles, which begin with a discharge of the full cell.

    Columns: test, cycle; time, seconds since the cycle began; current, A, positive where it charges; charge, Ah above
    that of the full cell; moved, Ah since the row before; voltage.
    """
    parts = []
    for test, file in FILES.items():
        frame = pd.read_csv(data / FOLDER / file, index_col=False)
        frame = frame.rename(columns={"Time(s)": "time", "Current(A)": "current", "Voltage(V)": "voltage"})
        before = frame["Mode"].shift(fill_value="REST"), frame["voltage"].shift(fill_value=FULL)
        begins = (frame["Mode"] == "DCHG") & (before[0] == "REST") & (before[1] >= FULL)
        frame = frame.assign(test=test, cycle=begins.cumsum())[begins.cumsum() > 0]
        frame = frame[(frame["Step"] != 6) | (frame["Mode"] != "REST")]  # a rest of days after the last cycle
        rows_of = frame.groupby("cycle")["time"].transform("size")
        frame = frame[rows_of > 0.5 * rows_of.median()]  # the last may have been cut off
        seconds = frame.groupby("cycle")["time"].diff().fillna(0.0)
        frame["charge"] = (frame["current"] * seconds / 3600).groupby(frame["cycle"]).cumsum()
        frame["time"] -= frame.groupby("cycle")["time"].transform("min")
        slot = frame["time"] // APART
        frame = frame[(slot != slot.shift()) | (frame["Step"] != frame["Step"].shift())]
        frame["moved"] = frame.groupby("cycle")["charge"].diff().fillna(0.0)
        parts.append(frame[["test", "cycle", "time", "current", "charge", "moved", "voltage"]])
    return pd.concat(parts, ignore_index=True)


def written(folder: Path, tests: Mapping[str, Battery]) -> None:
    """Write simulated tests as the cycler would have, under the names of its files."""
    (folder / FOLDER).mkdir(parents=True, exist_ok=True)
    for test, found in tests.items():
        mode = np.array(["DCHG", "REST", "CHRG"])[np.sign(found.current).astype(int) + 1]
        step = np.cumsum(np.append(True, mode[1:] != mode[:-1])) % 4 + 1
        columns = {
            "Step": step,
            "Time(s)": found.time,
            "Current(A)": found.current,
            "Voltage(V)": found.voltage.round(4),
        }
        pd.DataFrame(columns | {"Mode": mode}).to_csv(folder / FOLDER / FILES[test], index=False)


def split(rows: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Return rows to learn from (1C, 3C and pulses), those that choose (their last cycles), and all of 2C."""
    last = rows.groupby("test")["cycle"].transform("max") == rows["cycle"]
    chooses = last & rows["test"].isin(["1C", "3C"])
    scored = rows["test"] == "2C"
    return rows[~scored & ~chooses], rows[chooses], rows[scored]


def as_sequences(rows: pd.DataFrame) -> lr.SequenceData:
    """Return a sequence for each cycle, a step for each row, at the times at which they were recorded."""
    return lr.SequenceData.from_dataframe(
        rows,
        {"voltage": "voltage"},
        {name: name for name in ("current", "charge", "moved")},
        time="time",
        group=["test", "cycle"],
        sampling="irregular",
    )
