"""What the starting values of a fit to sequences in files come from."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from latentrnn.data.sequence_data import SequenceData
from latentrnn.data.spec import DataSpec

STARTING_VALUES = 2**22  # numbers from which a fit takes its starting baselines and scales
STRETCHES = 16  # parts of long sequences among which these are spread
GOLDEN = (5**0.5 - 1) / 2


class Stored(Protocol):
    """Sequences of which some, or stretches, are read; see `StoredSequences`."""

    @property
    def spec(self) -> DataSpec:
        """Heads, covariates, units."""

    @property
    def host_lengths(self) -> NDArray[np.int64]:
        """Base steps of each sequence."""

    @property
    def num_steps(self) -> int:
        """Base steps of the longest sequence."""

    @property
    def numbers(self) -> int:
        """Numbers of a sequence as long as the longest."""

    def __len__(self) -> int: ...

    def __getitem__(self, item: Any) -> Stored: ...

    def small(self, count: int) -> bool:
        """Whether so many sequences may be read at once."""

    def select(self, *, heads: Sequence[str], covariates: Sequence[str]) -> Stored:
        """Fewer heads and covariates of the same sequences."""

    def read_stretch(self, start: int, stop: int) -> SequenceData:
        """Read base steps `start` to `stop - 1`."""

    def load(self) -> SequenceData:
        """Read everything."""


def from_everywhere(stored: Stored) -> SequenceData:
    """Return all sequences, or evenly spaced parts of them; see `StoredSequences.for_start`."""
    if stored.small(len(stored)):
        return stored.load()
    count = STARTING_VALUES // stored.numbers
    if count >= STRETCHES:
        found = stored[np.linspace(0, len(stored) - 1, count).astype(np.int64)].load()
    else:
        found = _joined([stored[row].read_stretch(start, stop) for row, start, stop in _spread(stored)])
    if all(head.per_step for head in stored.spec.heads.values()):
        return found
    rows = _per_sequence(stored)
    return dataclasses.replace(
        found, observations=found.observations | rows.observations, masks=found.masks | rows.masks
    )


def _spread(stored: Stored) -> list[tuple[int, int, int]]:
    """Return stretches as (sequence, start, stop), one in each of as many equal parts of all that there is."""
    unit = math.lcm(*(head.clock for head in stored.spec.heads.values()))
    steps = max(STARTING_VALUES * stored.num_steps // (stored.numbers * STRETCHES * unit), 1) * unit
    ends = np.cumsum(stored.host_lengths)
    part = float(ends[-1]) / STRETCHES
    found = set()
    for index in range(STRETCHES):
        # each at another place of its part, lest all lie at the same time of sequences that are equally long
        place = int(index * part + index * GOLDEN % 1 * max(part - steps, 0.0))
        row = int(np.searchsorted(ends, place, side="right"))
        length = int(stored.host_lengths[row])
        start = max(min(place - int(ends[row]) + length, length - steps), 0) // unit * unit
        found.add((row, start, start + steps))
    return sorted(found)


def _per_sequence(stored: Stored) -> SequenceData:
    """Read the per-sequence heads alone, of all sequences or of as many as starting values may come from."""
    heads = {name: head for name, head in stored.spec.heads.items() if not head.per_step}
    count = max(STARTING_VALUES // sum(head.channels for head in heads.values()), 1)
    part = stored[np.linspace(0, len(stored) - 1, min(count, len(stored))).astype(np.int64)]
    return part.select(heads=list(heads), covariates=()).read_stretch(0, 0)


def _joined(parts: list[SequenceData]) -> SequenceData:
    """Return sequences of as many steps each as one plate."""

    def rows(kind: str) -> dict[str, Tensor]:
        named = [getattr(part, kind) for part in parts]
        return {name: torch.cat([tensors[name] for tensors in named]) for name in named[0]}

    times = [part.times for part in parts if part.times is not None]
    return dataclasses.replace(
        parts[0],
        observations=rows("observations"),
        masks=rows("masks"),
        covariates=rows("covariates"),
        totals=rows("totals"),
        lengths=torch.cat([part.lengths for part in parts]),
        context=torch.cat([part.context for part in parts]),
        times=torch.cat(times) if times else None,
        keys=tuple(key for part in parts for key in part.keys),
        names=tuple(name for part in parts for name in part.names),
        total=len(parts),
        indices=None,
        host_lengths=np.concatenate([part.host_lengths for part in parts]),
        host_context=np.concatenate([part.host_context for part in parts]),
    )
