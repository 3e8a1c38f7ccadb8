"""When the rows of a table were: seconds per step, times of their own, or steps of a calendar."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from latentrnn.data.calendar import Calendar
from latentrnn.data.ingest.seconds import read_dt
from latentrnn.support.shown import shown

if TYPE_CHECKING:
    import pandas

SAMPLINGS = ("regular", "irregular", "rows")
TOLERANCE = 1e-3  # of a step, by which times in files are off that were rounded


@dataclass(frozen=True)
class Clock:
    """The steps of all sequences of a table.

    Attributes:
        places: per sequence the step of every row.
        lengths: steps of each sequence.
        dt: seconds per step; None for unit steps, and for irregular times.
        times: per sequence seconds of every step from its first, where they are irregular; else None.
        calendar: dates of the steps; None where the table has none.
    """

    places: list[NDArray[np.int64]]
    lengths: list[int]
    dt: float | None
    times: list[NDArray[np.float64]] | None
    calendar: Calendar | None


def read_clock(
    columns: list[pandas.Series] | None, counts: list[int], dt: Any, sampling: Any, names: list[str]
) -> Clock:
    """Steps of the rows of every sequence, whose times increase.

    Args:
        columns: per sequence the times of its rows, numbers (seconds), durations or dates; None to count rows.
        counts: rows per sequence.
        dt: seconds per step, a duration ("15min") or steps of a calendar ("MS"); None to find it.
        sampling: "regular", with rows missing where there is no row at a step; "irregular", each row at a time of its
            own; "rows", each row a step whatever its time.
        names: of the sequences, for messages.

    Raises:
        TypeError: `dt` is no time.
        ValueError: rows do not lie on steps of one length.
    """
    if not isinstance(sampling, str) or sampling not in SAMPLINGS:
        raise ValueError(f"sampling: expected one of {SAMPLINGS}, found {shown(sampling)}")
    step, frequency = _read_step(dt)
    if columns is None:
        if frequency is not None or sampling == "irregular":
            raise ValueError(f"time: expected a column of times, found none, with dt={dt!r} and sampling={sampling!r}")
        return Clock([np.arange(count) for count in counts], counts, step, None, None)
    dated = columns[0].dtype.kind == "M"
    seconds = [_since_first(column) for column in columns]
    zone = getattr(columns[0].dtype, "tz", None)
    calendar = _calendar(columns, None if zone is None else str(zone)) if dated else None
    in_rows = [np.arange(count) for count in counts]
    if sampling == "irregular":
        if dt is not None:
            raise ValueError(f'dt: expected none with sampling="irregular", found {dt!r}')
        stamps = seconds if dated else [np.asarray(column.to_numpy(), float) for column in columns]
        return Clock(in_rows, counts, None, stamps, calendar)
    if sampling == "rows":
        return Clock(in_rows, counts, step, None, None if calendar is None else _stamped(calendar, columns))
    if dt is None:
        step = _common_step(seconds)
        if step is None and dated:
            frequency = _common_frequency(columns)
        if step is None and frequency is None and max(counts) > 1:
            raise ValueError(_unequal(seconds, names))
    if frequency is not None:
        if not dated:
            raise ValueError(f"dt: expected a duration, since times are no dates, found {dt!r}")
        places = [_on_calendar(column, frequency, name) for column, name in zip(columns, names, strict=True)]
    elif step is not None:
        places = [_on_grid(found, step, name) for found, name in zip(seconds, names, strict=True)]
    else:
        places = in_rows  # of one row each, which have no step
    lengths = [int(place[-1]) + 1 for place in places]
    if calendar is not None and frequency is not None:
        calendar = Calendar(calendar.origins, calendar.first, frequency, calendar.timezone)
    return Clock(places, lengths, step, None, calendar)


def as_times(where: str, column: pandas.Series) -> pandas.Series:
    """A column of times as numbers, durations or dates; text must be dates that ISO 8601 writes.

    Raises:
        TypeError: the column holds something else.
        ValueError: a time is missing.
    """
    import pandas

    if pandas.api.types.is_bool_dtype(column.dtype):
        raise TypeError(f"{where}: expected seconds, durations or dates, found booleans")
    if not pandas.api.types.is_numeric_dtype(column.dtype) and column.dtype.kind not in "mM":
        try:
            column = pandas.to_datetime(column, format="ISO8601")
        except (ValueError, TypeError):
            example = shown(next(iter(column.dropna()), None))
            raise TypeError(
                f"{where}: expected seconds, durations or dates as ISO 8601 writes them (2024-01-31 18:00), found "
                f"{example}; read them with pandas.to_datetime(frame[{column.name!r}], format=...)"
            ) from None
    if column.isna().any():
        raise ValueError(
            f"{where}: expected a time in every row, found none in row {shown(column.index[column.isna()][0])}"
        )
    return column


def _read_step(dt: Any) -> tuple[float | None, str | None]:
    """Seconds per step, or the name of the steps of a calendar."""
    if not isinstance(dt, str):
        return (None if dt is None else read_dt(dt)), None
    import pandas

    for read in (pandas.Timedelta, lambda text: pandas.Timedelta(pandas.tseries.frequencies.to_offset(text))):
        try:
            return read_dt(read(dt).total_seconds()), None
        except (ValueError, TypeError):
            continue
    try:
        offset = pandas.tseries.frequencies.to_offset(dt)
    except ValueError:
        offset = None
    if offset is None or offset.n < 1:
        raise ValueError(
            'dt: expected seconds, a duration ("15min") or steps of a calendar as pandas calls them ("MS"), found '
            f"{dt!r}"
        )
    return None, str(offset.freqstr)


def _since_first(column: pandas.Series) -> NDArray[np.float64]:
    """Seconds from the first row, exact where dates are."""
    found = column - column.iloc[0]
    found = found.dt.total_seconds() if hasattr(found, "dt") else found
    return np.asarray(found.to_numpy(), np.float64)


def _calendar(columns: list[pandas.Series], timezone: str | None) -> Calendar:
    origins = np.array([_utc(column)[0] for column in columns])
    return Calendar(origins, np.zeros(len(origins), np.int64), None, timezone)


def _stamped(calendar: Calendar, columns: list[pandas.Series]) -> Calendar:
    return Calendar(calendar.origins, calendar.first, None, calendar.timezone, tuple(map(_utc, columns)))


def _utc(column: pandas.Series) -> NDArray[np.datetime64]:
    plain = column.dt.tz_convert(None) if getattr(column.dtype, "tz", None) is not None else column
    return np.asarray(plain.to_numpy().astype("datetime64[ns]"))


def _common_step(seconds: list[NDArray[np.float64]]) -> float | None:
    """The duration between all rows of all sequences, where it is one."""
    gaps = np.concatenate([np.diff(found) for found in seconds])
    if not len(gaps):
        return None
    # over the longest sequence, so that what rounding takes from a step is divided by all of them
    longest = max(seconds, key=len)
    step = float(longest[-1] / (len(longest) - 1))
    return float(f"{step:.9g}") if (np.abs(gaps - step) <= TOLERANCE * step).all() else None


def _common_frequency(columns: list[pandas.Series]) -> str | None:
    """The steps of a calendar that all sequences have."""
    import pandas

    longest = pandas.DatetimeIndex(max(columns, key=len))
    frequency = pandas.infer_freq(longest) if len(longest) > 2 else None
    if frequency is None:
        return None
    for column in columns:
        index = pandas.DatetimeIndex(column)
        if not index.equals(pandas.date_range(index[0], periods=len(index), freq=frequency).as_unit(index.unit)):
            return None
    return str(frequency)


def _on_calendar(column: pandas.Series, frequency: str, name: str) -> NDArray[np.int64]:
    import pandas

    index = pandas.DatetimeIndex(column)
    places = pandas.date_range(index[0], index[-1], freq=frequency).as_unit(index.unit).get_indexer(index)
    if (places < 0).any():
        at = index[int(np.flatnonzero(places < 0)[0])]
        raise ValueError(f"time: expected dates of {frequency!r} from {index[0]} on, found {at} in sequence {name!r}")
    return np.asarray(places, np.int64)


def _on_grid(seconds: NDArray[np.float64], step: float, name: str) -> NDArray[np.int64]:
    places = np.rint(seconds / step)
    off = np.abs(seconds - places * step)
    bad = off > TOLERANCE * step * np.maximum(1.0, places * 1e-6)  # nine digits of a step drift in long files
    if bad.any():
        at = int(np.flatnonzero(bad)[0])
        raise ValueError(
            f"time: expected rows every {step:g} s from the first on, found one {seconds[at]:g} s after it in sequence "
            f'{name!r}; sampling="irregular" keeps a time for each row'
        )
    if (np.diff(places) < 1).any():
        at = int(np.flatnonzero(np.diff(places) < 1)[0]) + 1
        raise ValueError(
            f"time: expected at most one row every {step:g} s, found two {seconds[at]:g} s after the first of sequence "
            f"{name!r}"
        )
    return places.astype(np.int64)


def _unequal(seconds: list[NDArray[np.float64]], names: list[str]) -> str:
    gaps = np.concatenate([np.diff(found) for found in seconds])
    usual = float(np.median(gaps))
    owners = np.concatenate([np.full(max(len(found) - 1, 0), i) for i, found in enumerate(seconds)])
    odd = int(np.argmax(np.abs(gaps - usual)))
    return (
        f"time: expected rows at equal distances, mostly {usual:g} s, found {gaps[odd]:g} s in sequence "
        f"{names[int(owners[odd])]!r}; give dt={usual:g} for steps of that length where rows are missing, "
        'sampling="irregular" for a time of each row, or sampling="rows" to count rows as steps'
    )
