"""Errors of forecasts by horizon, beside the least there can be, a regression, and staying at the last value."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from examples.forecast_horizons.baselines import slopes
from examples.forecast_horizons.data import written
from examples.forecast_horizons.theory import growth
from examples.gallery import ranged
from examples.simulate import Array

Network = Callable[[str, Sequence[pd.DataFrame], int], tuple[Array, Array]]  # way, three tables, seed: mean, variance


class Scores(NamedTuple):
    """Mean squared errors, and variances that networks state, (seed, horizon), by way of forecasting."""

    errors: dict[str, Array]
    stated: dict[str, Array]
    theory: Array  # (horizon,)

    def beyond(self, way: str) -> Array:
        """Return what errors of all horizons are beyond those of the best forecast of the same series, %, (seed,)."""
        return np.asarray(100 * (self.errors[way].mean(1) / self.errors["best"].mean(1) - 1))

    def ratios(self, way: str) -> dict[str, Array]:
        """Return errors and variances stated over those of theory, means of seeds, (horizon,)."""
        both = {"error": self.errors[way], "variance stated": self.stated[way]}
        return {what: each.mean(0) / self.theory for what, each in both.items()}

    def told(self, way: str) -> str:
        """Return the same in words."""
        ends = ", ".join(f"{what} {min(each):.2f} to {max(each):.2f}" for what, each in self.ratios(way).items())
        return f"{way}: {ends} of theory by horizon, {ranged(self.beyond(way), '.1f')}% beyond the best forecast"


def scores(
    simulate: Callable[[int, int, int], Array],
    network: Network,
    ways: Sequence[str],
    seeds: int,
    phi: float,
    length: int,
    ahead: int,
    file: Path,
) -> Scores:
    """Fit every network to 60 series, with 20 to end the fit, and forecast 400 others, as often as there are seeds."""
    horizons = np.arange(1.0, ahead + 1)
    errors: dict[str, list[Array]] = {way: [] for way in (*ways, "regression", "last value", "best")}
    stated: dict[str, list[Array]] = {way: [] for way in ways}
    for seed in range(seeds):
        series = simulate(seed, 60 + 20 + 400, length + ahead)
        known = series[:, :length]
        tables = [written(part, file) for part in np.split(known, [60, 80])]
        last, coming = known[80:, -1], series[80:, length:, 0]
        told = {
            "regression": last * slopes(known[:60], [1]) ** horizons,
            "last value": last,
            "best": last * phi**horizons,
        }
        for way in ways:
            told[way], variance = network(way, tables, seed)
            stated[way].append(variance.mean(0))
        for way, each in told.items():
            errors[way].append(((coming - each) ** 2).mean(0))
    arrays = [{way: np.stack(each) for way, each in found.items()} for found in (errors, stated)]
    return Scores(*arrays, growth(horizons, phi))
