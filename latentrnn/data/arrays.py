"""What users hold (numpy, torch, ragged lists) read as one numpy array per sequence, with every surprise named."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Real
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

Array = NDArray[Any]


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
                    f"sequence {index}" + (f"; write x[:, None] for one {last}" if array.ndim == 1 else "")
                )
    else:
        array = to_numpy(where, value)
        if array.ndim != 3:
            hint = f"; write x[..., None] for one {last}, or x[None] for one sequence" if array.ndim == 2 else ""
            if array.ndim == 2 and last == "channel":
                hint += ", or name it in per_sequence= when it holds one value per sequence"
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


def read_rows(where: str, value: Any) -> Array:
    """One (channel,) row per sequence, from a (sequence, channel) array."""
    array = to_numpy(where, value)
    if array.ndim != 2:
        hint = "; write x[:, None] for one channel" if array.ndim == 1 else ""
        raise ValueError(f"{where}: expected an array (sequence, channel), found shape {array.shape}{hint}")
    for axis, size in zip(("sequence", "channel"), array.shape, strict=True):
        if size == 0:
            raise ValueError(f"{where}: expected at least one {axis}, found shape {array.shape}")
    return array


def read_vectors(where: str, value: Any) -> list[Array]:
    """One (time,) array per sequence, from a (sequence, time) array or a list of (time_i,)."""
    if isinstance(value, list | tuple):
        arrays = [to_numpy(f"{where}, sequence {index}", item) for index, item in enumerate(value)]
    else:
        array = to_numpy(where, value)
        if array.ndim != 2:
            raise ValueError(
                f"{where}: expected an array (sequence, time) or a list of (time,), found shape {array.shape}"
            )
        arrays = list(array)
    for index, array in enumerate(arrays):
        if array.ndim != 1:
            raise ValueError(f"{where}: expected (time,) for each sequence, found {array.shape} at sequence {index}")
    return arrays


def to_numpy(where: str, value: Any) -> Array:
    """A numpy array of booleans, integers or floats; entries that a masked array hides become NaN."""
    if isinstance(value, torch.Tensor):
        tensor = value.detach().cpu()
        # numpy has no bfloat16, and float32 holds it exactly
        array = (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
    elif isinstance(value, np.ma.MaskedArray):
        array = np.ma.filled(value.astype(np.float64), np.nan)
    else:
        try:
            array = np.asarray(value)
        except ValueError as error:
            raise ValueError(f"{where}: expected a rectangular array, found rows of different lengths") from error
    if array.dtype.kind not in "biuf":
        hint = "; pass sequences of different lengths as a list of arrays" if array.dtype == object else ""
        raise TypeError(f"{where}: expected real numbers, found {_kind(array)}{hint}")
    return array


def read_dt(dt: Any) -> float | None:
    """Seconds per base step, or None for unit steps.

    Raises:
        TypeError: not a number.
        ValueError: not positive, or not finite.
    """
    if dt is None:
        return None
    if isinstance(dt, bool) or not isinstance(dt, Real):
        raise TypeError(f"dt: expected a number of seconds, found {dt!r}")
    seconds = float(dt)
    if not (math.isfinite(seconds) and seconds > 0):
        raise ValueError(f"dt: expected a positive, finite number of seconds, found {dt!r}")
    return seconds


def refuse(where: str, bad: Array, expected: str, values: Array, sequence: int | None = None) -> None:
    """Raise a ValueError at the first True entry of `bad`, which is (time, channel), (time,) or (sequence, channel)."""
    if not bad.any():
        return
    first = tuple(int(i) for i in np.argwhere(bad)[0])
    axes: Sequence[str] = ("sequence", "channel") if sequence is None else ("step", "channel")
    place = [] if sequence is None else [f"sequence {sequence}"]
    place += [f"{axis} {index}" for axis, index in zip(axes, first, strict=False)]
    raise ValueError(f"{where}: expected {expected}, found {values[first]} at {', '.join(place)}")


def _kind(array: Array) -> str:
    kinds = {
        "c": "complex numbers",
        "U": "strings",
        "S": "bytes",
        "O": "Python objects",
        "M": "dates",
        "m": "durations",
    }
    return kinds.get(array.dtype.kind, f"dtype {array.dtype}")
