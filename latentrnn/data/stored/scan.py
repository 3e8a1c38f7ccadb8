"""The ingestion of sequences in files: all of them are read through once, some at a time, and none is kept."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from latentrnn.data.identity import ContentDigest
from latentrnn.data.ingest.agreement import refuse_without_frames
from latentrnn.data.ingest.arrays import Array, Arrays
from latentrnn.data.ingest.heads import observed
from latentrnn.data.ingest.ingest import ingest
from latentrnn.data.ingest.padding import first_observed
from latentrnn.data.ingest.seconds import read_times
from latentrnn.data.sequence_data import SequenceData
from latentrnn.data.spec import DataSpec, SequenceKey
from latentrnn.data.stored import arrays as stored_arrays
from latentrnn.data.stored.arrays import Source
from latentrnn.data.views.windows import bounds


def scan(
    sources: dict[str, dict[str, Source]], count: int, given: Arrays
) -> tuple[DataSpec, NDArray[np.int64], tuple[SequenceKey, ...], dict[str, Tensor]]:
    """Return the spec of all sequences, their lengths and keys, and what fills the gaps of each head."""
    spec: DataSpec | None = None
    lengths, keys, seen, missing = [], [], Counter[str](), Counter[str]()
    fillers: dict[str, Tensor] = {}
    first = 0
    while first < count:
        shapes = [s.shape(first) for kind in ("observations", "covariates") for s in sources[kind].values()]
        numbers = sum(math.prod(shape) for shape in shapes)
        # as many as may be read at once if all are as long as the first of them
        stop = min(count, first + max(1, stored_arrays.READ_AT_ONCE // max(numbers, 1)))
        length, found = 0, []
        for place in _stretches(sources, first, given) if stop - first == 1 else [None]:
            part = _ingest(sources, range(first, stop), place, given)
            length += int(part.host_lengths[0])  # without padding to the slowest head's frame
            found = [(key.key.partition("#")[0], key.stop) for key in part.keys]
            if spec is None:
                spec = part.spec
            else:
                spec.check_compatible(part.spec)
            for name, head in part.spec.heads.items():
                missing[name] += head.missing
                values, there = first_observed(part.observations[name], part.masks[name])
                before = fillers.get(name, torch.full_like(values, torch.nan))
                fillers[name] = torch.where(before.isnan() & there, values, before)
        if stop - first == 1:
            found = [(_content(sources, first, given), length)]
        for content, steps in found:
            seen[content] += 1
            keys.append(SequenceKey(content if seen[content] == 1 else f"{content}#{seen[content]}", 0, steps))
            lengths.append(steps)
        first = stop
    assert spec is not None
    refuse_without_frames({name: head.clock for name, head in spec.heads.items()}, max(lengths))
    heads = {name: dataclasses.replace(head, missing=missing[name] > 0) for name, head in spec.heads.items()}
    spec = dataclasses.replace(spec, heads=heads)
    return spec, np.array(lengths, np.int64), tuple(keys), {n: v.nan_to_num(1.0) for n, v in fillers.items()}


def _stretches(sources: dict[str, dict[str, Source]], row: int, given: Arrays) -> list[tuple[int, int] | None]:
    """Return the stretches of one sequence that may be read at once; None, all of it, where its arrays do not agree."""
    clocks, per_sequence = given.clocks, given.per_sequence
    counts, width = [], 0  # frames and clock of every array along time
    for kind in ("observations", "masks", "totals", "covariates", "times"):
        for name, source in sources[kind].items():
            if kind != "covariates" and name in per_sequence:
                continue
            shape, clock = source.shape(row), 1 if kind in ("covariates", "times") else clocks.get(name, 1)
            if not shape or not isinstance(clock, int) or clock < 1:
                return [None]
            counts.append((shape[0], clock))
            width += math.prod(shape[1:]) if kind in ("observations", "covariates") else 0
    length = max((frames * clock for frames, clock in counts if clock == 1), default=0)
    length = length or max((frames * clock for frames, clock in counts), default=0)
    if not length or any(frames != length // clock for frames, clock in counts):
        return [None]
    if sources["times"]:
        read_times([sources["times"]["times"].read(row)])  # do they increase from stretch to stretch?
    unit = math.lcm(*(clock for _, clock in counts))
    at_once = max(stored_arrays.READ_AT_ONCE // max(width, 1) // unit, 1) * unit
    return list(bounds(length, at_once, unit))


def _content(sources: dict[str, dict[str, Source]], row: int, given: Arrays) -> str:
    """Return a sequence's identity by content as `from_arrays` finds it, reading some steps at a time."""

    def stretches(source: Source) -> Iterator[Array]:
        shape = source.shape(row)
        at_once = max(1, stored_arrays.READ_AT_ONCE // max(1, math.prod(shape[1:])))
        for start in range(0, shape[0], at_once):
            yield source.read(row, start, min(start + at_once, shape[0]))

    def masks(name: str) -> Iterator[Array]:
        source = sources["masks"].get(name)
        seen = (observed([values], None)[0] for values in stretches(sources["observations"][name]))
        if source is None:
            return seen
        return (here & there.astype(bool) for here, there in zip(seen, stretches(source), strict=False))

    digest = ContentDigest()
    for name in sorted(sources["observations"]):
        source = sources["observations"][name]
        if name in given.per_sequence:
            values = source.read(row)[None]
            seen = observed([values], None)[0]
            if name in sources["masks"]:
                seen = seen & sources["masks"][name].read(row)[None]
            digest.add(f"observations {name}", values.shape, [np.where(seen, values, 0)])
            digest.add(f"masks {name}", values.shape, [seen])
            continue
        shape = source.shape(row)
        unmasked = zip(stretches(source), masks(name), strict=True)
        digest.add(f"observations {name}", shape, (np.where(seen, values, 0) for values, seen in unmasked))
        digest.add(f"masks {name}", shape, masks(name))
    for name in sorted(sources["covariates"]):
        source = sources["covariates"][name]
        digest.add(f"covariates {name}", source.shape(row), stretches(source))
    if sources["times"]:
        stamps = sources["times"]["times"].read(row)
        digest.add("times", stamps.shape, [stamps])
    return digest.key


def _ingest(
    sources: dict[str, dict[str, Source]], rows: range, place: tuple[int, int] | None, given: Arrays
) -> SequenceData:
    """Send some sequences, or a stretch of one, through `SequenceData.from_arrays`."""

    def read(kind: str, name: str, source: Source) -> Any:
        if kind != "covariates" and name in given.per_sequence:
            return np.stack([source.read(row) for row in rows])
        clock = 1 if kind in ("covariates", "times") else given.clocks.get(name, 1)
        span = (None, None) if place is None else (place[0] // clock, place[1] // clock)
        return [source.read(row, *span) for row in rows]

    arrays: dict[str, Any] = {kind: {n: read(kind, n, s) for n, s in named.items()} for kind, named in sources.items()}
    times = arrays.pop("times").get("times")
    some = dataclasses.replace(given, **arrays, times=times, sequence_names=None, metadata=None)
    try:
        return SequenceData(**ingest(some, part=True))
    except (TypeError, ValueError) as error:
        start = 0 if place is None else place[0]
        if rows.start == 0 and start == 0:
            raise
        steps = f", steps from step {start}" if start else ""
        raise type(error)(f"{error} (sequences counted from sequence {rows.start}{steps})") from None
