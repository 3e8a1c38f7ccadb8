"""What loops over time share: the steps in chunks that stay in the cache, in one direction or in both at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

# Entries of a state in a chunk, in each direction: its gates and their slopes are then about a megabyte in single
# precision. With buffers for all steps 64 x 500 steps of 128 units took 1.6 times as long: more than 32 MB come anew
# from the system at every call.
CHUNK = 65_536


class Layer(NamedTuple):
    """The weights of one layer in one direction, in the order of torch's modules.

    Attributes:
        input_weight: W, (gates * hidden, channel).
        weight: U, (gates * hidden, hidden).
        input_bias, bias: (gates * hidden,) each.
    """

    input_weight: Tensor
    weight: Tensor
    input_bias: Tensor
    bias: Tensor


def split_layers(weights: Sequence[Any]) -> list[Layer]:
    """Return the layers whose tensors lie after one another."""
    return [Layer(*weights[k : k + 4]) for k in range(0, len(weights), 4)]


class Directions:
    """One direction of time, or both, of inputs (time, row, channel).

    Buffers of a chunk are (direction, step, row, size), the steps of each in the order of time, whichever way the loop
    goes. What the loop sees of them at a step is (row, size), or (2, row, size) of a step and the mirrored one.
    """

    def __init__(self, reverse: tuple[bool, ...], inputs: Tensor, hidden: int) -> None:
        assert reverse in ((False,), (True,), (False, True))
        self.reverse, self.like, self.hidden = reverse, inputs, hidden
        (self.steps, self.rows), self.count = inputs.shape[:2], len(reverse)
        most = max(1, min(self.steps, CHUNK // max(1, self.rows * hidden)))
        self.length = -(-self.steps // -(-self.steps // most))  # chunks of about the same length

    def chunks(self) -> list[tuple[int, int]]:
        """Return first step and number of steps of every chunk, counted as the loop comes to them."""
        return [(first, min(self.length, self.steps - first)) for first in range(0, self.steps, self.length)]

    def times(self, first: int, length: int) -> Iterator[tuple[int, slice]]:
        """Return the number of each direction and the steps in time at which a chunk lies in it."""
        for k, backwards in enumerate(self.reverse):
            start = self.steps - first - length if backwards else first
            yield k, slice(start, start + length)

    def buffer(self, length: int, *size: int) -> Tensor:
        """Return an empty buffer of so many steps, (direction, length, row, *size)."""
        return self.like.new_empty(self.count, length, self.rows, *size)

    def views(self, buffer: Tensor) -> list[Tensor]:
        """Return what the loop sees of a buffer, step by step."""
        if self.count == 1:
            steps = list(buffer[0].unbind(0))
            return steps[::-1] if self.reverse[0] else steps
        last, (across, along, *rest) = buffer.shape[1] - 1, buffer.stride()
        size, start = (2, *buffer.shape[2:]), buffer.storage_offset()
        return [
            buffer.as_strided(size, (across + (last - 2 * s) * along, *rest), start + s * along)
            for s in range(last + 1)
        ]

    def course(self, state: Tensor | None) -> Tensor:
        """Return a buffer of all states with h_0 where each direction begins, (direction, time + 1, row, hidden)."""
        course = self.buffer(self.steps + 1, self.hidden)
        for k, backwards in enumerate(self.reverse):
            edge = course[k, -1 if backwards else 0]
            if state is None:
                edge.zero_()
            else:
                edge.copy_(state[k])
        return course

    def outputs(self, course: Tensor) -> Tensor:
        """Return h_{1:T} of the course of the states, (row, time, direction * hidden)."""
        own = [part[:-1] if back else part[1:] for part, back in zip(course, self.reverse, strict=True)]
        return own[0].transpose(0, 1) if self.count == 1 else torch.cat([part.transpose(0, 1) for part in own], -1)

    def before(self, course: Tensor, first: int, length: int) -> list[Tensor]:
        """Return for each direction the states before those of a chunk, (step, row, hidden)."""
        return [
            course[k, times.start + self.reverse[k] : times.stop + self.reverse[k]]
            for k, times in self.times(first, length)
        ]

    def read(self, values: Tensor, buffer: Tensor, first: int) -> None:
        """Copy the steps of a chunk from (row, time, direction * size) into its buffer."""
        size = buffer.shape[-1]
        for k, times in self.times(first, buffer.shape[1]):
            buffer[k].copy_(values[:, times, k * size : (k + 1) * size].transpose(0, 1))

    def masks(self, valid: Tensor | None, first: int, length: int) -> list[Tensor | None]:
        """Return for each direction that runs backwards what is valid of a chunk, (step, row, 1)."""
        if valid is None:
            return [None] * self.count
        return [
            valid[:, times].t().unsqueeze(-1) if self.reverse[k] else None for k, times in self.times(first, length)
        ]

    def together(self, tensors: Sequence[Tensor]) -> Tensor:
        """Return what each direction has as the loop sees it."""
        return tensors[0] if self.count == 1 else torch.stack(list(tensors))

    def add_product(self, into: Tensor, one: Tensor, other: Tensor) -> Tensor:
        """Add a product to what the loop sees at a step."""
        return into.addmm_(one, other) if self.count == 1 else into.baddbmm_(one, other)
