"""The example's figure: arrays in, a file out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np

from examples.simulate import Array


def draw(
    path: Path,
    areas: Mapping[str, tuple[float, Array]],
    own: Array,
    other: Array,
    died: Array,
) -> None:
    """Draw areas under the curve with their intervals, and what a mask of another patient does to a risk.

    Args:
        path: of the picture.
        areas: by analysis, the area and its draws by the bootstrap.
        own: risks of test patients with their own masks, (patient,).
        other: the same with masks of others.
        died: of them, 0 or 1.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.8), width_ratios=(1.3, 1), layout="constrained")
    for place, (name, (area, draws)) in enumerate(reversed(areas.items())):
        low, high = np.quantile(draws, [0.05, 0.95])
        color = "k" if "regression" in name else "C3" if "another" in name else "C0"
        left.errorbar(area, place, xerr=[[area - low], [high - area]], fmt="o", color=color)
    left.set_yticks(range(len(areas)), list(reversed(areas)))
    left.set(xlabel="area under the ROC curve, held-out patients, 90%")
    for kind, color, label in ((0, "C0", "survived"), (1, "C3", "died")):
        which = died == kind
        right.plot(own[which], other[which], ".", color=color, markersize=4, alpha=0.5, label=label)
    ends = [min(own.min(), other.min()), max(own.max(), other.max())]
    right.plot(ends, ends, "k--", linewidth=1)
    right.set(xscale="logit", yscale="logit")
    ticks = [0.001, 0.01, 0.1, 0.5, 0.9]
    right.set_xticks(ticks, map(str, ticks))
    right.set_yticks(ticks, map(str, ticks))
    right.minorticks_off()
    right.set(xlabel="risk of death, told what was charted", ylabel="told that of another patient")
    right.legend(fontsize=8)
    figure.savefig(path, dpi=110)
