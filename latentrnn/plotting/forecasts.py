"""Forecasts as fans, over steps, seconds or dates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from latentrnn.plotting.axes import COLOURS, axes_or_new

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def forecast_fan(
    samples: ArrayLike,
    times: ArrayLike,
    *,
    past: ArrayLike | None = None,
    past_times: ArrayLike | None = None,
    later: ArrayLike | None = None,
    levels: Sequence[float] = (0.5, 0.9),
    label: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw the median of sampled paths and central intervals about it, the past before and what came in black.

    Args:
        samples: of one channel of one sequence, (sample, frame), as `forecast.samples[head][:, i, :, k]`.
        times: of the frames, (frame,): numbers, or dates, as `forecast.axes[head].dates[i]`.
        past, past_times: what was known, (time,), and when, as `data.dates[i]`.
        later: what came afterwards, (frame,).
        levels: mass of each interval.
        label: of the value, for the axis.
        ax: where to draw; default a new figure.

    Raises:
        ValueError: shapes that do not go together, or a level out of range.
    """
    draws, when = np.asarray(samples, float), np.asarray(times)
    if draws.ndim != 2 or when.shape != draws.shape[1:]:
        raise ValueError(f"samples, times: expected (sample, frame) and (frame,); found {draws.shape}, {when.shape}")
    if not all(0 < level < 1 for level in levels):
        raise ValueError(f"levels: expected numbers between 0 and 1; found {tuple(levels)}")
    if (past is None) != (past_times is None):
        raise ValueError("past, past_times: expected both or neither")
    ax = axes_or_new(ax)
    if past is not None and past_times is not None:
        known, before = np.asarray(past, float), np.asarray(past_times)
        if known.shape != before.shape or known.ndim != 1:
            raise ValueError(f"past, past_times: expected (time,) both; found {known.shape}, {before.shape}")
        ax.plot(before, known, color="0.4", linewidth=1)
    for level in sorted(levels, reverse=True):
        low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2], axis=0)
        ax.fill_between(when, low, high, color=COLOURS[0], alpha=0.25, linewidth=0, label=f"{level:.0%}")
    ax.plot(when, np.median(draws, 0), color=COLOURS[0], linewidth=1.5, label="median")
    if later is not None:
        came = np.asarray(later, float)
        if came.shape != when.shape:
            raise ValueError(f"later: expected (frame,), {when.shape}; found {came.shape}")
        ax.plot(when, came, "k.", markersize=4, label="what came")
    if np.issubdtype(when.dtype, np.datetime64):
        from matplotlib import dates

        locator = dates.AutoDateLocator(minticks=3, maxticks=7)
        ax.xaxis.set_major_locator(locator)
        ax.xaxis.set_major_formatter(dates.ConciseDateFormatter(locator))
    if label is not None:
        ax.set_ylabel(label)
    ax.legend(fontsize="small", frameon=False)
    return ax
