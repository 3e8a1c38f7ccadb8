"""How well variables are read off a state, beside control tasks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from latentrnn.plotting.axes import axes_or_new

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def probe(
    score: Any,
    control: Any,
    *,
    names: Sequence[Any] | None = None,
    metric: str = "score",
    ax: Axes | None = None,
) -> Axes:
    """Draw each variable's scores by fold with their mean, in grey those of its control tasks.

    Args:
        score: (fold, variable).
        control: (control, variable).
        names: of the variables; by default their places.
        metric: what the scores are.
        ax: where to draw; default a new figure.

    Raises:
        ValueError: shapes that differ in the variables.
    """
    scores, controls = (np.asarray(each, dtype=np.float64) for each in (score, control))
    if scores.ndim != 2 or controls.ndim != 2 or scores.shape[1] != controls.shape[1]:
        raise ValueError(f"expected (fold, variable) and (control, variable); found {scores.shape}, {controls.shape}")
    labels = [str(name) for name in (range(scores.shape[1]) if names is None else names)]
    ax = axes_or_new(ax)
    for values, colour, label, shift in ((controls, "0.6", "controls", 0.12), (scores, "C0", "folds", -0.12)):
        place = np.broadcast_to(np.arange(scores.shape[1]) + shift, values.shape)
        ax.scatter(place.ravel(), values.ravel(), s=10, color=colour, alpha=0.6, linewidths=0, label=label)
    ax.plot(np.arange(scores.shape[1]) - 0.12, np.nanmean(scores, 0), "_", color="C0", markersize=14)
    ax.axhline(0.0, color="0.8", linewidth=0.8, zorder=0)
    ax.set_xticks(range(scores.shape[1]), labels)
    ax.set_xlim(-0.5, scores.shape[1] - 0.5)
    ax.set_ylabel(metric)
    ax.legend(frameon=False, fontsize="small")
    return ax
