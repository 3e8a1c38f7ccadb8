"""The example's figure: arrays in, a file out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import pandas as pd

from examples.simulate import Array

COLORS = ("#0072b2", "#d55e00", "#009e73")  # of Okabe and Ito


def draw(
    path: Path, rows: pd.DataFrame, voltages: Mapping[str, Array], charges: Array, measured: Array, ours: Array
) -> None:
    """Draw a cycle that was not learned from, the errors of its voltage, and what the way adds at equal charge.

    Args:
        path: of the picture.
        rows: that are scored.
        voltages: by model, of the rows.
        charges: Ah, at which the ways are compared, (charge,).
        measured, ours: voltage on charge above that on discharge, (cycle, charge), mV.
    """
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(12, 3.6), layout="constrained")
    one = (rows["cycle"] == rows["cycle"].max()).to_numpy()
    cycle = rows[one]
    hours = cycle["time"] / 3600
    left.plot(cycle["charge"], cycle["voltage"], "k.", markersize=4, label="measured")
    for color, (name, voltage) in zip(COLORS, voltages.items(), strict=False):
        left.plot(cycle["charge"], voltage[one], color=color, linewidth=1, label=name)
        middle.plot(hours, 1e3 * (voltage[one] - cycle["voltage"]), color=color, linewidth=1, label=name)
    left.set(xlabel="charge (Ah)", ylabel="voltage (V)")
    left.legend(fontsize=8)
    middle.axhline(0.0, color="0.7", linewidth=0.8)
    middle.set(xlabel="time (h)", ylabel="error (mV)")
    right.plot(charges, measured.T, "k.", markersize=4)
    right.plot(charges, ours.T, color=COLORS[0], linewidth=1)
    right.set(xlabel="charge (Ah)", ylabel="on charge above discharge (mV)")
    figure.savefig(path, dpi=110)
