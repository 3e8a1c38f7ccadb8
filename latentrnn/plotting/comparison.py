"""Models against the best of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from latentrnn.plotting.axes import axes_or_new

if TYPE_CHECKING:
    import pandas
    from matplotlib.axes import Axes

WIDTH = 2  # standard errors that are drawn


def comparison(frame: pandas.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Draw what models lack to the best of a comparison, paired, with two standard errors of each difference.

    `az.plot_compare` draws totals, whose errors are mostly those that all models share.

    Args:
        frame: what `latentrnn.compare` or `Study.table` returned.
        ax: where to draw; default a new figure.

    Raises:
        TypeError: something else.
    """
    if not {"elpd_diff", "dse"} <= set(getattr(frame, "columns", ())):
        raise TypeError(f"comparison: frame must be the table that compare returns; found {type(frame).__name__}")
    ax = axes_or_new(ax)
    upwards = frame.iloc[::-1]
    rows = range(len(upwards))
    # on whatever scale, worse is to the left
    ax.errorbar(-upwards["elpd_diff"], rows, xerr=WIDTH * upwards["dse"], fmt="o", color="C0", capsize=2)
    ax.axvline(0.0, color="0.7", linewidth=0.8, zorder=0)
    ax.set_yticks(rows, list(map(str, upwards.index)))
    ax.margins(y=0.2)
    number = frame.attrs.get("num_units")
    of = "" if number is None else f" ({number} units: {frame.attrs.get('unit')})"
    ax.set_xlabel(f"log density against the best, nats{of}")
    return ax
