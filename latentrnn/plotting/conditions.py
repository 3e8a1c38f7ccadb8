"""Trials by condition: rasters, peri-stimulus time histograms, trajectories of latents, inferred inputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from latentrnn.plotting.axes import COLOURS, axes_or_new
from latentrnn.plotting.dimensions import leading_directions, name_dimensions
from latentrnn.support.clock import step_length

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Array = NDArray[np.float64]


def trial_raster(
    counts: ArrayLike,
    conditions: Sequence[Any] | None = None,
    *,
    dt: float | None = None,
    start: float = 0.0,
    ax: Axes | None = None,
) -> Axes:
    """Draw the events of one channel, a row of ticks for each trial, trials of one condition together.

    Args:
        counts: (trial, time); NaN where nothing was recorded.
        conditions: of each trial, (trial,), in whose order the rows are drawn and coloured.
        dt: seconds per step; None for an axis in steps.
        start: time of the first step, seconds or steps.
        ax: where to draw; default a new figure.

    Raises:
        ValueError: shapes that do not go together.
    """
    from matplotlib.ticker import MaxNLocator

    values = _values("counts", counts, 2)
    groups = _groups(conditions, len(values))
    ax = axes_or_new(ax)
    time = _time(values.shape[1], dt, start)
    row = 0
    for place, (label, which) in enumerate(groups.items()):
        ticks = [time[trial > 0] for trial in values[which]]
        rows = list(range(row, row + len(ticks)))
        colour = "0.2" if conditions is None else COLOURS[place % len(COLOURS)]
        ax.eventplot(ticks, lineoffsets=rows, colors=colour, linelengths=0.8, linewidths=0.8)
        if conditions is not None:
            ax.text(
                1.01, row + len(ticks) / 2 - 0.5, label, color=colour, transform=ax.get_yaxis_transform(), va="center"
            )
        row += len(ticks)
    ax.set_ylim(row - 0.5, -0.5)
    ax.yaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_ylabel("trial")
    ax.set_xlabel("steps" if dt is None else "time (s)")
    return ax


def psth(
    counts: ArrayLike,
    conditions: Sequence[Any] | None = None,
    *,
    rates: ArrayLike | None = None,
    dt: float | None = None,
    start: float = 0.0,
    smooth: int = 1,
    ax: Axes | None = None,
) -> Axes:
    """Draw the mean of one channel over the trials of each condition, with two standard errors about it.

    Args:
        counts: events per bin, (trial, time); NaN where nothing was recorded.
        conditions: of each trial, (trial,); all together by default.
        rates: expected counts per bin of a model, (trial, time), whose means are drawn dashed.
        dt: seconds per step, which turns counts per bin into events per second; None keeps them.
        start: time of the first step, seconds or steps.
        smooth: bins of a running mean over counts, an odd number; rates are drawn as they are.
        ax: where to draw; default a new figure.

    Raises:
        ValueError: shapes that do not go together, or an even number of bins.
    """
    values = _values("counts", counts, 2) / step_length(dt)
    if smooth < 1 or smooth % 2 == 0 or smooth > values.shape[1]:
        raise ValueError(f"smooth: expected an odd number of bins, {values.shape[1]} at most; found {smooth}")
    expected = None if rates is None else _values("rates", rates, 2) / step_length(dt)
    if expected is not None and expected.shape != values.shape:
        raise ValueError(f"rates: expected the shape of counts, {values.shape}; found {expected.shape}")
    ax, time = axes_or_new(ax), _time(values.shape[1], dt, start)
    for place, (label, which) in enumerate(_groups(conditions, len(values)).items()):
        colour = COLOURS[place % len(COLOURS)]
        mean, error = _mean(_running(values[which], smooth))
        ax.fill_between(time, mean - 2 * error, mean + 2 * error, color=colour, alpha=0.25, linewidth=0)
        ax.plot(time, mean, color=colour, linewidth=1, label=label)
        if expected is not None:
            ax.plot(time, _mean(expected[which])[0], color=colour, linewidth=1.5, linestyle="--")
    if conditions is not None:
        ax.legend(fontsize="small", frameon=False)
    ax.set_xlabel("steps" if dt is None else "time (s)")
    ax.set_ylabel("events per bin" if dt is None else "rate (Hz)")
    return ax


def condition_trajectories(
    latents: ArrayLike,
    conditions: Sequence[Any] | None = None,
    *,
    directions: ArrayLike | None = None,
    single: bool = True,
    ax: Axes | None = None,
) -> Axes:
    """Draw the mean path of each condition in two dimensions, from a ring to a dot, its trials thinly behind it.

    Args:
        latents: of a posterior's mean, (trial, time, dim), NaN in padding; one dimension is drawn along time.
        conditions: of each trial, (trial,); all together by default.
        directions: of the two axes, (2, dim); by default the principal components of the conditions' means.
        single: whether single trials are drawn.
        ax: where to draw; default a new figure.

    Raises:
        ValueError: shapes that do not go together.
    """
    values = _values("latents", latents, 3)
    groups = _groups(conditions, len(values))
    ax = axes_or_new(ax)
    means = {label: _mean(values[which])[0] for label, which in groups.items()}
    every = np.concatenate(list(means.values()))
    middle = np.nanmean(every, 0)
    flat = values.shape[-1] == 1
    if directions is None:
        axes = np.eye(1) if flat else leading_directions((every - middle)[np.isfinite(every).all(1)])
    else:
        axes = _values("directions", directions, 2)
        if axes.shape != (2, values.shape[-1]):
            raise ValueError(f"directions: expected (2, {values.shape[-1]}); found {axes.shape}")

    def path(points: Array) -> tuple[Array, Array]:
        placed = (points - middle) @ axes.T
        return (np.arange(len(placed), dtype=float), placed[:, 0]) if flat else (placed[:, 0], placed[:, 1])

    for place, (label, which) in enumerate(groups.items()):
        colour = COLOURS[place % len(COLOURS)]
        for trial in values[which] if single else ():
            ax.plot(*path(trial), color=colour, linewidth=0.5, alpha=0.25, zorder=1)
        x, y = path(means[label])
        seen = np.flatnonzero(np.isfinite(x) & np.isfinite(y))
        ax.plot(x, y, color=colour, linewidth=2, label=label, zorder=2)
        if len(seen):
            ax.plot(x[seen[0]], y[seen[0]], "o", color=colour, markerfacecolor="white", zorder=3)
            ax.plot(x[seen[-1]], y[seen[-1]], "o", color=colour, zorder=3)
    if conditions is not None:
        ax.legend(fontsize="small", frameon=False)
    if flat:
        ax.set_xlabel("steps")
        ax.set_ylabel("latent")
    else:
        name_dimensions(ax)
    return ax


def inferred_inputs(
    innovations: ArrayLike,
    conditions: Sequence[Any] | None = None,
    *,
    dim: int = 0,
    dt: float | None = None,
    start: float = 0.0,
    ax: Axes | None = None,
) -> Axes:
    """Draw one dimension of the inputs that a posterior inferred: means over trials and draws, with their errors.

    Args:
        innovations: draws, (sample, trial, time, dim), as `posterior.latents()["innovations"]`, NaN in padding.
        conditions: of each trial, (trial,); all together by default.
        dim: which one.
        dt: seconds per step; None for an axis in steps.
        start: time of the first step, seconds or steps.
        ax: where to draw; default a new figure.

    Raises:
        ValueError: shapes that do not go together, or no such dimension.
    """
    values = _values("innovations", innovations, 4)
    if not 0 <= dim < values.shape[-1]:
        raise ValueError(f"dim: expected 0 to {values.shape[-1] - 1}; found {dim}")
    ax, time = axes_or_new(ax), _time(values.shape[2], dt, start)
    ax.axhline(0.0, color="0.7", linewidth=0.8)
    for place, (label, which) in enumerate(_groups(conditions, values.shape[1]).items()):
        colour = COLOURS[place % len(COLOURS)]
        mean, error = _mean(values[:, which, :, dim].mean(0))
        ax.fill_between(time, mean - 2 * error, mean + 2 * error, color=colour, alpha=0.25, linewidth=0)
        ax.plot(time, mean, color=colour, linewidth=1.2, label=label)
    if conditions is not None:
        ax.legend(fontsize="small", frameon=False)
    ax.set_xlabel("steps" if dt is None else "time (s)")
    ax.set_ylabel(f"inferred input {dim}")
    return ax


def _values(name: str, given: ArrayLike, axes: int) -> Array:
    values = np.asarray(given, float)
    if values.ndim != axes or 0 in values.shape:
        raise ValueError(f"{name}: expected {axes} axes, none of them empty; found the shape {values.shape}")
    return values


def _groups(conditions: Sequence[Any] | None, number: int) -> dict[str, NDArray[np.int64]]:
    """Return the trials of each condition, in the order of their names."""
    if conditions is None:
        return {"all": np.arange(number)}
    labels = np.asarray(conditions)
    if labels.shape != (number,):
        raise ValueError(f"conditions: expected one for each of {number} trials; found the shape {labels.shape}")
    return {str(label): np.flatnonzero(labels == label) for label in np.unique(labels)}


def _mean(values: Array) -> tuple[Array, Array]:
    """Return mean and standard error over the first axis, of what was recorded; NaN where nothing was."""
    seen = np.isfinite(values)
    number = np.where(seen.any(0), seen.sum(0), np.nan)
    mean = np.where(seen, values, 0.0).sum(0) / number
    square = np.where(seen, (values - mean) ** 2, 0.0).sum(0) / np.maximum(number - 1, 1)
    return mean, np.sqrt(square / number)


def _running(values: Array, width: int) -> Array:
    """Return a running mean along the last axis, over fewer bins at its ends."""
    ones = np.convolve(np.ones(values.shape[1]), np.ones(width), "same")
    return values if width == 1 else np.stack([np.convolve(row, np.ones(width), "same") / ones for row in values])


def _time(number: int, dt: float | None, start: float) -> Array:
    return start + np.arange(number, dtype=np.float64) * step_length(dt)
