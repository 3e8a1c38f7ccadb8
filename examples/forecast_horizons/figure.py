"""The example's figure: arrays in, a file out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np

from examples.forecast_horizons.slopes import HORIZONS, Costs
from examples.simulate import Array

COLORS = {"iterated": "C0", "direct": "C1", "encoder-decoder": "C2"}
SHIFTS = {"iterated": -0.15, "direct": 0.0, "encoder-decoder": 0.15}  # so that no point hides another


def draw(
    path: Path,
    growth: Array,
    found: Mapping[str, tuple[Array, Array]],
    costs: Mapping[float, Costs],
) -> None:
    """Draw errors of networks by horizon, and what short series cost either way of forecasting.

    Args:
        path: of the picture.
        growth: the least mean squared error that there can be, (horizon,), from one step on.
        found: by network, mean squared errors and the variances that it states, (seed, horizon) each.
        costs: of slopes, by noise.
    """
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(12, 3.6), layout="constrained")
    steps = np.arange(1, len(growth) + 1)
    left.plot(steps, growth, "k--", linewidth=1, label="theory, 1 - phi^(2h)")
    middle.axhline(1.0, color="k", linestyle="--", linewidth=1)
    for name, (errors, stated) in found.items():
        left.plot(steps + SHIFTS[name], errors.mean(0), "o", markersize=4, color=COLORS[name], label=name)
        middle.plot(steps, (stated / growth).mean(0), color=COLORS[name], label=name)
    left.set(xlabel="steps ahead", ylabel="mean squared error", ylim=(0, None))
    left.legend(fontsize=8)
    middle.set(xlabel="steps ahead", ylabel="variance stated / theory", ylim=(0, None))
    middle.legend(fontsize=8)
    for (noise, cost), style in zip(costs.items(), ("--", "-"), strict=True):
        for way, each in cost.found.items():
            middles, errors = each.mean(0), each.std(0) / np.sqrt(len(each))
            right.plot(HORIZONS, cost.expected[way], style, color=COLORS[way], label=f"{way}, noise {noise:g}")
            right.errorbar(HORIZONS, middles, 2 * errors, fmt="o", markersize=3, color=COLORS[way])
    right.set(xlabel="steps ahead", ylabel="excess error, 2 s.e.; lines: theory", ylim=(0, None))
    right.legend(fontsize=8)
    figure.savefig(path, dpi=110)
