"""Plots of ranks, coverage and probability integral transforms against what a right posterior gives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from torch import Tensor

from latentrnn.plotting.axes import axes_or_new

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class Ranks(Protocol):
    """What is drawn of ranks: their empirical distributions, (point, quantity), and the bands of a right posterior."""

    @property
    def names(self) -> Sequence[str]: ...
    @property
    def num_simulations(self) -> int: ...
    @property
    def p_value(self) -> Tensor: ...
    def bands(self, level: float) -> tuple[Tensor, Tensor, Tensor]: ...
    def empirical(self) -> Tensor: ...


class Shares(Protocol):
    """What is drawn of coverage: `rate` (level, quantity) at each `level`, and `bounds` of the counts, (level, 2)."""

    @property
    def names(self) -> Sequence[str]: ...
    @property
    def num_simulations(self) -> int: ...
    @property
    def level(self) -> Tensor: ...
    @property
    def rate(self) -> Tensor: ...
    @property
    def bounds(self) -> Tensor: ...


class Transforms(Protocol):
    """What is drawn of probability integral transforms: `values`, (..., channel), NaN where there is none."""

    @property
    def head(self) -> str: ...
    @property
    def values(self) -> Tensor: ...
    @property
    def leave_one_out(self) -> bool: ...


def rank_ecdf(result: Ranks, *, level: float = 0.95, ax: Axes | None = None) -> Axes:
    """Draw the empirical distribution of the ranks of each quantity, minus the uniform one, within its band.

    Quantities that are improbable at that level are coloured and named.

    Args:
        result: of `latentrnn.simulation_based_calibration`.
        level: probability with which all of a right posterior's line lies inside the band.
        ax: where to draw; default a new figure.
    """
    grid, low, high = result.bands(level)
    lines = result.empirical() - grid[:, None]
    ax = axes_or_new(ax)
    ax.fill_between(grid.tolist(), (low - grid).tolist(), (high - grid).tolist(), color="C0", alpha=0.15, linewidth=0)
    for column, name in enumerate(result.names):
        wrong = float(result.p_value[column]) < 1 - level
        ax.plot(
            grid.tolist(), lines[:, column].tolist(),
            color="C3" if wrong else "0.5", linewidth=1, label=name if wrong else None,
        )  # fmt: skip
    ax.axhline(0, color="0.3", linewidth=0.8)
    ax.set_xlim(0, 1)
    ax.set_xlabel("rank / draws")
    ax.set_ylabel("empirical - uniform")
    ax.set_title(f"{result.num_simulations} simulations, band {level:.0%}", fontsize="medium")
    if any(bool(p < 1 - level) for p in result.p_value):
        ax.legend(fontsize="small", frameon=False)
    return ax


def coverage(result: Shares, *, ax: Axes | None = None) -> Axes:
    """Draw the share of central intervals that held the truth against their nominal level.

    Args:
        result: of `Calibration.coverage`.
        ax: where to draw; default a new figure.
    """
    ax = axes_or_new(ax)
    nominal = result.level.tolist()
    low, high = (result.bounds / result.num_simulations).T.tolist()
    ax.plot([0, 1], [0, 1], color="0.3", linewidth=0.8)
    ax.vlines(nominal, low, high, color="C0", alpha=0.3, linewidth=6)
    for column in range(len(result.names)):
        ax.plot(nominal, result.rate[:, column].tolist(), ".", color="0.3")
    ax.set_xlabel("nominal level")
    ax.set_ylabel("share of intervals with the truth")
    return ax


def pit(result: Transforms, *, channel: int | None = None, bins: int = 20, ax: Axes | None = None) -> Axes:
    """Draw the histogram of probability integral transforms; flat at one if the predictive distribution is right.

    Args:
        result: of `latentrnn.predictive_pit`.
        channel: which one; all together by default.
        bins: of the histogram.
        ax: where to draw; default a new figure.
    """
    ax = axes_or_new(ax)
    values = result.values if channel is None else result.values[..., channel]
    ax.hist(values[~values.isnan()].tolist(), bins=bins, range=(0, 1), density=True, color="0.75")
    ax.axhline(1, color="C0", linewidth=0.8)
    ax.set_xlabel("P(replicate ≤ observed)")
    ax.set_ylabel("density")
    ax.set_title(f"{result.head}{', each sequence left out' if result.leave_one_out else ''}", fontsize="medium")
    return ax
