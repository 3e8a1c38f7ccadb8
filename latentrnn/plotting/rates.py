"""Spikes and rates of one sequence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from latentrnn.inference.posterior.sample_scores import quantiles
from latentrnn.plotting.axes import axes_or_new
from latentrnn.support.clock import step_length

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_NAMES = 30  # of channels on one axis


def raster(counts: Tensor, *, dt: float | None = None, start: float = 0.0, ax: Axes | None = None) -> Axes:
    """Draw one row of ticks per channel, one tick per bin with events.

    Args:
        counts: `(time, channel)`.
        dt: seconds per step; None for an axis in steps.
        start: time of the first step, seconds or steps.
        ax: where to draw; default a new figure.
    """
    if counts.dim() != 2:
        raise ValueError(f"counts: expected (time, channel) of one sequence, got {tuple(counts.shape)}")
    ax = axes_or_new(ax)
    time = _time(counts.shape[0], dt, start)
    rows = [time[counts[:, channel] > 0].tolist() for channel in range(counts.shape[1])]
    # explicit offsets: with one row matplotlib would draw it at one, outside the axis
    ax.eventplot(rows, lineoffsets=list(range(len(rows))), colors="0.2", linelengths=0.8, linewidths=0.8)
    ax.set_ylim(-0.5, counts.shape[1] - 0.5)
    ax.set_ylabel("channel")
    ax.set_xlabel("steps" if dt is None else "time (s)")
    return ax


def rates(
    samples: Tensor,
    *,
    channel: int = 0,
    dt: float | None = None,
    start: float = 0.0,
    level: float = 0.9,
    label: str | None = None,
    color: str = "C0",
    ax: Axes | None = None,
) -> Axes:
    """Draw the posterior mean of a channel's rate with its pointwise band.

    Args:
        samples: expected count per bin, `(sample, time, channel)`, one sequence of `posterior.rates(head)`.
        channel: which one.
        dt: seconds per step, which turns counts per bin into events per second; None keeps them.
        start: time of the first step, seconds or steps.
        level: mass of the band.
        label: for the legend.
        color: of line and band.
        ax: where to draw; default a new figure.
    """
    if samples.dim() != 3:
        raise ValueError(f"samples: expected (sample, time, channel) of one sequence, got {tuple(samples.shape)}")
    if not 0 < level < 1:
        raise ValueError(f"level: expected between 0 and 1, got {level}")
    ax = axes_or_new(ax)
    chosen = samples[..., channel].to(torch.float64) / step_length(dt)
    time = _time(chosen.shape[1], dt, start).tolist()
    low, high = quantiles(chosen, [(1 - level) / 2, (1 + level) / 2])
    ax.fill_between(time, low.tolist(), high.tolist(), color=color, alpha=0.3, linewidth=0)
    ax.plot(time, chosen.mean(0).tolist(), color=color, linewidth=1, label=label)
    ax.set_xlabel("steps" if dt is None else "time (s)")
    ax.set_ylabel("events per bin" if dt is None else "rate (Hz)")
    return ax


def rate_map(
    rates: Tensor,
    *,
    names: Sequence[str] = (),
    dt: float | None = None,
    start: float = 0.0,
    sort: bool = False,
    ax: Axes | None = None,
) -> Axes:
    """Draw the rates of many channels of one sequence as an image, a row each, with a scale beside it.

    Args:
        rates: expected count per bin, `(time, channel)`, one sequence of `posterior.mean(head)`.
        names: of the channels, written where there are thirty or fewer.
        dt: seconds per step, which turns counts per bin into events per second; None keeps them.
        start: time of the first step, seconds or steps.
        sort: whether channels are in the order of when their rates are highest.
        ax: where to draw; default a new figure.

    Raises:
        ValueError: another number of axes, or not one name for each channel.
    """
    values = torch.as_tensor(rates, dtype=torch.float64)
    if values.dim() != 2:
        raise ValueError(f"rates: expected (time, channel) of one sequence, got {tuple(values.shape)}")
    steps, channels = values.shape
    if names and len(names) != channels:
        raise ValueError(f"names: expected one for each of {channels} channels, got {len(names)}")
    ax = axes_or_new(ax)
    order = values.nan_to_num(-torch.inf).argmax(0).argsort(stable=True) if sort else torch.arange(channels)
    step = step_length(dt)
    image = ax.imshow(
        (values / step)[:, order].T.numpy(),
        aspect="auto",
        interpolation="nearest",
        cmap="cividis",
        extent=(start, start + steps * step, channels - 0.5, -0.5),
    )
    if names and channels <= MOST_NAMES:
        ax.set_yticks(range(channels), [str(names[k]) for k in order.tolist()])
    ax.set_ylabel("channel" if not sort else "channel, by time of peak")
    ax.set_xlabel("steps" if dt is None else "time (s)")
    ax.figure.colorbar(image, ax=ax, label="events per bin" if dt is None else "rate (Hz)")
    return ax


def _time(number: int, dt: float | None, start: float) -> Tensor:
    return start + torch.arange(number, dtype=torch.float64) * step_length(dt)
