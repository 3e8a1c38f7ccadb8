"""What heads, covariates and times agree on: sequences, their names, their steps and the coordinates of these."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from latentrnn.data.ingest.arrays import Array
from latentrnn.data.ingest.axes import Named, check_equal
from latentrnn.data.ingest.covariates import CovariateArrays
from latentrnn.data.ingest.heads import HeadArrays


def agreed_names(heads: Mapping[str, HeadArrays], covariates: Mapping[str, CovariateArrays]) -> tuple[str, ...] | None:
    """The names that arrays give their sequences, on which they must agree, as on the coordinates of their steps."""
    at_base = [(head.where, head.named) for head in heads.values() if head.clock == 1]
    given = [(item.where, item.named) for item in covariates.values()]
    labels = same_sequences([*((head.where, head.named) for head in heads.values()), *given])
    same_times([*at_base, *given])
    return labels


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


def same_sequences(arrays: Sequence[tuple[str, Named]]) -> tuple[str, ...] | None:
    """The names of the sequences, on which all arrays that have any agree.

    Raises:
        ValueError: two have others, or in another order.
    """
    told = [(where, named) for where, named in arrays if named.sequences is not None]
    for where, named in told[1:]:
        check_equal(where, "sequences", named.sequences, told[0][0], told[0][1].sequences)
    return told[0][1].sequences if told else None


def same_times(arrays: Sequence[tuple[str, Named]]) -> None:
    """Raise a ValueError where two arrays have as many steps, at other coordinates."""
    told = [(where, named) for where, named in arrays if named.times is not None]
    for where, named in told[1:]:
        leader, times = told[0][0], told[0][1].times
        if len(named.times) != len(times):
            continue  # which is found, and said, where lengths are compared
        numeric = times.dtype.kind in "iuf" and named.times.dtype.kind in "iuf"
        spread = abs(float(times[-1]) - float(times[0])) if numeric and len(times) else 0.0
        same = np.allclose(times, named.times, rtol=1e-9, atol=1e-6 * spread) if numeric else (times == named.times)
        if not np.all(same):
            first = int(np.argmin(np.isclose(times, named.times))) if numeric else int(np.argmin(same))
            raise ValueError(
                f"{where}: expected the coordinates in time of {leader}, {times[first]} at step {first}, found "
                f"{named.times[first]}; align them (xarray.align), or drop what is not meant with x.drop_vars"
            )


def refuse_without_frames(clocks: Mapping[str, int], longest: int) -> None:
    """Raise a ValueError where a head has no frame even in the longest sequence, of so many base steps."""
    for name, clock in clocks.items():
        if longest < clock:
            raise ValueError(f"observations[{name!r}]: expected at least one frame, found none in any sequence")


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
