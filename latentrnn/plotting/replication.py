"""What several fits have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from latentrnn.plotting.axes import axes_or_new
from latentrnn.plotting.dimensions import leading_directions, name_dimensions

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FITS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")  # of Okabe and Ito
MARKS = "osD^vP"


def replication(r2: ArrayLike, effect: ArrayLike, *, least_effect: float | None = None, ax: Axes | None = None) -> Axes:
    """Draw how well each unit (or dimension) of each fit replicates, against how much a head loses without it.

    Args:
        r2: (fit, unit), NaN where a fit has fewer units than others.
        effect: likewise; what is below a ten-thousandth is drawn there.
        least_effect: below which a unit is idle, drawn as a line.
        ax: where to draw; default a new figure.

    Raises:
        ValueError: shapes that differ.
    """
    scores, shares = np.asarray(r2, float), np.asarray(effect, float)
    if scores.ndim != 2 or scores.shape != shares.shape:
        raise ValueError(f"r2, effect: expected (fit, unit) each; found {scores.shape}, {shares.shape}")
    ax = axes_or_new(ax)
    for fit, (score, share) in enumerate(zip(scores, shares, strict=True)):
        style = {"color": FITS[fit % len(FITS)], "marker": MARKS[fit % len(MARKS)]}
        ax.plot(share.clip(1e-4), score, linestyle="none", markersize=5, label=f"fit {fit}", **style)  # type: ignore[arg-type]
    if least_effect is not None:
        ax.axvline(least_effect, color="0.6", linestyle=":", linewidth=1)
    ax.set_xscale("log")
    ax.set_ylim(min(-0.05, float(np.nanmin(scores, initial=0.0)) - 0.05), 1.05)
    ax.set_xlabel("share of a head's variance that it carries")
    ax.set_ylabel("R2 from the other fits")
    ax.legend(fontsize="small", frameon=False)
    return ax


def alignment(paths: ArrayLike, others: ArrayLike, *, ax: Axes | None = None) -> Axes:
    """Draw the states of one fit, and those of another in its coordinates, on two dimensions.

    Args:
        paths: of one fit, (sequence, time, size); NaN in padding.
        others: of another, after `Alignment.apply`, likewise.
        ax: where to draw; default a new figure.

    Raises:
        ValueError: shapes that differ.
    """
    first, second = np.asarray(paths, float), np.asarray(others, float)
    if first.ndim != 3 or first.shape != second.shape:
        raise ValueError(f"paths, others: expected (sequence, time, size) each; found {first.shape}, {second.shape}")
    ax = axes_or_new(ax)
    rows = first.reshape(-1, first.shape[-1])
    rows = rows[~np.isnan(rows).any(-1)]
    axes = leading_directions(rows - rows.mean(0))
    for found, color, style, label in ((first, "0.6", "-", "one fit"), (second, FITS[1], "--", "another, aligned")):
        for number, path in enumerate((found - rows.mean(0)) @ axes.T):
            across, up = path[:, 0], path[:, -1]
            ax.plot(across, up, style, color=color, linewidth=0.9, label=None if number else label)
    name_dimensions(ax, legend=True)
    return ax
