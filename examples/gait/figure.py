"""The example's figure: arrays in, a file out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt

from examples.simulate import Array

COLORS = ("#0072b2", "#d55e00")  # of Okabe and Ito


def draw(
    path: Path,
    choices: Mapping[str, tuple[float, float]],
    seconds: Mapping[str, Mapping[str, float]],
    late: Mapping[str, tuple[Array, Array]],
) -> None:
    """Draw by how much the LSTM is ahead, what fits cost, and whether knees remember the load.

    Args:
        path: of the picture.
        choices: by data set, nats per step and standard error.
        seconds: by data set and cell, of a fit.
        late: by cell, standard deviations of the knee at the end of each walk, predicted and measured, degrees.
    """
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(11, 3.6), layout="constrained")
    for place, (gap, error) in enumerate(choices.values()):
        left.errorbar(gap, place, xerr=2 * error, fmt="o", color="k", capsize=3)
    left.axvline(0.0, color="0.6", linewidth=1)
    left.set_yticks(range(len(choices)), list(choices))
    left.set(xlabel="LSTM ahead of GRU, nats per step, 2 s.e.", ylim=(-0.5, len(choices) - 0.5))
    for place, costs in enumerate(seconds.values()):
        for shift, color, (cell, cost) in zip((-0.2, 0.2), COLORS, costs.items(), strict=True):
            middle.barh(place + shift, cost, 0.38, color=color, label=cell if place == 0 else None)
    middle.set_yticks([])
    middle.set(xlabel="processor's seconds of a fit", ylim=(-0.5, len(seconds) - 0.5), xscale="log")
    middle.legend(fontsize=8)
    for color, (cell, (predicted, measured)) in zip(COLORS, late.items(), strict=True):
        right.plot(measured, predicted, ".", color=color, label=cell, alpha=0.6, markersize=5)
    ends = [min(right.get_xlim()[0], right.get_ylim()[0]), max(right.get_xlim()[1], right.get_ylim()[1])]
    right.plot(ends, ends, "k--", linewidth=1)
    right.set(xlabel="s.d. of a knee at the end, measured (degrees)", ylabel="predicted")
    right.legend(fontsize=8)
    figure.savefig(path, dpi=110)
