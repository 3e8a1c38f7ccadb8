"""The example's figure: arrays in, a file out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np

from examples.simulate import Array


def draw(path: Path, culture: tuple[Array, Array, Array], states: Array, longest: Mapping[str, Array]) -> None:
    """Draw one culture, seen and inferred, and what becomes of it under full exposure.

    Args:
        path: of the picture.
        culture: exposure, share of reads (NaN without a sample) and planted level, (day,) each.
        states: draws of its level, (draw, day).
        longest: the same under full exposure, by kind of gates.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.4), width_ratios=(1.5, 1), layout="constrained")
    exposure, share, level = culture
    day = np.arange(1, len(level) + 1)
    left.step(day, exposure, where="mid", color="C1", linewidth=1, label="exposure")
    low, high = np.quantile(states, [0.05, 0.95], axis=0)
    left.fill_between(day, low, high, color="C0", alpha=0.4, linewidth=0, label="inferred, 90%")
    left.plot(day, level, "k--", linewidth=1, label="planted")
    left.plot(day, share, "k.", label="share of reads")
    left.set(xlabel="day", ylabel="methylated share", ylim=(-0.02, 1.02))
    left.legend(fontsize=8, ncols=2, loc="upper center")
    for (kind, draws), color in zip(longest.items(), ("C0", "C3"), strict=True):
        low, high = np.quantile(draws, [0.05, 0.95], axis=0)
        right.fill_between(day, low, high, color=color, alpha=0.4, linewidth=0, label=f"{kind} gates, 90%")
    right.axhline(1.0, color="k", linewidth=1)
    right.set(xlabel="day of full exposure", ylabel="state", ylim=(0.5, 1.05))
    right.legend(fontsize=8, loc="lower right")
    figure.savefig(path, dpi=110)
