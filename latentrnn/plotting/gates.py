"""Gates along time, and what an intervention changes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from latentrnn.plotting.axes import axes_or_new

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def gate_map(
    values: ArrayLike,
    time: ArrayLike,
    *,
    unit: str = "s",
    label: str = "gate",
    order: bool = True,
    ax: Axes | None = None,
) -> Axes:
    """Draw a gate of every unit along time: dark is closed, bright is open.

    Args:
        values: `(time, unit)` in [0, 1], of one sequence; NaN in padding.
        time: of each step.
        unit: of time.
        label: of the colours.
        order: whether units are sorted by their average, the most open on top.
        ax: where to draw; default a new figure.

    Raises:
        ValueError: values that are no table, or times of another number.
    """
    shown, times = np.asarray(values, float), np.asarray(time, float)
    if shown.ndim != 2 or times.shape != shown.shape[:1]:
        raise ValueError(f"gate_map: expected (time, unit) and a time per step; found {shown.shape} and {times.shape}")
    ax = axes_or_new(ax)
    if order:
        shown = shown[:, np.argsort(np.nanmean(shown, 0))]
    step = times[1] - times[0] if len(times) > 1 else 1.0
    extent = (times[0] - step / 2, times[-1] + step / 2, -0.5, shown.shape[1] - 0.5)
    image = ax.imshow(
        shown.T, aspect="auto", origin="lower", extent=extent, cmap="cividis", vmin=0, vmax=1, interpolation="nearest"
    )
    ax.figure.colorbar(image, ax=ax, label=label)
    ax.set_xlabel(f"time ({unit})")
    ax.set_ylabel("unit" + (", by average" if order else ""))
    return ax


def band(
    time: ArrayLike,
    mean: ArrayLike,
    lower: ArrayLike,
    upper: ArrayLike,
    *,
    unit: str = "s",
    label: str | None = None,
    color: str = "C0",
    zero: bool = False,
    ax: Axes | None = None,
) -> Axes:
    """Draw a mean with its interval along time.

    Args:
        time, mean, lower, upper: `(time,)`.
        unit: of time.
        label: for the legend.
        color: of line and band.
        zero: whether to draw a line at zero, where an effect would be none.
        ax: where to draw; default a new figure.

    Raises:
        ValueError: arrays of different lengths.
    """
    arrays: list[Any] = [np.asarray(each, float) for each in (time, mean, lower, upper)]
    if len({each.shape for each in arrays}) > 1 or arrays[0].ndim != 1:
        raise ValueError(f"band: expected four arrays (time,) alike; found {[each.shape for each in arrays]}")
    ax = axes_or_new(ax)
    if zero:
        ax.axhline(0.0, color="0.6", linewidth=0.8)
    ax.fill_between(arrays[0], arrays[2], arrays[3], color=color, alpha=0.25, linewidth=0)
    ax.plot(arrays[0], arrays[1], color=color, label=label)
    ax.set_xlabel(f"time ({unit})")
    if label is not None:
        ax.legend(frameon=False)
    return ax
