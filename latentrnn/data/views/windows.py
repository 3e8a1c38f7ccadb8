"""A stretch of longer sequences as a batch: what lies around it, and what goes from one stretch to the next."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from latentrnn.data.record import Record, SequenceRecord, WindowContext
from latentrnn.data.views.time_slices import time_slice

Slice = TypeVar("Slice", bound=SequenceRecord, covariant=True)


class Sliced(Protocol[Slice]):
    """Sequences of which stretches can be taken: a record, or a batch of stored data that is not read yet."""

    @property
    def num_steps(self) -> int:
        """Base steps of the longest sequence."""

    @property
    def lengths(self) -> Tensor:
        """Base steps of each sequence."""

    def time_slice(self, start: int, stop: int) -> Slice:
        """Return base steps `start` to `stop - 1` of every sequence."""


def bounds(num_steps: int, steps: int, shortest: int) -> list[tuple[int, int]]:
    """Return where consecutive windows of `steps` begin and stop; one that would be too short joins the one before.

    Args:
        num_steps: steps of the longest sequence.
        steps: of a window.
        shortest: least steps of a window: those of the slowest head's frame.
    """
    starts = list(range(0, num_steps, steps))
    if len(starts) > 1 and num_steps - starts[-1] < shortest:
        starts.pop()
    return list(zip(starts, [*starts[1:], num_steps], strict=True))


def window(
    sequences: Sliced[Record],
    start: int,
    stop: int,
    *,
    before: int,
    after: int,
    carry_in: Mapping[str, Tensor] | None,
    total: int,
) -> Record:
    """Return base steps `start` to `stop - 1` as a batch that goes on from the window before.

    Args:
        sequences: a batch.
        start, stop: of the window, base steps.
        before, after: steps around it that features, filters and encoders may look at.
        carry_in: the carry-out of the window before.
        total: sequences that the window stands for: those of the batch, or more where it stands for other windows too.
    """
    first = max(start - before, 0)
    last = min(stop + after, sequences.num_steps)
    whole = sequences.time_slice(first, last)
    ends = (sequences.lengths > start) & (sequences.lengths <= stop)
    around = WindowContext(whole, start - first, last - stop, carry_in, ends)
    indices = torch.arange(whole.num_sequences, device=whole.device) if whole.indices is None else whole.indices
    return _cut(whole, around, stop - start, total=total, indices=indices)


def of_whole(data: Record, whole: Record) -> Record:
    """Return the window of other data that lie around it as `whole`: the same place, memory and plate."""
    assert data.around is not None
    around = dataclasses.replace(data.around, whole=whole)
    return _cut(whole, around, data.num_steps, total=data.total, indices=data.indices)


def onward(data: Record) -> Record:
    """Return a window with the steps after it, `around.after` more than it has; one without such steps as it is.

    Those steps are there to be looked at, by an encoder for instance; the plate (`total`, `indices`) is the window's.
    """
    around = data.around
    assert around is not None
    if not around.after:
        return data
    return _cut(around.whole, around, data.num_steps + around.after, total=data.total, indices=data.indices)


def _cut(whole: Record, around: WindowContext[Record], steps: int, *, total: int, indices: Tensor | None) -> Record:
    cut = time_slice(whole, around.before, around.before + steps)
    per_sequence = {name: mask for name, mask in cut.masks.items() if not cut.spec.heads[name].per_step}
    masks = cut.masks | {name: mask & around.ends[:, None] for name, mask in per_sequence.items()}
    return dataclasses.replace(cut, masks=masks, around=around, total=total, indices=indices)
