"""Rescaled intervals against the uniform distribution, and stated probabilities against what happened."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from torch import Tensor

from latentrnn.plotting.axes import axes_or_new

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class Rescaled(Protocol):
    """What is drawn of a time-rescaling test: `rescaled` intervals by channel, and bounds, (channel,)."""

    @property
    def head(self) -> str: ...
    @property
    def rescaled(self) -> Sequence[Tensor]: ...
    @property
    def bound_95(self) -> Tensor: ...
    @property
    def within_95(self) -> Tensor: ...


class Binned(Protocol):
    """What is drawn of stated probabilities: their means, and shares to which it happened, (bin,) each."""

    @property
    def stated(self) -> Tensor: ...
    @property
    def happened(self) -> Tensor: ...
    @property
    def low(self) -> Tensor: ...
    @property
    def high(self) -> Tensor: ...


def reliability(result: Binned, *, ax: Axes | None = None) -> Axes:
    """Draw how often it happened against the probability that was stated, with 90% intervals, and the diagonal.

    Args:
        result: outcome of `latentrnn.reliability`.
        ax: where to draw; default a new figure.
    """
    ax = axes_or_new(ax)
    ax.plot([0, 1], [0, 1], color="0.6", linewidth=0.8, label="calibrated")
    middle = result.happened
    errors = [(middle - result.low).clamp(min=0).tolist(), (result.high - middle).clamp(min=0).tolist()]
    ax.errorbar(result.stated.tolist(), middle.tolist(), errors, fmt="o", markersize=4, capsize=2, label="90% interval")
    ax.set_xlim(0, 1)
    ax.set_ylim(0, 1)
    ax.set_xlabel("stated probability")
    ax.set_ylabel("share to which it happened")
    ax.legend(fontsize="small", frameon=False)
    return ax


def time_rescaling(result: Rescaled, *, ax: Axes | None = None) -> Axes:
    """Draw the empirical against the uniform distribution of the rescaled intervals, minus the uniform.

    Each channel is a line, scaled so that its own 95% bound is at 1 and one band serves all channels.

    Args:
        result: outcome of `latentrnn.time_rescaling`.
        ax: where to draw; default a new figure.
    """
    ax = axes_or_new(ax)
    for index, z in enumerate(result.rescaled):
        if not z.numel():
            continue
        ordered = z.sort().values
        number = z.numel()
        bound = float(result.bound_95[index])
        # the empirical distribution steps up at each z: both ends of the step are drawn
        below = [(i / number - value) / bound for i, value in enumerate(ordered.tolist())]
        above = [((i + 1) / number - value) / bound for i, value in enumerate(ordered.tolist())]
        x = [0.0, *(value for value in ordered.tolist() for _ in range(2)), 1.0]
        y = [0.0, *(value for pair in zip(below, above, strict=True) for value in pair), 0.0]
        inside = bool(result.within_95[index])
        ax.plot(x, y, color="0.5" if inside else "C3", linewidth=1, label=None if inside else f"channel {index}")
    ax.axhspan(-1, 1, color="C0", alpha=0.15, linewidth=0, label="95% bound")
    ax.axhline(0, color="0.3", linewidth=0.8)
    ax.set_xlim(0, 1)
    ax.set_xlabel("uniform quantile")
    ax.set_ylabel("(empirical - uniform) / 95% bound")
    ax.set_title(f"time rescaling, {result.head}", fontsize="medium")
    ax.legend(fontsize="small", frameon=False)
    return ax
