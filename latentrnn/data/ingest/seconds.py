"""Times in seconds, from whatever says in which unit they are."""

from __future__ import annotations

import datetime
import math
from typing import Any, NamedTuple

import numpy as np
import torch

from latentrnn.data.ingest.arrays import read_vectors, refuse
from latentrnn.data.ingest.axes import by_name
from latentrnn.data.ingest.plain_numbers import Array, is_quantity, magnitude, to_numpy, unit_of

# how files (CF conventions) and people write units of time
SECONDS = {
    **dict.fromkeys(("s", "sec", "secs", "second", "seconds"), 1.0),
    **dict.fromkeys(("ms", "msec", "millisecond", "milliseconds"), 1e-3),
    **dict.fromkeys(("us", "µs", "usec", "microsecond", "microseconds"), 1e-6),
    **dict.fromkeys(("ns", "nsec", "nanosecond", "nanoseconds"), 1e-9),
    **dict.fromkeys(("min", "minute", "minutes"), 60.0),
    **dict.fromkeys(("h", "hr", "hour", "hours"), 3600.0),
    **dict.fromkeys(("d", "day", "days"), 86400.0),
}
EXACT = float(np.finfo(np.float64).eps)  # as exact as any time gets here


class Seconds(NamedTuple):
    """Times in seconds, and how exact they are.

    Attributes:
        values: float64; NaN where a date or duration is missing. Dates are seconds since 1970-01-01 00:00 UTC.
        rounding: of the type in which they came, relative to their size: 2.2e-16 in float64, 1.2e-7 in float32.
        dates: whether these are points in time instead of durations.
    """

    values: Array
    rounding: float
    dates: bool


def to_seconds(where: str, value: Any) -> Seconds:
    """Times as seconds; plain numbers are seconds already.

    Args:
        where: what they are, for the error.
        value: numbers, numbers with a unit of time, durations or dates (Python, numpy, pandas, astropy), or lists.

    Raises:
        TypeError: something of another dimension than time, or no numbers.
    """
    if is_quantity(value):
        return _from_quantity(where, value)
    if isinstance(unit := _declared(value), str):
        return _from_file(where, value, unit)
    if hasattr(value, "dims") and hasattr(value, "data"):  # xarray
        return to_seconds(where, value.data)
    if isinstance(value, datetime.timedelta) or _kind(value) == "m":
        return _from_durations(where, value)
    if isinstance(value, datetime.date) or _kind(value) == "M":
        return _from_dates(where, value)
    if hasattr(value, "time_support") and hasattr(value, "t"):  # pynapple keeps the times beside the values
        return Seconds(np.asarray(value.t, np.float64), EXACT, False)
    if _kind(value) == "O" and not isinstance(value, list | tuple):
        value = np.asarray(value).tolist()
    if isinstance(value, list | tuple) and _told(value):
        return _stacked(where, [to_seconds(where, item) for item in value])
    array = to_numpy(where, value)
    return Seconds(array.astype(np.float64), _rounding(getattr(value, "dtype", array.dtype)), False)


def read_seconds(where: str, value: Any) -> list[Array]:
    """Seconds (time,) of every sequence, from (sequence, time) or a list of (time_i,) of any unit of time."""
    return read_vectors(where, value, lambda place, times: to_seconds(place, times).values)


def read_times(times: Any) -> list[Array]:
    """Seconds of every step, (time,) for each sequence, increasing; durations with a unit and dates are converted.

    Raises:
        TypeError: neither numbers, durations nor dates.
        ValueError: times that are not finite or do not increase within a sequence, with the place of the first.
    """
    stamps = read_seconds("times", by_name("times", "", times, ("sequence", "time")).values)
    for index, stamp in enumerate(stamps):
        refuse("times", ~np.isfinite(stamp), "finite seconds", stamp, index)
        not_later = np.concatenate([[False], np.diff(stamp) <= 0]) if len(stamp) else np.zeros(0, bool)
        refuse("times", not_later, "times that increase within a sequence", stamp, index)
    return stamps


def read_dt(dt: Any) -> float:
    """Seconds per base step; a duration with a unit of time is converted.

    Raises:
        TypeError: not a number.
        ValueError: not positive, or not finite.
    """
    if isinstance(dt, bool | np.bool_ | str | bytes | list | tuple | dict):
        raise TypeError(f"dt: expected a number of seconds, found {dt!r}")
    found = Seconds(np.asarray(dt, np.float64), EXACT, False) if isinstance(dt, float) else to_seconds("dt", dt)
    if found.values.shape != () or found.dates:
        raise TypeError(f"dt: expected a number of seconds, found {'a date' if found.dates else repr(dt)}")
    seconds = float(found.values)
    if not (math.isfinite(seconds) and seconds > 0):
        raise ValueError(f"dt: expected a positive, finite number of seconds, found {dt!r}")
    # a decimal in single precision is that decimal: 0.001 in float32 is off by 5e-8, half a bin in ten million
    return float(str(np.float32(seconds))) if found.rounding > EXACT and np.float32(seconds) == seconds else seconds


