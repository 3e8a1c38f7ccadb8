"""Times of the steps, and how many steps each sequence has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from latentrnn.data.ingest.arrays import Array, read_seconds, refuse
from latentrnn.data.ingest.axes import by_name
from latentrnn.data.ingest.covariates import CovariateArrays
from latentrnn.data.ingest.heads import HeadArrays


def read_times(times: Any) -> list[Array]:
    """Seconds of every step of every sequence, increasing."""
    stamps = read_seconds("times", by_name("times", "", times, ("sequence", "time")).values)
    for index, stamp in enumerate(stamps):
        refuse("times", ~np.isfinite(stamp), "finite seconds", stamp, index)
        not_later = np.concatenate([[False], np.diff(stamp) <= 0]) if len(stamp) else np.zeros(0, bool)
        refuse("times", not_later, "times that increase within a sequence", stamp, index)
    return stamps


def read_lengths(
    heads: Mapping[str, HeadArrays], covariates: Mapping[str, CovariateArrays], stamps: list[Array] | None
) -> Array:
    """Base steps per sequence, on which every head, covariate and time agrees."""
    parts: list[HeadArrays | CovariateArrays] = [*heads.values(), *covariates.values()]
    times = {} if stamps is None else {"times": stamps}
    _check_count({item.where: item.values for item in parts} | times)
    base = {head.where: head.values for head in heads.values() if head.per_step and head.clock == 1}
    base |= {item.where: item.values for item in covariates.values() if item.per_step} | times
    slower = [head for head in heads.values() if head.per_step and head.clock > 1]
    if base:
        leader, arrays = next(iter(base.items()))
        lengths = np.array([len(array) for array in arrays], dtype=np.int64)
    elif slower:
        leader = slower[0].where
        lengths = np.array([[len(values) * head.clock for values in head.values] for head in slower]).max(0)
    else:
        raise ValueError("observations: expected a head or covariate with one value per step, found per_sequence only")
    for index in np.flatnonzero(lengths == 0).tolist():
        raise ValueError(f"{leader}: expected at least one step, found 0 at sequence {index}")
    for where, values in base.items():
        _check_steps(where, values, lengths, leader)
    for head in slower:
        _check_frames(head, lengths, leader)
    return lengths


def _check_count(arrays: Mapping[str, list[Array]]) -> None:
    leader, first = next(iter(arrays.items()))
    for where, found in arrays.items():
        if len(found) != len(first):
            raise ValueError(f"{where}: expected {len(first)} sequences as in {leader}, found {len(found)}")


def _check_steps(where: str, arrays: list[Array], lengths: Array, leader: str) -> None:
    for index, array in enumerate(arrays):
        if len(array) != lengths[index]:
            raise ValueError(
                f"{where}: expected {lengths[index]} steps as in {leader}, found {len(array)} at sequence {index}"
            )


def _check_frames(head: HeadArrays, lengths: Array, leader: str) -> None:
    for index, array in enumerate(head.values):
        frames = lengths[index] // head.clock
        if len(array) != frames:
            raise ValueError(
                f"{head.where}: expected {frames} frames, one every {head.clock} of the {lengths[index]} steps in "
                f"{leader}, found {len(array)} at sequence {index}"
            )


def refuse_without_frames(clocks: Mapping[str, int], longest: int) -> None:
    """Raise a ValueError where a head has no frame even in the longest sequence, of so many base steps."""
    for name, clock in clocks.items():
        if longest < clock:
            raise ValueError(f"observations[{name!r}]: expected at least one frame, found none in any sequence")
