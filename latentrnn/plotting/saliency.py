"""Which steps and symbols a head answers to, and which steps it attends to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from latentrnn.plotting.axes import axes_or_new

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def saliency(
    norm: Any,
    *,
    time: Any = None,
    unit: str = "step",
    level: float = 0.9,
    label: str | None = None,
    color: str = "C0",
    ax: Axes | None = None,
) -> Axes:
    """Draw the share of each step in a saliency, its mean over draws with their pointwise band.

    Args:
        norm: not negative, (sample, time); each draw is divided by its sum over time.
        time: of the steps; by default their numbers.
        unit: of time.
        level: mass of the band.
        label: for the legend.
        color: of line and band.
        ax: where to draw; default a new figure.

    Raises:
        ValueError: another shape, a negative number, or a level outside (0, 1).
    """
    values = np.asarray(norm, dtype=np.float64)
    if values.ndim != 2 or not (values >= 0).all():
        raise ValueError(f"norm: expected numbers (sample, time) that are not negative; found {values.shape}")
    if not 0 < level < 1:
        raise ValueError(f"level: expected between 0 and 1, got {level}")
    ax = axes_or_new(ax)
    share = values / values.sum(1, keepdims=True)
    steps = np.arange(share.shape[1]) if time is None else np.asarray(time)
    low, high = np.quantile(share, [(1 - level) / 2, (1 + level) / 2], axis=0)
    ax.fill_between(steps, low, high, step="mid", color=color, alpha=0.3, linewidth=0)
    ax.step(steps, share.mean(0), where="mid", color=color, linewidth=1.2, label=label)
    ax.axhline(1 / share.shape[1], color="0.6", linewidth=0.8, linestyle=":")  # alike everywhere
    ax.set_ylim(bottom=0)
    ax.set_xlabel("time (s)" if unit == "s" else unit)
    ax.set_ylabel("share of the saliency")
    return ax


def mutagenesis(
    change: Any, *, symbols: Sequence[Any] | None = None, time: Any = None, unit: str = "step", ax: Axes | None = None
) -> Axes:
    """Draw what each symbol at each step would change, as a map with a colour bar.

    Args:
        change: (time, symbol), of one sequence and output, e.g. the mean over draws.
        symbols: names of the symbols; by default their codes.
        time: of the steps; by default their numbers.
        unit: of time.
        ax: where to draw; default a new figure.

    Raises:
        ValueError: another shape, or another number of symbols.
    """
    values = np.asarray(change, dtype=np.float64)
    if values.ndim != 2:
        raise ValueError(f"change: expected (time, symbol) of one sequence and output; found {values.shape}")
    names = [str(name) for name in (range(values.shape[1]) if symbols is None else symbols)]
    if len(names) != values.shape[1]:
        raise ValueError(f"symbols: expected {values.shape[1]} names; found {len(names)}")
    ax = axes_or_new(ax)
    most = float(np.nanmax(np.abs(values), initial=0.0)) or 1.0
    edges = _edges(np.arange(len(values)) if time is None else np.asarray(time, dtype=np.float64))
    rows = np.arange(values.shape[1] + 1) - 0.5
    image = ax.pcolormesh(edges, rows, values.T, cmap="PuOr_r", vmin=-most, vmax=most)
    ax.set_yticks(range(len(names)), names)
    ax.invert_yaxis()
    ax.set_xlabel("time (s)" if unit == "s" else unit)
    ax.figure.colorbar(image, ax=ax, label="change")
    return ax


def attention(weight: Any, *, time: Any = None, source: Any = None, unit: str = "step", ax: Axes | None = None) -> Axes:
    """Draw attention weights as a map: a row for each step, a column for each step that it reads.

    Args:
        weight: (time, source), of one sequence and head of the attention, e.g. the mean over draws; NaN is left white.
        time, source: of the steps; by default their numbers.
        unit: of both.
        ax: where to draw; default a new figure.

    Raises:
        ValueError: another shape.
    """
    values = np.asarray(weight, dtype=np.float64)
    if values.ndim != 2:
        raise ValueError(f"weight: expected (time, source) of one sequence and head; found {values.shape}")
    ax = axes_or_new(ax)
    down, across = (
        _edges(np.arange(size) if given is None else np.asarray(given, dtype=np.float64))
        for size, given in zip(values.shape, (time, source), strict=True)
    )
    image = ax.pcolormesh(across, down, values, cmap="Blues", vmin=0.0)
    ax.invert_yaxis()
    named = "s" if unit == "s" else unit
    ax.set_xlabel(f"reads from ({named})")
    ax.set_ylabel(f"at ({named})")
    ax.figure.colorbar(image, ax=ax, label="weight")
    return ax


def _edges(centres: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return the edges of cells around points in a row."""
    if len(centres) == 1:
        return np.array([centres[0] - 0.5, centres[0] + 0.5])
    between = (centres[1:] + centres[:-1]) / 2
    return np.concatenate([[2 * centres[0] - between[0]], between, [2 * centres[-1] - between[-1]]])
