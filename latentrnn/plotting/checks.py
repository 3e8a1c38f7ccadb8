"""Replicates against the data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from torch import Tensor

from latentrnn.inference.posterior.sample_scores import interval
from latentrnn.plotting.axes import grid_of_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LEAST_RANGE = 1e-9  # of the values: within less, there is no room for bins in floating point


class Discrepancy(Protocol):
    """One statistic of one head: `observed` and `p_value` (*entry,), `replicated` (sample, *entry)."""

    @property
    def head(self) -> str: ...
    @property
    def statistic(self) -> str: ...
    @property
    def labels(self) -> Sequence[str]: ...
    @property
    def observed(self) -> Tensor: ...
    @property
    def replicated(self) -> Tensor: ...
    @property
    def p_value(self) -> Tensor: ...


class Check(Protocol):
    """What is drawn of a predictive check: its statistics, and its p-values by head."""

    @property
    def discrepancies(self) -> Sequence[Discrepancy]: ...
    @property
    def p_values(self) -> Mapping[str, Any]: ...


def predictive_check(check: Check, *, head: str | None = None, axes: Sequence[Axes] | None = None) -> list[Axes]:
    """Draw one panel per statistic: a histogram of the replicates for one entry, intervals for several.

    Args:
        check: outcome of a predictive check.
        head: draw this head only; default all.
        axes: one per statistic; default a new figure.

    Returns:
        The Axes, one per statistic.

    Raises:
        ValueError: for an unknown head, or the wrong number of axes.
    """
    shown = [item for item in check.discrepancies if head in (None, item.head)]
    if not shown:
        raise ValueError(f"head: no head {head!r} in the check; it has {sorted(check.p_values)}")
    panels = grid_of_axes(len(shown)) if axes is None else list(axes)
    if len(panels) != len(shown):
        raise ValueError(f"axes: expected {len(shown)}, one per statistic, got {len(panels)}")
    several = len(check.p_values) > 1
    for ax, item in zip(panels, shown, strict=True):
        if item.observed.numel() == 1:
            _histogram(ax, item)
        else:
            _intervals(ax, item)
        smallest = float(item.p_value.min())
        title = f"{item.head}: {item.statistic}" if several else item.statistic
        ax.set_title(f"{title}  (p{' ≥' if item.observed.numel() > 1 else ' ='} {smallest:.2g})", fontsize="medium")
    panels[0].legend(fontsize="small", frameon=False)
    return panels


def _histogram(ax: Axes, item: Discrepancy) -> None:
    samples = item.replicated.flatten()
    samples = samples[samples.isfinite()]
    if samples.numel():
        ax.hist(samples.tolist(), bins=_edges(samples), color="0.75", label="replicates")
    observed = float(item.observed)
    if observed == observed:
        ax.axvline(observed, color="C3", label="observed")
    ax.set_xlabel(item.statistic)
    ax.set_yticks([])


def _edges(samples: Tensor) -> list[float]:
    """Return the edges of 30 bins; of one, where rounding alone tells the samples apart."""
    low, high = float(samples.min()), float(samples.max())
    if high - low > LEAST_RANGE * max(abs(low), abs(high)):
        return np.linspace(low, high, 31).tolist()
    margin = 0.5 * max(abs(low), abs(high)) or 0.5
    return [low - margin, high + margin]


def _intervals(ax: Axes, item: Discrepancy) -> None:
    """One line per entry, in the order of what was observed."""
    observed = item.observed.flatten()
    order = observed.argsort()
    columns = item.replicated.reshape(item.replicated.shape[0], -1)[:, order].T
    low, middle, high = zip(*(interval(samples) for samples in columns), strict=True)
    position = range(len(order))
    ax.vlines(position, low, high, color="0.75", linewidth=3, label="replicates, 90%")
    ax.plot(position, middle, ".", color="0.45")
    ax.plot(position, observed[order].tolist(), "_", color="C3", markersize=8, label="observed")
    ax.set_ylabel(item.statistic)
    if len(order) <= 12:
        ax.set_xticks(list(position), [item.labels[i] for i in order.tolist()], rotation=90)
    else:
        ax.set_xlabel("entries, in the order of the observed value")
        ax.set_xticks([])
