"""The course of a fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from latentrnn.plotting.axes import axes_or_new

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def history(
    records: Mapping[str, Sequence[float]],
    *,
    names: Sequence[str] | None = None,
    x: str = "step",
    ax: Axes | None = None,
) -> Axes:
    """Draw traces of a fit, such as the ELBO, over its steps.

    Args:
        records: `result.history`, lists of numbers of one length.
        names: which to draw; default all whose name contains "elbo".
        x: what is on the horizontal axis.
        ax: where to draw; default a new figure.

    Raises:
        ValueError: for a name that was not recorded.
    """
    chosen = [name for name in records if "elbo" in name] if names is None else list(names)
    for name in (x, *chosen):
        if name not in records:
            raise ValueError(f"names: {name!r} was not recorded; there are {sorted(records)}")
    ax = axes_or_new(ax)
    for name in chosen:
        # not every quantity is evaluated at every report
        points = [(step, value) for step, value in zip(records[x], records[name], strict=True) if value is not None]
        ax.plot([step for step, _ in points], [value for _, value in points], label=name)
    ax.set_xlabel(x)
    ax.set_ylabel("nats")
    ax.legend(fontsize="small", frameon=False)
    return ax
