"""Observation heads and what belongs to them: values, masks, totals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from latentrnn.data.ingest.arrays import Array, Arrays, read_values, read_vectors, refuse_unrepresentable
from latentrnn.data.ingest.axes import Named, by_name, check_same
from latentrnn.support.arguments import is_integer


@dataclass
class HeadArrays:
    """A head as it was read: per sequence a (frame, channel) array and its mask."""

    where: str
    values: list[Array]
    masks: list[Array]
    per_step: bool
    clock: int
    named: Named


def read_head(name: str, given: Arrays) -> HeadArrays:
    """Return the checked values, masks and clock of a head, per sequence (frame, channel).

    Raises:
        TypeError, ValueError: what is no array of numbers, a mask of another shape, a clock that is no whole number of
            steps, or a value beyond the floating type.
    """
    where, per_sequence = f"observations[{name!r}]", name in given.per_sequence
    clock = _read_clock(name, given.clocks[name], per_sequence) if name in given.clocks else 1
    named, values = read_values(where, name, given.observations[name], per_sequence, "channel")
    mask = given.masks.get(name)
    masks = None if mask is None else _read_masks(name, mask, values, named, per_sequence)
    seen = observed(values, masks)
    for index, array in enumerate(values):
        refuse_unrepresentable(where, array, seen[index], index, given.dtype)
    return HeadArrays(where, values, seen, not per_sequence, clock, named)


def observed(values: list[Array], masks: list[Array] | None) -> list[Array]:
    """Return where there is a value that is not masked: booleans in the shapes of `values`, NaN being none."""
    seen = [~np.isnan(array) if array.dtype.kind == "f" else np.ones(array.shape, bool) for array in values]
    return seen if masks is None else [here & there for here, there in zip(seen, masks, strict=True)]


def _read_clock(name: str, clock: Any, per_sequence: bool) -> int:
    if not is_integer(clock):
        raise TypeError(f"clocks[{name!r}]: expected a whole number of base steps per frame, found {clock!r}")
    if clock < 1 or (per_sequence and clock != 1):
        expected = "no clock, since the head is named in per_sequence" if per_sequence else "at least 1"
        raise ValueError(f"clocks[{name!r}]: expected {expected}, found {clock}")
    return int(clock)


def _read_masks(name: str, mask: Any, values: list[Array], head: Named, per_sequence: bool) -> list[Array]:
    where = f"masks[{name!r}]"
    named, masks = read_values(where, name, mask, per_sequence, "channel")
    check_same(where, named, f"observations[{name!r}]", head)
    if len(masks) != len(values):
        raise ValueError(f"{where}: expected {len(values)} sequences, found {len(masks)}")
    for index, (array, value) in enumerate(zip(masks, values, strict=True)):
        if array.dtype != bool:
            raise TypeError(f"{where}: expected booleans, True where observed, found dtype {array.dtype}")
        if array.shape != value.shape:
            raise ValueError(f"{where}: expected shape {value.shape} at sequence {index}, found {array.shape}")
    return masks


def read_totals(name: str, value: Any, head: HeadArrays) -> list[Array]:
    """Sums over the channels of a head, per sequence (frame,), which agree with what is seen of them."""
    where = f"totals[{name!r}]"
    if not head.per_step:
        raise ValueError(f"{where}: expected a per-step head, found one that is named in per_sequence")
    named = by_name(where, name, value, ("sequence", "time"))
    check_same(where, named, head.where, head.named)
    read = [array.astype(np.float64) for array in read_vectors(where, named.values)]
    if len(read) != len(head.values):
        raise ValueError(f"{where}: expected {len(head.values)} sequences as in {head.where}, found {len(read)}")
    for index, (total, values, mask) in enumerate(zip(read, head.values, head.masks, strict=True)):
        if len(total) != len(values):
            raise ValueError(
                f"{where}: expected {len(values)} steps as in {head.where}, found {len(total)} at sequence {index}"
            )
        _check_total(where, total, values, mask, index)
    return read


def _check_total(where: str, total: Array, values: Array, mask: Array, index: int) -> None:
    seen: Array = np.where(mask, values, 0).astype(np.float64).sum(1)
    complete = np.asarray(mask.all(1))
    unknown = np.isnan(total) & ~complete  # it stays NaN, for a total that is known says more
    wrong = np.where(complete, ~np.isclose(total, seen, rtol=1e-6, atol=1e-6), ~(total >= seen - 1e-6))
    wrong = (wrong | ~np.isfinite(total)) & ~unknown
    for step in np.flatnonzero(wrong).tolist():
        expected = f"{seen[step]:g}, the sum over channels" if complete[step] else f"at least {seen[step]:g}"
        raise ValueError(f"{where}: expected {expected}, found {total[step]:g} at sequence {index}, step {step}")
