"""The one door: everything a user can get wrong in arrays is found here, and nowhere later."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from latentrnn.data.facts import Fact
from latentrnn.data.identity import content_keys
from latentrnn.data.ingest.arrays import Array, read_dt, read_rows, read_steps, read_vectors, refuse
from latentrnn.data.ingest.arrays import read_times as read_seconds
from latentrnn.data.ingest.axes import Named, by_name, check_same, same_sequences, same_times
from latentrnn.data.ingest.names import check_known, check_mapping, check_names, read_labels
from latentrnn.data.ingest.narrowing import losses
from latentrnn.data.ingest.padding import continued, fill, padded
from latentrnn.data.ingest.placing import check_dtype
from latentrnn.data.ingest.standardisation import standardisation
from latentrnn.data.spec import CovariateSpec, DataSpec, HeadSpec
from latentrnn.support.arguments import is_integer

STEPS, ROWS = ("sequence", "time", "channel"), ("sequence", "channel")  # axes


@dataclass
class _Head:
    """A head on its way through the door: per sequence a (frame, channel) array and its mask."""

    where: str
    values: list[Array]
    masks: list[Array]
    per_step: bool
    clock: int
    named: Named


@dataclass
class _Covariate:
    """A covariate on its way through the door: per sequence a (time, feature) array, one row where it never changes."""

    where: str
    values: list[Array]
    per_step: bool
    named: Named


def read_arrays(
    observations: Mapping[str, Any],
    covariates: Mapping[str, Any] | None,
    *,
    dt: float | None,
    times: Any,
    masks: Mapping[str, Any] | None,
    totals: Mapping[str, Any] | None,
    clocks: Mapping[str, int] | None,
    per_sequence: Sequence[str],
    channel_names: Mapping[str, Sequence[str]] | None,
    feature_names: Mapping[str, Sequence[str]] | None,
    sequence_names: Sequence[str] | None,
    standardise: Sequence[str] | Mapping[str, tuple[Any, Any]],
    dtype: torch.dtype,
    part: bool = False,
) -> dict[str, Any]:
    """The fields of a `SequenceData`, from what a user holds; see `SequenceData.from_arrays`.

    Where these are `part` of the sequences, the others may be the ones in which a slow head has its frames.
    """
    covariates = {} if covariates is None else covariates
    check_names(observations, covariates)
    check_known("per_sequence", per_sequence, [*observations, *covariates], "a head or covariate")
    masks = check_mapping("masks", masks, observations, "an observation head")
    totals = check_mapping("totals", totals, observations, "an observation head")
    clocks = check_mapping("clocks", clocks, observations, "an observation head")
    channel_names = check_mapping("channel_names", channel_names, observations, "an observation head")
    feature_names = check_mapping("feature_names", feature_names, covariates, "a covariate")
    check_known("standardise", standardise, [*observations, *covariates], "a head or covariate")
    check_dtype(dtype)
    dt = read_dt(dt)
    if dt is not None and times is not None:
        raise ValueError(f"dt: expected either dt or times, found both (dt={dt:g})")

    heads = {
        name: _read_head(name, value, masks.get(name), name in per_sequence, clocks.get(name, 1), dtype)
        for name, value in observations.items()
    }
    given = {name: _read_covariate(name, value, name in per_sequence, dtype) for name, value in covariates.items()}
    stamps = None if times is None else read_times(times)
    parts: list[_Head | _Covariate] = [*heads.values(), *given.values()]
    labels = same_sequences([(item.where, item.named) for item in parts])
    same_times([(item.where, item.named) for item in parts if not isinstance(item, _Head) or item.clock == 1])
    lengths = _common_lengths(heads, given, stamps)
    inputs = {name: _along(item, lengths) for name, item in given.items()}
    clocks = {name: head.clock for name, head in heads.items()}
    if not part:
        refuse_without_frames(clocks, int(lengths.max()))
    num_steps, count = max(int(lengths.max()), *clocks.values()), len(lengths)
    sums = {name: _read_totals(name, value, heads[name]) for name, value in totals.items()}

    spec = DataSpec({}, {}, dt, stamps is not None)
    for name, head in heads.items():
        channels = head.values[0].shape[1]
        names = read_labels(f"channel_names[{name!r}]", channel_names.get(name, head.named.channels), channels)
        location, scale = standardisation(head.where, name, standardise, names, head.values, head.masks)
        missing = not all(mask.all() for mask in head.masks)
        _warn(losses(head.where, names, head.values, head.masks) if dtype == torch.float32 else None)
        spec.heads[name] = HeadSpec(name, channels, names, head.per_step, head.clock, missing, location, scale)
    for name, arrays in inputs.items():
        where, features = f"covariates[{name!r}]", arrays[0].shape[1]
        names = read_labels(f"feature_names[{name!r}]", feature_names.get(name, given[name].named.channels), features)
        everything = [np.ones(array.shape, bool) for array in arrays]
        location, scale = standardisation(where, name, standardise, names, arrays, everything)
        _warn(losses(where, names, arrays, None) if dtype == torch.float32 else None)
        spec.covariates[name] = CovariateSpec(name, features, names, location, scale)

    tensors: dict[str, dict[str, torch.Tensor]] = {"observations": {}, "masks": {}, "covariates": {}, "totals": {}}
    for name, head in heads.items():
        frames = num_steps // head.clock if head.per_step else 1
        mask = padded(head.masks, frames, torch.bool)
        filled = fill(padded(head.values, frames, dtype), mask)
        tensors["observations"][name] = filled if head.per_step else filled[:, 0]
        tensors["masks"][name] = mask if head.per_step else mask[:, 0]
    for name, arrays in inputs.items():
        tensors["covariates"][name] = padded(arrays, num_steps, dtype)
    for name, arrays in sums.items():
        tensors["totals"][name] = padded(arrays, num_steps // heads[name].clock, dtype)
    contents: dict[str, list[Array]] = {}
    for name, head in sorted(heads.items()):
        # what is unobserved is no content
        contents[f"observations {name}"] = [np.where(m, v, 0) for v, m in zip(head.values, head.masks, strict=True)]
        contents[f"masks {name}"] = head.masks
    contents |= {f"covariates {name}": arrays for name, arrays in sorted(inputs.items())}
    contents |= {} if stamps is None else {"times": stamps}
    return {
        **tensors,
        "lengths": torch.from_numpy(lengths),  # on the host, whatever torch's default device
        "context": torch.zeros(count, dtype=torch.long, device="cpu"),
        "times": None if stamps is None else torch.from_numpy(continued(stamps, num_steps)),
        "keys": content_keys(contents, lengths),
        "names": read_labels("sequence_names", labels if sequence_names is None else sequence_names, count),
        "spec": spec,
        "total": count,
        "indices": None,
        "num_steps": num_steps,
        "host_lengths": lengths,
        "host_context": np.zeros(count, dtype=np.int64),
        "gapless": {name: Fact.of(not spec.heads[name].missing, mask) for name, mask in tensors["masks"].items()},
    }


def read_stretch(
    spec: DataSpec,
    arrays: Mapping[str, Mapping[str, list[Array]]],
    num_steps: int,
    dtype: torch.dtype,
    fillers: Mapping[str, torch.Tensor],
) -> dict[str, Any]:
    """The tensors of a stretch of sequences that came through the door before: nothing is checked again.

    Args:
        spec: of the sequences.
        arrays: observations, masks, covariates and totals, one array per sequence, (frame, ...), empty where a
            sequence ended before.
        num_steps: base steps of the stretch.
        dtype: floating type.
        fillers: per head (channel,), what stands where nothing was observed.
    """
    tensors: dict[str, dict[str, torch.Tensor]] = {"observations": {}, "masks": {}, "covariates": {}, "totals": {}}
    for name, head in spec.heads.items():
        values, given = arrays["observations"][name], arrays["masks"].get(name)
        seen = [~np.isnan(a) if a.dtype.kind == "f" else np.ones(a.shape, bool) for a in values]
        if given is not None:
            seen = [a & b for a, b in zip(seen, given, strict=True)]
        frames = num_steps // head.clock if head.per_step else 1
        mask = padded(seen, frames, torch.bool)
        filled = fill(padded(values, frames, dtype), mask, fillers[name])
        tensors["observations"][name] = filled if head.per_step else filled[:, 0]
        tensors["masks"][name] = mask if head.per_step else mask[:, 0]
        if name in arrays["totals"]:
            read = _Head(f"observations[{name!r}]", values, seen, True, head.clock, Named(values))
            tensors["totals"][name] = padded(_read_totals(name, arrays["totals"][name], read), frames, dtype)
    for name in spec.covariates:
        tensors["covariates"][name] = padded(arrays["covariates"][name], num_steps, dtype)
    return dict(tensors)


def _warn(words: str | None) -> None:
    if words is not None:
        warnings.warn(words, UserWarning, stacklevel=4)  # whoever called `SequenceData.from_arrays`


def _read_head(name: str, value: Any, mask: Any, per_sequence: bool, clock: Any, dtype: torch.dtype) -> _Head:
    where = f"observations[{name!r}]"
    if not is_integer(clock):
        raise TypeError(f"clocks[{name!r}]: expected a whole number of base steps per frame, found {clock!r}")
    if clock < 1 or (per_sequence and clock != 1):
        expected = "no clock, since the head is named in per_sequence" if per_sequence else "at least 1"
        raise ValueError(f"clocks[{name!r}]: expected {expected}, found {clock}")
    named = by_name(where, name, value, ROWS if per_sequence else STEPS)
    if per_sequence:
        values = [row[None] for row in read_rows(where, named.values)]
    else:
        values = read_steps(where, named.values, "channel")
    given = None if mask is None else _read_mask(name, mask, values, named, per_sequence)
    seen = []
    for index, array in enumerate(values):
        observed = ~np.isnan(array) if array.dtype.kind == "f" else np.ones(array.shape, bool)
        if given is not None:
            observed &= given[index]
        seen.append(observed)
        _refuse_unrepresentable(where, array, observed, index, dtype)
    return _Head(where, values, seen, not per_sequence, int(clock), named)


def _read_mask(name: str, mask: Any, values: list[Array], head: Named, per_sequence: bool) -> list[Array]:
    where = f"masks[{name!r}]"
    named = by_name(where, name, mask, ROWS if per_sequence else STEPS)
    check_same(where, named, f"observations[{name!r}]", head)
    if per_sequence:
        read = [row[None] for row in read_rows(where, named.values)]
    else:
        read = read_steps(where, named.values, "channel")
    if len(read) != len(values):
        raise ValueError(f"{where}: expected {len(values)} sequences, found {len(read)}")
    for index, (array, value) in enumerate(zip(read, values, strict=True)):
        if array.dtype != bool:
            raise TypeError(f"{where}: expected booleans, True where observed, found dtype {array.dtype}")
        if array.shape != value.shape:
            raise ValueError(f"{where}: expected shape {value.shape} at sequence {index}, found {array.shape}")
    return read


def _read_covariate(name: str, value: Any, per_sequence: bool, dtype: torch.dtype) -> _Covariate:
    where = f"covariates[{name!r}]"
    named = by_name(where, name, value, ROWS if per_sequence else STEPS)
    if per_sequence:
        arrays = [row[None] for row in read_rows(where, named.values, "feature")]
    else:
        arrays = read_steps(where, named.values, "feature")
    for index, array in enumerate(arrays):
        if array.dtype.kind == "f":
            refuse(where, np.isnan(array), "a value at every step, since covariates cannot be missing", array, index)
        _refuse_unrepresentable(where, array, np.ones(array.shape, bool), index, dtype)
    return _Covariate(where, arrays, not per_sequence, named)


def _along(covariate: _Covariate, lengths: Array) -> list[Array]:
    """A row for every step."""
    if covariate.per_step:
        return covariate.values
    return [np.repeat(row, length, 0) for row, length in zip(covariate.values, lengths.tolist(), strict=True)]


def _refuse_unrepresentable(where: str, array: Array, observed: Array, index: int, dtype: torch.dtype) -> None:
    if array.dtype.kind == "f":
        refuse(where, observed & np.isinf(array), "finite values", array, index)
        if array.dtype.itemsize > 4:
            too_large = observed & (np.abs(array) > torch.finfo(dtype).max)
            refuse(where, too_large, f"values within the range of {dtype}", array, index)
    elif array.dtype.itemsize > 2 and array.size:
        limit = 2**24 if dtype == torch.float32 else 2**53
        inexact = observed & ((array > limit) | (array < -limit))
        refuse(where, inexact, f"whole numbers up to {limit}, beyond which {dtype} is not exact", array, index)


def refuse_without_frames(clocks: Mapping[str, int], longest: int) -> None:
    """Raise a ValueError where a head has no frame even in the longest sequence, of so many base steps."""
    for name, clock in clocks.items():
        if longest < clock:
            raise ValueError(f"observations[{name!r}]: expected at least one frame, found none in any sequence")


def read_times(times: Any) -> list[Array]:
    """Seconds of every step of every sequence, increasing."""
    stamps = [stamp.values for stamp in read_seconds("times", by_name("times", "", times, STEPS[:2]).values)]
    for index, stamp in enumerate(stamps):
        refuse("times", ~np.isfinite(stamp), "finite seconds", stamp, index)
        not_later = np.concatenate([[False], np.diff(stamp) <= 0]) if len(stamp) else np.zeros(0, bool)
        refuse("times", not_later, "times that increase within a sequence", stamp, index)
    return stamps


def _common_lengths(heads: dict[str, _Head], inputs: dict[str, _Covariate], stamps: list[Array] | None) -> Array:
    """Base steps per sequence, on which every head, covariate and time agrees."""
    parts: list[_Head | _Covariate] = [*heads.values(), *inputs.values()]
    counts = {item.where: len(item.values) for item in parts}
    counts |= {} if stamps is None else {"times": len(stamps)}
    leader, count = next(iter(counts.items()))
    for where, found in counts.items():
        if found != count:
            raise ValueError(f"{where}: expected {count} sequences as in {leader}, found {found}")

    base = {head.where: head.values for head in heads.values() if head.per_step and head.clock == 1}
    base |= {item.where: item.values for item in inputs.values() if item.per_step}
    base |= {} if stamps is None else {"times": stamps}
    slower = {head.where: head for head in heads.values() if head.per_step and head.clock > 1}
    if base:
        leader, arrays = next(iter(base.items()))
        lengths = np.array([len(array) for array in arrays], dtype=np.int64)
    elif slower:
        leader = next(iter(slower))
        lengths = np.array([[len(v) * head.clock for v in head.values] for head in slower.values()]).max(0)
    else:
        raise ValueError("observations: expected a head or covariate with one value per step, found per_sequence only")
    for index in np.flatnonzero(lengths == 0).tolist():
        raise ValueError(f"{leader}: expected at least one step, found 0 at sequence {index}")
    for where, others in base.items():
        for index, array in enumerate(others):
            if len(array) != lengths[index]:
                raise ValueError(
                    f"{where}: expected {lengths[index]} steps as in {leader}, found {len(array)} at sequence {index}"
                )
    for where, head in slower.items():
        for index, array in enumerate(head.values):
            frames = lengths[index] // head.clock
            if len(array) != frames:
                raise ValueError(
                    f"{where}: expected {frames} frames, one every {head.clock} of the {lengths[index]} steps in "
                    f"{leader}, found {len(array)} at sequence {index}"
                )
    return lengths


def _read_totals(name: str, value: Any, head: _Head) -> list[Array]:
    where = f"totals[{name!r}]"
    if not head.per_step:
        raise ValueError(f"{where}: expected a per-step head, found one that is named in per_sequence")
    named = by_name(where, name, value, STEPS[:2])
    check_same(where, named, head.where, head.named)
    read = [array.astype(np.float64) for array in read_vectors(where, named.values)]
    if len(read) != len(head.values):
        raise ValueError(f"{where}: expected {len(head.values)} sequences as in {head.where}, found {len(read)}")
    for index, (total, values, mask) in enumerate(zip(read, head.values, head.masks, strict=True)):
        if len(total) != len(values):
            raise ValueError(
                f"{where}: expected {len(values)} steps as in {head.where}, found {len(total)} at sequence {index}"
            )
        seen: Array = np.where(mask, values, 0).astype(np.float64).sum(1)
        complete = np.asarray(mask.all(1))
        unknown = np.isnan(total) & ~complete  # it stays NaN, for a total that is known says more
        wrong = np.where(complete, ~np.isclose(total, seen, rtol=1e-6, atol=1e-6), ~(total >= seen - 1e-6))
        wrong = (wrong | ~np.isfinite(total)) & ~unknown
        for step in np.flatnonzero(wrong).tolist():
            expected = f"{seen[step]:g}, the sum over channels" if complete[step] else f"at least {seen[step]:g}"
            raise ValueError(f"{where}: expected {expected}, found {total[step]:g} at sequence {index}, step {step}")
    return read
