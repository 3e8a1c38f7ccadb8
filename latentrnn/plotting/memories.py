"""Memories of a fitted model: time constants, spectra, what is left of a change, what inputs do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from latentrnn.plotting.axes import axes_or_new, grid_of_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Array: TypeAlias = NDArray[np.float64]
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")  # Okabe and Ito, told apart by all eyes
UNITS = {"s": "s", "step": "steps"}


def time_constants(
    taus: ArrayLike,
    *,
    jacobian: ArrayLike | None = None,
    plausible: tuple[float, float] | None = None,
    names: Sequence[str] | None = None,
    time_unit: str = "s",
    ax: Axes | None = None,
) -> Axes:
    """Draw median and 90% interval of the time constant of each unit, and of the Jacobians below them.

    Args:
        taus: draws, (sample, unit), e.g. medians over the steps of `interpret.time_constants(...).tau`.
        jacobian: draws of the longest one by the Jacobians, (sample,).
        plausible: range that physiology allows, shaded.
        names: of the units.
        time_unit: "s" or "step".
        ax: where to draw; default a new figure.

    Returns:
        The Axes.

    Raises:
        ValueError: draws that are no table, or another number of names.
    """
    drawn = _table("taus", taus, ("sample", "unit"))
    labels = [str(unit) for unit in range(drawn.shape[1])] if names is None else list(names)
    if len(labels) != drawn.shape[1]:
        raise ValueError(f"names: expected {drawn.shape[1]}, one per unit; found {len(labels)}")
    from matplotlib import ticker

    ax, rows = axes_or_new(ax), [*drawn.T]
    if jacobian is not None:
        rows, labels = [*rows, np.asarray(jacobian, float).ravel()], [*labels, "Jacobian"]
    for place, row in enumerate(rows):
        low, middle, high = np.quantile(row[np.isfinite(row) & (row > 0)], (0.05, 0.5, 0.95))
        colour = COLOURS[1] if jacobian is not None and place == len(rows) - 1 else COLOURS[0]
        ax.plot([low, high], [place, place], color=colour, linewidth=2, solid_capstyle="butt")
        ax.plot([middle], [place], "o", color=colour, markersize=5)
    if plausible is not None:
        ax.axvspan(*plausible, color="0.9", zorder=0, label="plausible")
        ax.legend(fontsize="small", frameon=False)
    ax.set_xscale("log")
    ax.xaxis.set_major_locator(ticker.LogLocator(subs=(1.0, 2.0, 5.0)))
    ax.xaxis.set_major_formatter(ticker.StrMethodFormatter("{x:g}"))
    ax.xaxis.set_minor_locator(ticker.NullLocator())
    ax.set_yticks(range(len(rows)), labels)
    ax.invert_yaxis()
    ax.set_xlabel(f"time constant ({UNITS[time_unit]})")
    ax.set_ylabel("unit")
    return ax


def spectrum(frequency: ArrayLike, time_constant: ArrayLike, *, time_unit: str = "s", ax: Axes | None = None) -> Axes:
    """Draw the modes of a linearised transition: how long they last against how fast they turn.

    Args:
        frequency: hertz (per step), of any shape.
        time_constant: seconds (steps), likewise; modes that grow or last for ever lie on the upper edge.
        time_unit: "s" or "step".
        ax: where to draw; default a new figure.

    Returns:
        The Axes.

    Raises:
        ValueError: other shapes.
    """
    turns, lasts = (np.asarray(value, float) for value in (frequency, time_constant))
    if turns.shape != lasts.shape:
        raise ValueError(f"frequency: expected the shape of time_constant, {lasts.shape}; found {turns.shape}")
    ax = axes_or_new(ax)
    there = np.isfinite(turns) & ~np.isnan(lasts) & (lasts != 0)
    turns, lasts = turns[there], lasts[there]
    falls = np.isfinite(lasts) & (lasts > 0)
    ax.plot(turns[falls], lasts[falls], "o", color=COLOURS[0], markersize=3, alpha=0.4, markeredgewidth=0)
    ax.set_yscale("log")
    if not falls.all():
        top = np.full((~falls).sum(), 0.97)
        ax.plot(turns[~falls], top, "^", color=COLOURS[1], markersize=5, transform=ax.get_xaxis_transform())
    ax.set_xlabel("frequency (Hz)" if time_unit == "s" else "frequency (per step)")
    ax.set_ylabel(f"time constant ({UNITS[time_unit]})")
    return ax


def gradient_flow(
    lags: ArrayLike,
    norms: Mapping[str, ArrayLike],
    *,
    bounds: tuple[float, float] | None = (0.01, 100.0),
    ax: Axes | None = None,
) -> Axes:
    """Draw how much of a change is left after so many steps, with the 90% interval over draws, one line per model.

    Args:
        lags: numbers of steps, (lag,).
        norms: label to draws, (sample, lag), e.g. means over sequences of `interpret.gradient_flow(...).norm`.
        bounds: norms that have vanished and exploded, as dotted lines; None for none.
        ax: where to draw; default a new figure.

    Returns:
        The Axes.

    Raises:
        ValueError: draws that are no table.
    """
    ax, steps = axes_or_new(ax), np.asarray(lags)
    for (label, value), colour in zip(norms.items(), _colours(len(norms)), strict=True):
        drawn = _table(f"norms[{label!r}]", value, ("sample", "lag"))
        low, middle, high = np.nanquantile(drawn, (0.05, 0.5, 0.95), axis=0)
        ax.fill_between(steps, low, high, color=colour, alpha=0.3, linewidth=0)
        ax.plot(steps, middle, color=colour, label=label)
    for bound in bounds or ():
        ax.axhline(bound, color="0.5", linestyle=":", linewidth=1)
    ax.set_yscale("log")
    ax.set_xlabel("lag (steps)")
    ax.set_ylabel("norm of the gradient")
    ax.legend(fontsize="small", frameon=False)
    return ax


def sensitivity(lags: ArrayLike, values: ArrayLike, names: Sequence[str], *, ax: Axes | None = None) -> Axes:
    """Draw how far inputs of earlier steps move a state: the norm over its units by lag, one line per input.

    Args:
        lags: numbers of steps, (lag,).
        values: draws of derivatives, (sample, lag, of, by), one sequence of `interpret.sensitivity(...).sensitivity`.
        names: of the inputs, (by,).
        ax: where to draw; default a new figure.

    Returns:
        The Axes.

    Raises:
        ValueError: values of other axes, or another number of names.
    """
    drawn = np.linalg.norm(_table("values", values, ("sample", "lag", "of", "by")), axis=2)
    if len(names) != drawn.shape[-1]:
        raise ValueError(f"names: expected {drawn.shape[-1]}, one per input; found {len(names)}")
    ax, steps = axes_or_new(ax), np.asarray(lags)
    for place, (name, colour) in enumerate(zip(names, _colours(len(names)), strict=True)):
        low, middle, high = np.quantile(drawn[..., place], (0.05, 0.5, 0.95), axis=0)
        ax.fill_between(steps, low, high, color=colour, alpha=0.3, linewidth=0)
        ax.plot(steps, middle, color=colour, label=str(name))
    ax.set_xlabel("lag (steps)")
    ax.set_ylabel("norm of the derivative")
    ax.legend(fontsize="small", frameon=False)
    return ax


def gate_sensitivity(
    gate: ArrayLike, paths: Mapping[str, ArrayLike], *, name: str = "gate", axes: Sequence[Axes] | None = None
) -> list[Axes]:
    """Draw sensitivities against a gate on double logarithmic axes, one panel per path, with the line of slope one.

    Args:
        gate: its values, of any shape.
        paths: label to sensitivities likewise, e.g. {"gates held": ..., "gates free": ...}; signs are dropped.
        name: of the gate.
        axes: one per path; default a new figure.

    Returns:
        The Axes. Their titles have the correlation of the logarithms and the slope of one on the other.

    Raises:
        ValueError: sensitivities of another shape, or the wrong number of axes.
    """
    panels = grid_of_axes(len(paths)) if axes is None else list(axes)
    if len(panels) != len(paths):
        raise ValueError(f"axes: expected {len(paths)}, one per path, got {len(panels)}")
    opened = np.asarray(gate, float)
    for ax, (label, value) in zip(panels, paths.items(), strict=True):
        moved = np.abs(np.asarray(value, float))
        if moved.shape != opened.shape:
            raise ValueError(f"paths[{label!r}]: expected the shape of the gate, {opened.shape}; found {moved.shape}")
        there = (opened > 0) & (moved > 0)
        x, y = np.log(opened[there]), np.log(moved[there])
        slope, r = np.polyfit(x, y, 1)[0], np.corrcoef(x, y)[0, 1]
        ax.loglog(opened[there], moved[there], ".", color=COLOURS[0], markersize=3, alpha=0.3, markeredgewidth=0)
        line = np.array([x.min(), x.max()])
        ax.loglog(np.exp(line), np.exp(line + (y - x).mean()), color=COLOURS[1], linewidth=1)
        ax.set_title(f"{label}: r = {r:.3f}, slope {slope:.2f}", fontsize="medium")
        ax.set_xlabel(name)
        ax.set_ylabel("sensitivity")
    return panels


def _table(name: str, value: ArrayLike, dims: tuple[str, ...]) -> Array:
    found = np.asarray(value, float)
    if found.ndim != len(dims):
        raise ValueError(f"{name}: expected ({', '.join(dims)}); found shape {found.shape}")
    return found


def _colours(number: int) -> list[str]:
    return [COLOURS[place % len(COLOURS)] for place in range(number)]
