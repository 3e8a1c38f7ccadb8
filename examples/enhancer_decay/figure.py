"""The example's figure: arrays in, a file out."""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np

from examples.simulate import Array

BINS = np.arange(0, 61, 5)  # kb


def draw(
    path: Path,
    locus: tuple[Array, Array, Array],
    rates: Array,
    single: Array,
    promoters: tuple[Array, Array],
    window: float,
) -> None:
    """Draw a new locus with what is predicted of its promoters, and activity below enhancers.

    Args:
        path: of the picture.
        locus: enhancers, activity (NaN where there is no promoter) and whether inside a planted window, (position,).
        rates: draws of the probability of activity, (draw, position).
        single: draws of the same below a single enhancer, (draw, distance).
        promoters: distance to the last enhancer, kb, and activity of those that were learned from, (promoter,).
        window: planted, kb.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.4), width_ratios=(1.7, 1), layout="constrained")
    enhancer, active, inside = locus
    position = np.arange(len(enhancer))
    shade = {"color": "C1", "alpha": 0.15, "linewidth": 0, "step": "mid", "label": "planted window"}
    left.fill_between(position, 0, 1, where=inside, **shade)
    low, high = np.quantile(rates, [0.05, 0.95], axis=0)
    left.fill_between(position, low, high, color="C0", alpha=0.5, linewidth=0, label="predicted, 90%")
    left.plot(position, active, "k.", label="promoter, active or silent")
    places = np.flatnonzero(enhancer)
    left.plot(places, np.full(len(places), -0.08), "C1>", label="enhancer")
    left.set(xlabel="position (kb)", ylabel="probability of activity")
    left.legend(fontsize=8, loc="center left")
    low, high = np.quantile(single, [0.05, 0.95], axis=0)
    right.fill_between(range(single.shape[1]), low, high, color="C0", alpha=0.5, linewidth=0, label="a single one, 90%")
    distance, shown = promoters
    groups = np.digitize(distance, BINS)
    shares = [shown[groups == k].mean() for k in range(1, len(BINS))]
    right.plot(BINS[:-1] + 2, shares, "k.", label="seen, by the last of several")
    right.axvline(window, color="C1", linestyle="--", label="planted window")
    right.set(xlabel="distance to the enhancer (kb)", ylabel="probability of activity")
    right.legend(fontsize=8)
    figure.savefig(path, dpi=110)
