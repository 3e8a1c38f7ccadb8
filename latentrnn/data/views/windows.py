"""A stretch of longer sequences as a batch: what lies around it, and what goes from one stretch to the next."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

if TYPE_CHECKING:
    from latentrnn.data.sequence_data import SequenceData


class Sliced(Protocol):
    """Sequences of which stretches can be taken: a `SequenceData`, or a batch of stored data that is not read yet."""

    @property
    def num_steps(self) -> int:
        """Base steps of the longest sequence."""

    @property
    def lengths(self) -> Tensor:
        """Base steps of each sequence."""

    def time_slice(self, start: int, stop: int) -> SequenceData:
        """Return base steps `start` to `stop - 1` of every sequence."""


@dataclasses.dataclass(frozen=True, eq=False)
class Around:
    """What lies around a window of longer sequences.

    Attributes:
        whole: the window with some steps before and after it, where its sequences have them.
        before: steps of `whole` before the window.
        after: steps of `whole` after it.
        remembered: what model and guide left at the end of the window before, detached; None at the first window.
        left: what they leave at the end of this one, by name; written while they run.
        ends: which sequences end in this window, booleans (sequence,): there a value of the whole sequence counts.
    """

    whole: SequenceData
    before: int
    after: int
    remembered: Mapping[str, Tensor] | None
    ends: Tensor
    left: dict[str, Tensor] = dataclasses.field(default_factory=dict)


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
    sequences: Sliced,
    start: int,
    stop: int,
    *,
    before: int,
    after: int,
    remembered: Mapping[str, Tensor] | None,
    total: int,
) -> SequenceData:
    """Return base steps `start` to `stop - 1` as a batch that goes on from the window before.

    Args:
        sequences: a batch.
        start, stop: of the window, base steps.
        before, after: steps around it that features, filters and encoders may look at.
        remembered: what the window before left.
        total: sequences that the window stands for: those of the batch, or more where it stands for other windows too.
    """
    first = max(start - before, 0)
    last = min(stop + after, sequences.num_steps)
    whole = sequences.time_slice(first, last)
    ends = (sequences.lengths > start) & (sequences.lengths <= stop)
    around = Around(whole, start - first, last - stop, remembered, ends)
    indices = torch.arange(whole.num_sequences, device=whole.device) if whole.indices is None else whole.indices
    return _cut(whole, around, stop - start, total=total, indices=indices)


def of_whole(data: SequenceData, whole: SequenceData) -> SequenceData:
    """Return the window of other data that lie around it as `whole`: the same place, memory and plate."""
    assert data.around is not None
    around = dataclasses.replace(data.around, whole=whole)
    return _cut(whole, around, data.num_steps, total=data.total, indices=data.indices)


def onward(data: SequenceData) -> SequenceData:
    """Return a window with the steps after it; anything else as it is."""
    around = data.around
    if around is None or not around.after:
        return data
    return _cut(around.whole, around, data.num_steps + around.after, total=data.total, indices=data.indices)


def _cut(whole: SequenceData, around: Around, steps: int, *, total: int, indices: Tensor | None) -> SequenceData:
    cut = whole.time_slice(around.before, around.before + steps)
    per_sequence = {name: mask for name, mask in cut.masks.items() if not cut.spec.heads[name].per_step}
    masks = cut.masks | {name: mask & around.ends[:, None] for name, mask in per_sequence.items()}
    found = dataclasses.replace(cut, masks=masks, around=around, total=total, indices=indices)
    found.facts.complete.update({n: True for n, known in cut.facts.complete.items() if known and n not in per_sequence})
    return found
