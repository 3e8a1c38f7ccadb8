"""Arrays in chunks: which draws, sequences and steps each holds, and how they are put together again."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from latentrnn.data import SequenceData


class ChunkIndex(NamedTuple):
    """The draws, sequences and base steps that a chunk of all draws holds."""

    samples: slice
    rows: slice
    steps: slice

    @property
    def num_samples(self) -> int:
        """How many draws it holds."""
        return self.samples.stop - self.samples.start


class Chunk(NamedTuple):
    """A chunk of a named array.

    Attributes:
        name: of the array.
        values: (sample, sequence, time, ...), or (sample, sequence, ...) without a clock.
        indices: what it holds of the array.
        clock: base steps per step of the time axis; None where there is none.
    """

    name: str
    values: Tensor
    indices: ChunkIndex
    clock: int | None


class ChunkedArrays:
    """Arrays put together from their chunks, on the CPU; NaN where no chunk came.

    Args:
        num_samples: draws in all.
        data: all sequences.

    Attributes:
        arrays: by name.
    """

    def __init__(self, num_samples: int, data: SequenceData) -> None:
        self.num_samples, self.data = num_samples, data
        self.arrays: dict[str, Tensor] = {}

    def put(self, chunk: Chunk, *, add: bool = False) -> None:
        """Write a chunk where it belongs, or add it to what is there."""
        name, values, index, clock = chunk
        frames = () if clock is None else (self.data.num_steps // clock,)
        after = values.shape[2 if clock is None else 3 :]
        shape = (self.num_samples, len(self.data), *frames, *after)
        values = values.cpu()
        if name not in self.arrays:
            if values.shape == shape:
                self.arrays[name] = values
                return
            self.arrays[name] = values.new_full(shape, torch.nan)
        target = self.arrays[name][index.samples, index.rows]
        if clock is not None:
            start = index.steps.start // clock
            target = target[:, :, start : start + values.shape[2]]
        target.copy_(target + values if add else values)


def collected(chunks: Iterable[Chunk], num_samples: int, data: SequenceData) -> dict[str, Tensor]:
    """Return whole arrays by name."""
    whole = ChunkedArrays(num_samples, data)
    for chunk in chunks:
        whole.put(chunk)
    return whole.arrays


def concatenate_sequences(parts: Sequence[Tensor], steps: int) -> Tensor:
    """Concatenate chunks of whole sequences, on the CPU, padded to a common length."""
    parts = [part.cpu() for part in parts]
    if parts[0].dim() >= 4 and any(part.shape[2] < steps for part in parts):
        pad = [torch.full((*p.shape[:2], steps - p.shape[2], *p.shape[3:]), torch.nan) for p in parts]
        parts = [torch.cat([p, q.to(p)], 2) for p, q in zip(parts, pad, strict=True)]
    return parts[0] if len(parts) == 1 else torch.cat(list(parts), 1)


def padding_to_nan(value: Tensor, data: SequenceData, head: str) -> Tensor:
    """Put NaN where a sequence (at this head's clock) has ended; value is (sample, sequence, time, ...)."""
    spec = data.spec.heads[head]
    if not spec.per_step or not data.padded:
        return value
    inside = torch.arange(value.shape[2], device=value.device) < (data.lengths // spec.clock)[:, None]
    return torch.where(inside.reshape(*inside.shape, *[1] * (value.dim() - 3)), value, torch.nan)


def with_sample_axis(states: Tensor, num_samples: int) -> Tensor:
    """Return states with a sample axis, (sample, sequence, time, dim), where nothing random gave them one."""
    return states if states.dim() == 4 else states.expand(num_samples, *states.shape)
