"""What users hold (arrays of any kind, ragged lists) as one numpy array per sequence, with every surprise named."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from latentrnn.data.ingest.axes import Named, by_name
from latentrnn.data.ingest.plain_numbers import Array, is_frame, to_numpy
from latentrnn.data.ingest.seconds import EXACT, to_seconds
from latentrnn.support.shown import first_entry


def read_steps(where: str, value: Any, last: str) -> list[Array]:
    """One (time, `last`) array per sequence, from a (sequence, time, `last`) array or a list of (time_i, `last`).

    Raises:
        TypeError: when the values are not real numbers.
        ValueError: when axes are missing, there is no sequence, or the size of `last` varies or is zero.
    """
    shape = f"(sequence, time, {last})"
    if isinstance(value, list | tuple):
        arrays = [to_numpy(f"{where}, sequence {index}", item) for index, item in enumerate(value)]
        for index, array in enumerate(arrays):
            if array.ndim != 2:
                raise ValueError(
                    f"{where}: expected a (time, {last}) array for each sequence, found shape {array.shape} at "
                    f"sequence {index}"
                    + (f"; write {_as_column(value[index])} for one {last}" if array.ndim == 1 else "")
                )
    else:
        array = to_numpy(where, value)
        if array.ndim != 3:
            hint = f"; write x[..., None] for one {last}, or x[None] for one sequence" if array.ndim == 2 else ""
            if array.ndim == 2:
                what = "one value" if last == "channel" else "values that stay as they are all along, one row"
                hint = "; write [x] for one sequence" if is_frame(value) else hint
                hint += f", or name it in per_sequence= when it holds {what} per sequence"
            raise ValueError(
                f"{where}: expected an array {shape} or a list of (time, {last}), found shape {array.shape}{hint}"
            )
        arrays = list(array)
    if not arrays:
        raise ValueError(f"{where}: expected at least one sequence, found none")
    size = arrays[0].shape[1]
    for index, array in enumerate(arrays):
        if array.shape[1] != size:
            raise ValueError(
                f"{where}: expected {size} {last}s as at sequence 0, found {array.shape[1]} at sequence {index}"
            )
    if size == 0:
        raise ValueError(f"{where}: expected at least one {last}, found shape {arrays[0].shape} at sequence 0")
    return arrays


def read_rows(where: str, value: Any, last: str = "channel") -> Array:
    """One (`last`,) row per sequence, from a (sequence, `last`) array."""
    array = to_numpy(where, value)
    if array.ndim != 2:
        hint = f"; write x[:, None] for one {last}" if array.ndim == 1 else ""
        raise ValueError(f"{where}: expected an array (sequence, {last}), found shape {array.shape}{hint}")
    for axis, size in zip(("sequence", last), array.shape, strict=True):
        if size == 0:
            raise ValueError(f"{where}: expected at least one {axis}, found shape {array.shape}")
    return array


def read_values(where: str, name: str, value: Any, per_sequence: bool, last: str) -> tuple[Named, list[Array]]:
    """One (time, `last`) array per sequence, of a single row where there is one value per sequence, and their names."""
    named = by_name(where, name, value, ("sequence", "channel") if per_sequence else ("sequence", "time", "channel"))
    if per_sequence:
        return named, [row[None] for row in read_rows(where, named.values, last)]
    return named, read_steps(where, named.values, last)


def read_vectors(where: str, value: Any, read: Callable[[str, Any], Array] = to_numpy) -> list[Array]:
    """One (time,) array per sequence, from a (sequence, time) array or a list of (time_i,), each read by `read`."""
    if isinstance(value, list | tuple):
        arrays = [read(f"{where}, sequence {index}", item) for index, item in enumerate(value)]
    else:
        array = read(where, value)
        if array.ndim != 2:
            raise ValueError(
                f"{where}: expected an array (sequence, time) or a list of (time,), found shape {array.shape}"
                + ("; write [x] for one sequence" if array.ndim == 1 else "")
            )
        arrays = list(array)
    for index, array in enumerate(arrays):
        if array.ndim != 1:
            raise ValueError(f"{where}: expected (time,) for each sequence, found {array.shape} at sequence {index}")
    return arrays


def read_seconds(where: str, value: Any) -> list[Array]:
    """Seconds (time,) of every sequence, from (sequence, time) or a list of (time_i,) of any unit of time."""
    return read_vectors(where, value, lambda place, times: to_seconds(place, times).values)


def read_dt(dt: Any) -> float | None:
    """Seconds per base step, or None for unit steps; a duration with a unit of time is converted.

    Raises:
        TypeError: not a number.
        ValueError: not positive, or not finite.
    """
    if dt is None:
        return None
    if isinstance(dt, bool | np.bool_ | str | bytes | list | tuple | dict):
        raise TypeError(f"dt: expected a number of seconds, found {dt!r}")
    found = to_seconds("dt", dt)
    if found.values.shape != () or found.dates:
        raise TypeError(f"dt: expected a number of seconds, found {'a date' if found.dates else repr(dt)}")
    seconds = float(found.values)
    if not (math.isfinite(seconds) and seconds > 0):
        raise ValueError(f"dt: expected a positive, finite number of seconds, found {dt!r}")
    # a decimal in single precision is that decimal: 0.001 in float32 is off by 5e-8, half a bin in ten million
    return float(str(np.float32(seconds))) if found.rounding > EXACT and np.float32(seconds) == seconds else seconds


def _as_column(value: Any) -> str:
    return "x.to_frame()" if hasattr(value, "to_frame") else "x[:, None]"


def refuse(where: str, bad: Array, expected: str, values: Array, sequence: int | None = None) -> None:
    """Raise a ValueError at the first True entry of `bad`, which is (time, channel), (time,) or (sequence, channel)."""
    if not bad.any():
        return
    index, place = first_entry(bad, ("sequence", "channel") if sequence is None else ("step", "channel"))
    place = place if sequence is None else f"sequence {sequence}, {place}"
    raise ValueError(f"{where}: expected {expected}, found {values[index]} at {place}")
