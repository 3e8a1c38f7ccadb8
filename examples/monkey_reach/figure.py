"""The example's figure: arrays in, a file out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from numpy.typing import NDArray

from examples.simulate import Array


def draw(
    path: Path,
    hand: tuple[Array, Array, NDArray[np.int_]],
    unit: tuple[Array, Array],
    scores: Mapping[str, Sequence[float]],
    dt: float,
) -> None:
    """Draw reaches as recorded and as decoded, a hidden unit's rate as counted and as predicted, and all scores.

    Args:
        path: of the picture.
        hand: velocity as recorded and as decoded, (trial, bin, 2), mm/s, and direction, (trial,).
        unit: counts and predicted rates of one unit, (trial, bin), per bin.
        scores: bits per spike of every fit, by model.
        dt: seconds per bin.
    """
    figure, (left, middle, right) = plt.subplots(
        1, 3, figsize=(11.5, 3.6), width_ratios=(1, 1.1, 0.9), layout="constrained"
    )
    recorded, decoded, direction = hand
    colors = plt.get_cmap("twilight")(np.linspace(0.1, 0.9, 8))
    for towards in np.unique(direction):
        for velocity, style in ((recorded, "-"), (decoded, "--")):
            paths = np.cumsum(velocity[direction == towards], 1) * dt
            for each in paths:
                left.plot(*each.T, style, color=colors[towards], linewidth=0.6, alpha=0.35)
            left.plot(*paths.mean(0).T, style, color=colors[towards], linewidth=2)
    left.plot([], [], "k-", label="recorded")
    left.plot([], [], "k--", label="read off the state")
    left.set(xlabel="x (mm)", ylabel="y (mm)", title="hand, test trials")
    left.legend(fontsize=8, loc="upper left")

    times = dt * (np.arange(unit[0].shape[1]) + 0.5)
    means = {towards: unit[1][direction == towards].mean() for towards in np.unique(direction)}
    for most, towards in ((True, max(means, key=means.__getitem__)), (False, min(means, key=means.__getitem__))):
        counts, rates = (each[direction == towards] / dt for each in unit)
        errors = counts.std(0) / np.sqrt(len(counts))
        middle.errorbar(
            times, counts.mean(0), errors, fmt=".", color=colors[towards], label="counted" if most else None
        )
        middle.plot(times, rates.mean(0), color=colors[towards], label="predicted from others" if most else None)
    middle.set(xlabel="time (s)", ylabel="spikes/s", title="a hidden unit, reaches to two targets")
    middle.legend(fontsize=8)

    for row, (how, values) in enumerate(reversed(scores.items())):
        right.plot(values, np.full(len(values), row), "o", color="C0" if how.startswith("LSTM") else "C7")
        right.annotate(how, (min(values), row), (0, 6), textcoords="offset points", fontsize=8, ha="center")
    right.set(yticks=[], ylim=(-0.5, len(scores) - 0.4), xlabel="bits per spike, hidden units", title="co-smoothing")
    right.margins(x=0.3)
    figure.savefig(path, dpi=110)
