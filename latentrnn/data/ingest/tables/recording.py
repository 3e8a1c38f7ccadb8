"""Time series of pynapple, cut into trials and binned, as the arguments of `from_arrays`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from latentrnn.data.ingest.seconds import read_dt
from latentrnn.data.ingest.spikes import ROUNDING, count_spikes
from latentrnn.data.ingest.tables.table import FromTable


class Trials(NamedTuple):
    """Stretches of a recording, each a whole number of bins.

    Attributes:
        starts: seconds, (sequence,).
        bins: how many each has.
        metadata: what the intervals know of themselves, by name.
    """

    starts: NDArray[np.float64]
    bins: list[int]
    metadata: dict[str, Any]


def read_recording(observations: Any, covariates: Any, *, trials: Any, dt: Any) -> FromTable:
    """Return the arguments of `from_arrays` that a recording holds; those here are of `SequenceData.from_pynapple`.

    Raises:
        TypeError: something is no object of pynapple.
        ValueError: a trial is shorter than a bin, or a covariate does not last as long.
    """
    heads, inputs = _named("observations", observations), _named("covariates", covariates)
    if not heads:
        raise ValueError("observations: expected at least one head, found none")
    if dt is None:
        raise TypeError("dt: expected a number of seconds per bin, found None")
    width = read_dt(dt)
    whole = next(iter(heads.values())).time_support if trials is None else trials
    cut = _read_trials(whole, width)
    counted = {name: series for name, series in heads.items() if _has_spikes(series)}
    sampled = {name: series for name, series in heads.items() if name not in counted}
    found = {name: _counts(series, cut, width) for name, series in counted.items()}
    found |= {name: _averages(f"observations[{name!r}]", series, cut, width) for name, series in sampled.items()}
    given = {
        name: _averages(f"covariates[{name!r}]", series, cut, width, complete=True) for name, series in inputs.items()
    }
    arrays = {
        "observations": {name: found[name][0] for name in heads},
        "covariates": {name: values for name, (values, _) in given.items()},
        "dt": width,
        "channel_names": {name: found[name][1] for name in heads},
        "feature_names": {name: names for name, (_, names) in given.items()},
        "metadata": {"start": cut.starts, **cut.metadata},
    }
    return FromTable(arrays, {}, None)


def _named(option: str, given: Any) -> dict[str, Any]:
    if given is None:
        return {}
    if not isinstance(given, Mapping) or hasattr(given, "time_support"):  # a TsGroup is a mapping, too
        raise TypeError(f"{option}: expected a dict of name to time series of pynapple, found {type(given).__name__}")
    for name, series in given.items():
        if not hasattr(series, "time_support"):
            raise TypeError(
                f"{option}[{name!r}]: expected a time series of pynapple (TsGroup, Ts, Tsd, TsdFrame), found "
                f"{type(series).__name__}"
            )
        if option == "covariates" and _has_spikes(series):
            raise TypeError(
                f"covariates[{name!r}]: expected values in time (Tsd, TsdFrame), found {type(series).__name__}"
            )
    return dict(given)


def _has_spikes(series: Any) -> bool:
    """Whether it has times alone: the spikes of units, or of one."""
    return isinstance(series, Mapping) or not hasattr(series, "d")


def _read_trials(trials: Any, width: float) -> Trials:
    if not hasattr(trials, "start") or not hasattr(trials, "end"):
        raise TypeError(f"trials: expected intervals of pynapple (IntervalSet), found {type(trials).__name__}")
    starts = np.asarray(trials.start, np.float64)
    bins = [math.floor(span / width + ROUNDING) for span in (np.asarray(trials.end, np.float64) - starts).tolist()]
    if not bins:
        raise ValueError("trials: expected at least one interval, found none")
    for index, number in enumerate(bins):
        if number < 1:
            span = float(trials.end[index] - starts[index])
            raise ValueError(f"trials: expected at least one bin of {width:g} s in each, found {span:g} s at {index}")
    known = getattr(trials, "metadata", None)
    columns = [] if known is None else [name for name in known.columns if name != "start"]
    return Trials(starts, bins, {str(name): known[name].to_numpy() for name in columns})  # type: ignore[index]


def _counts(series: Any, trials: Trials, width: float) -> tuple[list[NDArray[Any]], list[str]]:
    units = dict(series.items()) if isinstance(series, Mapping) else {"0": series}
    times = [np.asarray(unit.t, np.float64) for unit in units.values()]
    durations = [number * width for number in trials.bins]
    inside = [
        [seconds[(seconds >= start) & (seconds < start + duration)] for seconds in times]
        for start, duration in zip(trials.starts.tolist(), durations, strict=True)
    ]
    counts, _ = count_spikes(inside, dt=width, duration=durations, start=trials.starts, channel_names=None)
    return list(counts), [str(name) for name in units]


def _averages(
    where: str, series: Any, trials: Trials, width: float, *, complete: bool = False
) -> tuple[list[NDArray[np.float64]], list[str]]:
    """The mean of what was sampled in each bin; NaN, or in between its neighbours, where nothing was."""
    seconds, values = np.asarray(series.t, np.float64), np.asarray(series.d, np.float64)
    if values.ndim > 2:
        raise ValueError(f"{where}: expected values (time,) or (time, channel), found shape {values.shape}")
    values = values.reshape(len(seconds), -1)
    names = [str(name) for name in getattr(series, "columns", range(values.shape[1]))]
    found = []
    for index, (start, number) in enumerate(zip(trials.starts.tolist(), trials.bins, strict=True)):
        first, last = np.searchsorted(seconds, (start - ROUNDING * width, start + number * width - ROUNDING * width))
        place = np.floor((seconds[first:last] - start) / width + ROUNDING).astype(np.int64).clip(0, number - 1)
        count = np.bincount(place, minlength=number)
        sums = np.stack([np.bincount(place, column, minlength=number) for column in values[first:last].T], 1)
        with np.errstate(invalid="ignore"):
            average = sums / np.where(count, count, np.nan)[:, None]
        if complete and not count.all():
            average = _between(where, average, seconds, values, start + (np.arange(number) + 0.5) * width, index)
        found.append(average)
    return found, names


def _between(
    where: str,
    average: NDArray[np.float64],
    seconds: NDArray[np.float64],
    values: NDArray[np.float64],
    centres: NDArray[np.float64],
    index: int,
) -> NDArray[np.float64]:
    empty = np.isnan(average).all(1)
    if not len(seconds) or centres[empty][0] < seconds[0] or centres[empty][-1] > seconds[-1]:
        raise ValueError(
            f"{where}: expected samples all through the trial, found none at {centres[empty][0]:g} s, in trial {index}"
        )
    for column in range(values.shape[1]):
        average[empty, column] = np.interp(centres[empty], seconds, values[:, column])
    return average
