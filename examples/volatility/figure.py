"""The example's figure: arrays in, a file out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np

from examples.simulate import Array
from latentrnn.criticism import PairedDifference


def draw(
    path: Path,
    courses: Mapping[str, Mapping[str, Array]],
    gate: tuple[Array, Array, Array],
    leads: Mapping[str, Mapping[str, PairedDifference]],
) -> None:
    """Draw how far the model is ahead of its rivals as days go by and on the whole, and its gate about shocks.

    Args:
        path: of the picture.
        courses: nats ahead, cumulated over test days, (day,), by series and rival.
        gate: days from the shock, mean forget gate and its standard error, (day,) each.
        leads: nats per day ahead, by series and rival.
    """
    figure, (left, middle, right) = plt.subplots(
        1, 3, figsize=(11.5, 3.6), width_ratios=(1.3, 0.8, 1), layout="constrained"
    )
    for (name, rivals), color in zip(courses.items(), ("C0", "C1"), strict=False):
        for rival, style in (("GARCH", ":"), ("GJR", "-")):
            share = np.linspace(0, 1, len(rivals[rival]))
            left.plot(share, rivals[rival], style, color=color, label=f"{name}, above {rival}")
    left.axhline(0, color="k", linewidth=0.8)
    left.set(xlabel="share of the test days", ylabel="nats ahead, cumulated", title="one day ahead, Student tails")
    left.legend(fontsize=8)

    lag, mean, error = gate
    middle.errorbar(lag, mean, error, fmt="o-", color="C0", markersize=3)
    middle.axvline(0, color="0.8", zorder=0)
    middle.set(xlabel="days from a shock", ylabel="forget gate", title="the gate closes after shocks")

    rows = [(series, rival) for series, known in leads.items() for rival in known]
    for row, (series, rival) in enumerate(reversed(rows)):
        lead, color = leads[series][rival], f"C{list(leads).index(series)}"
        right.errorbar(lead.value, row, xerr=2 * lead.standard_error, fmt="o", color=color)
    right.axvline(0, color="k", linewidth=0.8)
    right.set_yticks(range(len(rows)), [f"{series}, {rival}" for series, rival in reversed(rows)], fontsize=8)
    right.set(xlabel="ahead, nats per day (2 s.e.)", title="held-out log score")
    figure.savefig(path, dpi=110)
