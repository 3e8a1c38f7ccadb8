"""How far predictions are off, and how often their bands hold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

import latentrnn as lr
from examples.simulate import Array

ENDS = 1.645  # of 90% bands of a normal distribution


class Bands(NamedTuple):
    """Means and 90% bands of held-out batches, and what was measured, NaN where nothing was; (batch, time, channel)."""

    low: Array
    mean: Array
    high: Array
    measured: Array

    @property
    def error(self) -> Array:
        """Root mean squared error, (channel,)."""
        return np.asarray(np.sqrt(np.nanmean((self.mean - self.measured) ** 2, (0, 1))))

    def holds(self, part: slice = slice(None)) -> float:
        """Return the share of what was measured that lies inside, of some steps."""
        low, high, measured = (each[:, part] for each in (self.low, self.high, self.measured))
        return float(((low < measured) & (measured < high))[np.isfinite(measured)].mean())

    def by_batch(self) -> Array:
        """Return the share of each batch, (batch,)."""
        inside = np.where(np.isfinite(self.measured), (self.low < self.measured) & (self.measured < self.high), np.nan)
        return np.asarray(np.nanmean(inside, (1, 2)))

    @property
    def width(self) -> float:
        """Mean width of the bands, where something was measured."""
        return float(np.nanmean((self.high - self.low)[np.isfinite(self.measured)]))


def measured(data: lr.SequenceData, head: str) -> Array:
    """Return what was measured of a head, NaN elsewhere; of one value per batch as a single step."""
    values = data.observations[head].double().numpy()
    found = np.where(data.masks[head].numpy(), values, np.nan)
    return found if found.ndim == 3 else found[:, None]


def of_draws(draws: Array, seen: Array) -> Bands:
    """Bands of draws, (draw, batch, time, channel), where `seen` is what was measured."""
    low, high = np.quantile(draws, [0.05, 0.95], axis=0)
    return Bands(low, draws.mean(0), high, seen)


def of_normal(mean: Array, spread: Array, seen: Array) -> Bands:
    """Bands of a mean and a standard deviation."""
    return Bands(mean - ENDS * spread, mean, mean + ENDS * spread, seen)


def together(parts: Sequence[Bands]) -> Bands:
    """Bands of all batches of several folds; shorter ones end in NaN."""
    steps = max(part.mean.shape[1] for part in parts)

    def padded(values: Array) -> Array:
        return np.pad(values, ((0, 0), (0, steps - values.shape[1]), (0, 0)), constant_values=np.nan)

    columns = (np.concatenate([padded(values) for values in column]) for column in zip(*parts, strict=True))
    return Bands(*columns)


def folds(data: lr.SequenceData, number: int) -> list[tuple[lr.SequenceData, lr.SequenceData, lr.SequenceData]]:
    """Every batch is predicted once; a sixth of the others ends the fit: training, validation and test batches."""
    found = []
    for part in np.array_split(np.random.default_rng(0).permutation(len(data)), number):
        test = data[np.sort(part).tolist()]
        rest = data.without(test)
        end = rest[list(range(0, len(rest), 6))]
        found.append((rest.without(end), end, test))
    return found


def listed(bands: Bands | None, names: Sequence[str]) -> str:
    """Return errors of every channel, in thousandths, and how often bands hold, in words."""
    if bands is None:
        return "not asked"
    errors = ", ".join(f"{name} {1000 * error:.0f}" for name, error in zip(names, bands.error, strict=True))
    batches = f"{len(bands.mean)} batches, least of one {bands.by_batch().min():.2f}"
    return f"off by {errors}, bands hold {bands.holds():.2f} ({batches}), width {1000 * bands.width:.0f}"
