"""What users hold (arrays of any kind, ragged lists) as one numpy array per sequence, with every surprise named."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from latentrnn.data.ingest.axes import Named, by_name
from latentrnn.data.ingest.plain_numbers import Array, is_frame, to_numpy
from latentrnn.data.metadata import read_metadata
from latentrnn.support.shown import first_entry

LOSS = 1e-3  # of a channel's range, below which rounding is nothing beside any noise


@dataclass(frozen=True, eq=False)
class Arrays:
    """The arguments of `from_arrays`, whose names were checked; the arrays are as they were given."""

    observations: Mapping[str, Any]
    covariates: Mapping[str, Any]
    dt: float | None
    times: Any
    masks: Mapping[str, Any]
    totals: Mapping[str, Any]
    clocks: Mapping[str, int]
    per_sequence: Sequence[str]
    channel_names: Mapping[str, Sequence[str]]
    feature_names: Mapping[str, Sequence[str]]
    sequence_names: Sequence[str] | None
    metadata: Any
    standardise: Sequence[str] | Mapping[str, tuple[Any, Any]]
    dtype: torch.dtype

    def read_metadata(self, sequences: tuple[str, ...], named: bool) -> dict[str, Array]:
        """The metadata of sequences of these names, (sequence,) by name; `named` where the names are the user's."""
        return read_metadata(self.metadata, sequences, [*self.observations, *self.covariates], named=named)


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


def _as_column(value: Any) -> str:
    return "x.to_frame()" if hasattr(value, "to_frame") else "x[:, None]"


def refuse(where: str, bad: Array, expected: str, values: Array, sequence: int | None = None) -> None:
    """Raise a ValueError at the first True entry of `bad`, which is (time, channel), (time,) or (sequence, channel)."""
    if not bad.any():
        return
    index, place = first_entry(bad, ("sequence", "channel") if sequence is None else ("step", "channel"))
    place = place if sequence is None else f"sequence {sequence}, {place}"
    raise ValueError(f"{where}: expected {expected}, found {values[index]} at {place}")


def refuse_unrepresentable(where: str, array: Array, seen: Array, index: int, dtype: torch.dtype) -> None:
    """Raise a ValueError at a value that is seen and that a floating type does not hold."""
    if array.dtype.kind == "f":
        refuse(where, seen & np.isinf(array), "finite values", array, index)
        if array.dtype.itemsize > 4:
            too_large = seen & (np.abs(array) > torch.finfo(dtype).max)
            refuse(where, too_large, f"values within the range of {dtype}", array, index)
    elif array.dtype.itemsize > 2 and array.size:
        limit = 2**24 if dtype == torch.float32 else 2**53
        inexact = seen & ((array > limit) | (array < -limit))
        refuse(where, inexact, f"whole numbers up to {limit}, beyond which {dtype} is not exact", array, index)


def check_dtype(dtype: Any) -> torch.dtype:
    """Return a floating type that data can have.

    Raises:
        TypeError: no type of torch, such as a string.
        ValueError: neither torch.float32 nor torch.float64.
    """
    if not isinstance(dtype, torch.dtype):
        raise TypeError(f"dtype: expected torch.float32 or torch.float64, found {dtype!r}")
    if dtype not in (torch.float32, torch.float64):
        raise ValueError(f"dtype: expected torch.float32 or torch.float64, found {dtype}")
    return dtype


def losses(
    where: str,
    names: tuple[str, ...],
    values: list[Array],
    masks: list[Array] | None,
    *,
    instead: str = "give dtype=torch.float64",
) -> str | None:
    """Say what float32 takes from the values of one head or covariate, None where that is rounding.

    Values are rounded by 6e-8 of their size. Where they lie close together and far from zero (times since 1970, a
    potential of 1e6 in which differences of 0.1 count) this can be much of what they differ by.

    Args:
        where: the head or covariate.
        names: of its channels or features.
        values: per sequence (time, channel).
        masks: what is observed, in their shape; None for all.
        instead: what keeps the values as they are.
    """
    wide = [(a, None if masks is None else masks[i]) for i, a in enumerate(values) if a.dtype.itemsize > 4]
    if not wide or wide[0][0].dtype.kind != "f":
        return None
    lost, low, high = np.zeros(len(names)), np.full(len(names), np.inf), np.full(len(names), -np.inf)
    for array, seen in wide:
        there: Array = np.isfinite(array) if seen is None else seen
        with np.errstate(over="ignore", invalid="ignore"):
            changed = np.abs(array - array.astype(np.float32))
        lost = np.maximum(lost, changed.max(0, where=there, initial=0.0))
        low = np.minimum(low, array.min(0, where=there, initial=np.inf))
        high = np.maximum(high, array.max(0, where=there, initial=-np.inf))
    too_much = (high > low) & (lost > LOSS * (high - low))
    if not too_much.any():
        return None
    worst = int(too_much.argmax())
    return (
        f"{where}: float32 changes values by up to {lost[worst]:.2g} at channel or feature {names[worst]!r}, where all "
        f"lie within {high[worst] - low[worst]:.2g} of each other, near {low[worst]:g}; subtract a constant first, or "
        f"{instead}"
    )
