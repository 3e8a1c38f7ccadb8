"""The example's figure: arrays in, a file out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from scipy.special import expit

from examples.simulate import Array, Forgetting, leaky


def draw(
    path: Path,
    found: Forgetting,
    rates: Array,
    draws: Mapping[str, Array],
    others: Mapping[str, Mapping[str, Array]],
    planted: Mapping[str, float],
) -> None:
    """Draw one item's recall as inferred and planted, and decay and gain by all analyses.

    Args:
        path: of the picture.
        found: rehearsals and answers; shown is the item that was rehearsed about five times.
        rates: draws of the probability of recall, (draw, item, trial).
        draws: of "decay" and "gain", (draw,).
        others: intervals of both by other analyses, (3,).
        planted: both.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6), width_ratios=(1.5, 1), layout="constrained")
    above = {"loc": "lower left", "bbox_to_anchor": (0.0, 1.0), "frameon": False}  # curves leave no room inside
    item = int(np.argmin(np.abs(found.rehearsed.sum((1, 2)) - 5)))
    rehearsed, recalled = found.rehearsed[item, :, 0], found.recalled[item, :, 0]
    probability = expit(-2.0 + leaky(planted["gain"] * found.rehearsed[..., 0], np.exp(-1 / planted["decay"])))[item]
    trial = np.arange(len(rehearsed))
    low, high = np.quantile(rates[:, item], [0.025, 0.975], axis=0)
    left.fill_between(trial, low, high, color="C0", alpha=0.4, linewidth=0, label="inferred, 95%")
    left.plot(trial, probability, "k--", linewidth=1, label="planted")
    left.plot(trial, recalled, "k.", label="recalled or not")
    rehearsals = np.flatnonzero(rehearsed)
    left.plot(rehearsals, np.full(len(rehearsals), -0.08), "C1^", label="rehearsed")
    left.set(xlabel="trial", ylabel="probability of recall")
    left.legend(fontsize=8, **above, ncols=4)
    right.plot(draws["decay"], draws["gain"], ".", color="C0", alpha=0.15, markersize=3)
    right.plot([], [], "o", color="C0", label="draws")
    for (how, ends), color, marker in zip(others.items(), ("C2", "C3"), "so", strict=True):
        (a, x, b), (c, y, d) = ends["decay"], ends["gain"]
        sides = [[y - c], [d - y]], [[x - a], [b - x]]
        right.errorbar(x, y, *sides, fmt=marker, color=color, label=f"least squares, {how}")
    right.plot(planted["decay"], planted["gain"], "k+", markersize=14, label="planted")
    right.set(xlabel="decay (trials)", ylabel="gain (log-odds)")
    right.legend(fontsize=8, **above, ncols=2)
    figure.savefig(path, dpi=110)