def _declared(value: Any) -> Any:
    """What an array of a file (netCDF, xarray) says that it is in."""
    return value.attrs.get("units") if hasattr(value, "dims") else getattr(value, "units", None)


def _told(values: Any) -> bool:
    """Whether a list, however nested, holds anything that says itself what its numbers mean."""
    for item in values:
        if type(item) in (int, float):
            continue
        if isinstance(item, list | tuple):
            if _told(item):
                return True
        elif _says(item):
            return True
    return False


def _says(item: Any) -> bool:
    timed = isinstance(item, datetime.timedelta | datetime.date) or _kind(item) in ("m", "M")
    return timed or is_quantity(item) or hasattr(item, "dims") or hasattr(item, "time_support")


def _stacked(where: str, parts: list[Seconds]) -> Seconds:
    if len({part.values.shape for part in parts}) > 1:
        raise ValueError(f"{where}: expected a rectangular array, found rows of different lengths")
    if len({part.dates for part in parts}) > 1:
        raise TypeError(f"{where}: expected dates alone or durations alone, found both")
    return Seconds(np.stack([part.values for part in parts]), max(part.rounding for part in parts), parts[0].dates)


def _kind(value: Any) -> str:
    return str(getattr(getattr(value, "dtype", None), "kind", "")) or "-"


def _from_quantity(where: str, value: Any) -> Seconds:
    if hasattr(value, "unix") and hasattr(value, "utc"):  # a Time of astropy
        return Seconds(np.asarray(value.unix, np.float64), EXACT, True)
    if hasattr(value, "sec") and not hasattr(value, "unit"):  # a TimeDelta of astropy
        return Seconds(np.asarray(value.sec, np.float64), EXACT, False)
    try:
        seconds = np.asarray(magnitude(value, "s"), np.float64)
    except Exception:  # each package raises its own
        found = f"{type(value).__name__} in {unit_of(value)}"
        raise TypeError(f"{where}: expected seconds or another unit of time, found {found}") from None
    return Seconds(seconds, _rounding(getattr(value, "dtype", np.float64)), False)


def _from_file(where: str, value: Any, unit: str) -> Seconds:
    if unit.strip() not in SECONDS:
        raise TypeError(
            f"{where}: expected seconds or another unit of time, found numbers whose attribute 'units' is {unit!r}; "
            "convert them to seconds"
        )
    rounding = _rounding(getattr(value, "dtype", np.float64))
    return Seconds(to_numpy(where, value[...]).astype(np.float64) * SECONDS[unit.strip()], rounding, False)


def _from_durations(where: str, value: Any) -> Seconds:
    if isinstance(value, datetime.timedelta):  # pandas' are too, and know nanoseconds
        value = value.to_timedelta64() if hasattr(value, "to_timedelta64") else np.timedelta64(value)
    spans = _filled(value)
    if spans.dtype.kind != "m" or np.datetime_data(spans.dtype)[0] in ("generic", "Y", "M"):
        raise TypeError(f"{where}: expected durations in seconds or another fixed unit, found {spans.dtype}")
    return Seconds(np.asarray(spans / np.timedelta64(1, "s"), np.float64), EXACT, False)


def _from_dates(where: str, value: Any) -> Seconds:
    if isinstance(value, datetime.datetime) and value.tzinfo is not None:
        value = value.astimezone(datetime.UTC).replace(tzinfo=None)
    if isinstance(value, datetime.date):
        value = value.to_datetime64() if hasattr(value, "to_datetime64") else np.datetime64(value)
    elif getattr(value.dtype, "tz", None) is not None:  # an index or a column of pandas
        value = value.dt.tz_convert(None) if hasattr(value, "dt") else value.tz_convert(None)
    dates = _filled(value)
    if dates.dtype.kind != "M":
        raise TypeError(f"{where}: expected dates that numpy knows, found {type(value).__name__}")
    return Seconds(np.asarray((dates - np.datetime64(0, "s")) / np.timedelta64(1, "s")), EXACT, True)


def _filled(value: Any) -> Array:
    return np.ma.filled(value, "NaT") if isinstance(value, np.ma.MaskedArray) else np.asarray(value)


def _rounding(dtype: Any) -> float:
    if isinstance(dtype, torch.dtype):
        return torch.finfo(dtype).eps if dtype.is_floating_point else EXACT
    return float(np.finfo(dtype).eps) if isinstance(dtype, np.dtype) and dtype.kind == "f" else EXACT
