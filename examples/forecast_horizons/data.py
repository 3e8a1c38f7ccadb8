"""Series in a CSV file, a row for each value, and three ways of laying them out for a model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

import latentrnn as lr
from examples.simulate import Array


def written(values: Array, file: Path) -> pd.DataFrame:
    """Write series, (series, time, 1), as a table of `series`, `step` and `y`, and read it."""
    number, steps = values.shape[:2]
    series, step = np.divmod(np.arange(number * steps), steps)
    pd.DataFrame({"series": series, "step": step, "y": np.round(values.ravel(), 5)}).to_csv(file, index=False)
    return pd.read_csv(file)


def as_series(table: pd.DataFrame) -> lr.SequenceData:
    """For a model that goes on from its own samples: the series as they are."""
    return lr.SequenceData.from_dataframe(table, {"y": "y"}, time="step", group="series", dt=1.0)


def as_pairs(table: pd.DataFrame, horizons: Sequence[int]) -> lr.SequenceData:
    """For direct forecasts: what comes after so many steps, a channel for each, where that is known, given the series.

    Steps of which nothing is known ahead stay: they are where forecasts begin.
    """
    ahead = {f"after {h}": table.groupby("series")["y"].shift(-h) for h in horizons}
    return lr.SequenceData.from_dataframe(
        table.assign(**ahead), {"ahead": list(ahead)}, {"past": "y"}, time="step", group="series", dt=1.0
    )


def as_windows(table: pd.DataFrame, past: int, horizon: int, every: int) -> lr.SequenceData:
    """For an encoder and a decoder: windows whose first `past` steps are the source and whose others are to be told.

    Windows begin `every` so many steps, the last one at the end of each series.
    """
    last = table.groupby("series")["step"].transform("max") + 1 - past - horizon
    found = []
    for start in range(int(last.min()), -1, -every):
        place = table["step"] - start
        part = table[place.between(0, past + horizon - 1)].assign(start=start, place=place)
        known = part["place"] < past
        found.append(part.assign(past=part["y"].where(known, 0.0), known=known.astype(float), y=part["y"].mask(known)))
    heads, covariates = {"y": "y"}, {"past": "past", "known": "known"}
    return lr.SequenceData.from_dataframe(
        pd.concat(found), heads, covariates, time="place", group=["series", "start"], dt=1.0
    )


def as_last_windows(table: pd.DataFrame, past: int, horizon: int) -> lr.SequenceData:
    """For the same after a fit: one window of each series, whose source is its end, with what comes unknown."""
    ends = table.groupby("series", as_index=False)["step"].max()
    after = ends.merge(pd.DataFrame({"later": range(1, horizon + 1)}), how="cross")
    after["step"] += after.pop("later")
    longer = pd.concat([table, after], ignore_index=True)
    return as_windows(longer, past, horizon, every=int(longer["step"].max()) + 1)
