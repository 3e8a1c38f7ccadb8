"""New Axes where none were given; matplotlib is imported only when something is drawn."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")  # of Okabe and Ito


def axes_or_new(ax: Axes | None) -> Axes:
    """The given Axes, or those of a new figure."""
    return grid_of_axes(1)[0] if ax is None else ax


def grid_of_axes(number: int, *, columns: int = 3) -> list[Axes]:
    """`number` Axes of a new figure, at most `columns` side by side."""
    from matplotlib import pyplot

    wide = min(number, columns)
    high = -(-number // wide)
    figure, grid = pyplot.subplots(high, wide, figsize=(4.0 * wide, 2.8 * high), squeeze=False, layout="constrained")
    axes = list(grid.flat)
    for spare in axes[number:]:
        figure.delaxes(spare)
    return axes[:number]
