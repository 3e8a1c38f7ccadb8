"""What loops over time share: the steps in chunks that stay in the cache, in one direction or in both at once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

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


def active_rows(more: Tensor, fewer: Tensor) -> Tensor:
    """Return of what a loop sees at a step, (..., row, size), the rows that a later step has too: its first."""
    rows = fewer.shape[-2]
    return more if more.shape[-2] == rows else more[..., :rows, :]


def step_by_step(
    step: Callable[[Layer, Tensor, Tensor], Tensor],
    reverse: Sequence[bool],
    lengths: Tensor | None,
    inputs: Tensor,
    state: Any,
    weights: Sequence[Any],
) -> tuple[Tensor, Tensor]:
    """Return h_{1:T} and its ends, followed by autograd: what hand-written scans are in plain operations.

    Args:
        step: h_t from a layer, W a_t + b and h_{t-1}.
        reverse, lengths: see `gru_scan`.
        inputs: a_{1:T}, (time, row, channel).
        state: h_0, (direction, row, hidden); None for zeros.
        weights: of all layers, after one another.
    """
    found = []
    for k, (backwards, layer) in enumerate(zip(reverse, split_layers(weights), strict=True)):
        projected = F.linear(inputs, layer.input_weight, layer.input_bias).unbind(0)
        h = inputs.new_zeros(inputs.shape[1], layer.weight.shape[1]) if state is None else state[k]
        steps: list[Tensor] = []
        for t in range(len(projected))[:: -1 if backwards else 1]:
            h = step(layer, projected[t], h)
            if lengths is not None:
                h = torch.where((t < lengths).unsqueeze(-1), h, 0.0)
            steps.append(h)
        found.append(torch.stack(steps[::-1] if backwards else steps, 1))
    outputs = torch.cat(found, -1)
    return outputs, final_states(outputs, reverse, lengths)


def final_states(outputs: Tensor, reverse: Sequence[bool], lengths: Tensor | None) -> Tensor:
    """Return h of each direction where it has seen everything, (row, direction * hidden); zero in rows without steps.

    Args:
        outputs: h_{1:T}, (row, time, direction * hidden).
        reverse: for each direction whether it runs backwards in time, and ends at the first step.
        lengths: (row,); None where all rows have all steps.
    """
    found = []
    for back, own in zip(reverse, outputs.chunk(len(reverse), -1), strict=True):
        if back or lengths is None:
            found.append(own[:, 0 if back else -1])
        else:
            last = (lengths - 1).clamp_min(0)[:, None, None].expand(-1, 1, own.shape[-1])
            found.append(own.gather(1, last)[:, 0])
    ends = torch.cat(found, -1)
    return ends if lengths is None else torch.where((lengths > 0).unsqueeze(-1), ends, 0.0)


class Chunk(NamedTuple):
    """Consecutive steps of a loop.

    Attributes:
        first, length: of the steps, counted as the loop comes to them.
        entries: rows of all of them together, in each direction.
    """

    first: int
    length: int
    entries: int


class ScanLayout(ABC):
    """How a loop goes through inputs (time, row, channel): in one direction of time, or in both at once.

    All that belongs to a chunk lies flat, (direction, entry, ...), an entry being a row at a step. What the loop sees
    of a buffer at a step is (row, size), or (2, row, size) in both directions.
    """

    def __init__(self, reverse: tuple[bool, ...], inputs: Tensor, hidden: int) -> None:
        assert reverse in ((False,), (True,), (False, True))
        self.reverse, self.like, self.hidden = reverse, inputs, hidden
        (self.steps, self.rows), self.count = inputs.shape[:2], len(reverse)

    @abstractmethod
    def chunks(self) -> list[Chunk]:
        """Return the chunks in the order in which the loop comes to them."""

    def buffer(self, chunk: Chunk, *size: int) -> Tensor:
        """Return an empty buffer of a chunk, (direction, entry, *size)."""
        return self.like.new_empty(self.count, chunk.entries, *size)

    @abstractmethod
    def views(self, buffer: Tensor, chunk: Chunk) -> list[Tensor]:
        """Return what the loop sees of a chunk's buffer, step by step."""

    @abstractmethod
    def trajectory(self, state: Tensor | None) -> Tensor:
        """Return a buffer of all states with h_0 where each direction begins, (direction, entry, hidden)."""

    @abstractmethod
    def path(self, trajectory: Tensor) -> list[Tensor]:
        """Return what the loop sees of the trajectory of the states: of h_0 first, then step by step."""

    @abstractmethod
    def states(self, trajectory: Tensor, k: int, chunk: Chunk) -> Tensor:
        """Return the states of a chunk in one direction, (entry, hidden): a view of the trajectory."""

    @abstractmethod
    def before(self, trajectory: Tensor, k: int, chunk: Chunk) -> Tensor:
        """Return the states before those of a chunk, (entry, hidden)."""

    @abstractmethod
    def given(self, k: int, chunk: Chunk) -> Tensor:
        """Return the inputs of a chunk in one direction, (entry, channel)."""

    @abstractmethod
    def outputs(self, trajectory: Tensor) -> Tensor:
        """Return h_{1:T} of the trajectory of the states, (row, time, direction * hidden)."""

    @abstractmethod
    def ends(self, trajectory: Tensor) -> Tensor:
        """Return the state after the last step of every row in each direction, (row, direction * hidden)."""

    @abstractmethod
    def carry(self, to_ends: Tensor | None) -> Tensor:
        """Return what the loop back begins with, as it sees a step; the gradient of `ends` goes there or to `read`."""

    @abstractmethod
    def laid(self, values: Tensor) -> Tensor:
        """Return (row, time, direction * size) as `read` wants it."""

    @abstractmethod
    def read(self, laid: Tensor | None, buffer: Tensor, chunk: Chunk) -> None:
        """Copy the gradient of a chunk's steps into its buffer; None stands for zeros."""

    @abstractmethod
    def to_given(self, k: int, chunk: Chunk) -> Tensor:
        """Return where the gradient of `given` is to be added, (entry, channel); it begins with zeros."""

    @abstractmethod
    def to_inputs(self) -> Tensor:
        """Return the gradient of the inputs, (time, row, channel), from what was added to `to_given`."""

    def by_way(self, values: Tensor) -> Tensor:
        """Return (row, direction * size) as (direction, row, size)."""
        return values.unflatten(-1, (self.count, -1)).movedim(1, 0)

    def together(self, tensors: Sequence[Tensor]) -> Tensor:
        """Return what each direction has as the loop sees it."""
        return tensors[0] if self.count == 1 else torch.stack(list(tensors))

    def add_product(self, into: Tensor, one: Tensor, other: Tensor) -> Tensor:
        """Add a product to what the loop sees at a step."""
        return into.addmm_(one, other) if self.count == 1 else into.baddbmm_(one, other)


class DenseLayout(ScanLayout):
    """All rows have all steps. Entries lie in the order of time, whichever way the loop goes."""

    def __init__(self, reverse: tuple[bool, ...], inputs: Tensor, hidden: int) -> None:
        super().__init__(reverse, inputs, hidden)
        most = max(1, min(self.steps, CHUNK // max(1, self.rows * hidden)))
        self.length = -(-self.steps // -(-self.steps // most))  # chunks of about the same length
        self.flat = inputs.flatten(0, 1)
        self._to_flat: Tensor | None = None

    def chunks(self) -> list[Chunk]:
        lengths = [(first, min(self.length, self.steps - first)) for first in range(0, self.steps, self.length)]
        return [Chunk(first, length, length * self.rows) for first, length in lengths]

    def views(self, buffer: Tensor, chunk: Chunk) -> list[Tensor]:
        return self._views(buffer, chunk.length)

    def _views(self, buffer: Tensor, length: int) -> list[Tensor]:
        buffer = buffer.unflatten(1, (length, self.rows))
        if self.count == 1:
            steps = list(buffer[0].unbind(0))
            return steps[::-1] if self.reverse[0] else steps
        # a step and the mirrored one at once
        last, (across, along, *rest) = length - 1, buffer.stride()
        size, start = (2, *buffer.shape[2:]), buffer.storage_offset()
        return [
            buffer.as_strided(size, (across + (last - 2 * s) * along, *rest), start + s * along)
            for s in range(last + 1)
        ]

    def trajectory(self, state: Tensor | None) -> Tensor:
        trajectory = self.like.new_empty(self.count, self.steps + 1, self.rows, self.hidden)
        for k, backwards in enumerate(self.reverse):
            edge = trajectory[k, -1 if backwards else 0]
            if state is None:
                edge.zero_()
            else:
                edge.copy_(state[k])
        return trajectory.flatten(1, 2)

    def path(self, trajectory: Tensor) -> list[Tensor]:
        return self._views(trajectory, self.steps + 1)

    def states(self, trajectory: Tensor, k: int, chunk: Chunk) -> Tensor:
        times = self._times(k, chunk)
        return self._between(trajectory[k], times.start + (not self.reverse[k]), times.stop + (not self.reverse[k]))

    def before(self, trajectory: Tensor, k: int, chunk: Chunk) -> Tensor:
        times = self._times(k, chunk)
        return self._between(trajectory[k], times.start + self.reverse[k], times.stop + self.reverse[k])

    def given(self, k: int, chunk: Chunk) -> Tensor:
        times = self._times(k, chunk)
        return self._between(self.flat, times.start, times.stop)

    def outputs(self, trajectory: Tensor) -> Tensor:
        trajectory = trajectory.unflatten(1, (self.steps + 1, self.rows))
        own = [part[:-1] if back else part[1:] for part, back in zip(trajectory, self.reverse, strict=True)]
        return own[0].transpose(0, 1) if self.count == 1 else torch.cat([part.transpose(0, 1) for part in own], -1)

    def ends(self, trajectory: Tensor) -> Tensor:
        last = self.path(trajectory)[-1]
        return last.clone() if self.count == 1 else torch.cat(last.unbind(0), -1)

    def carry(self, to_ends: Tensor | None) -> Tensor:
        if to_ends is None:
            to_ends = self.like.new_zeros(self.rows, self.count * self.hidden)
        return self.together([own.clone() for own in self.by_way(to_ends)])

    def laid(self, values: Tensor) -> Tensor:
        return values.transpose(0, 1)

    def read(self, laid: Tensor | None, buffer: Tensor, chunk: Chunk) -> None:
        if laid is None:
            buffer.zero_()
            return
        size = buffer.shape[-1]
        for k, steps in enumerate(buffer.unflatten(1, (chunk.length, self.rows))):
            steps.copy_(laid[self._times(k, chunk), :, k * size : (k + 1) * size])

    def to_given(self, k: int, chunk: Chunk) -> Tensor:
        if self._to_flat is None:
            self._to_flat = torch.zeros_like(self.flat)
        times = self._times(k, chunk)
        return self._between(self._to_flat, times.start, times.stop)

    def to_inputs(self) -> Tensor:
        assert self._to_flat is not None
        return self._to_flat.view_as(self.like)

    def _times(self, k: int, chunk: Chunk) -> slice:
        """Return the steps in time at which a chunk lies in one direction."""
        start = self.steps - chunk.first - chunk.length if self.reverse[k] else chunk.first
        return slice(start, start + chunk.length)

    def _between(self, flat: Tensor, start: int, stop: int) -> Tensor:
        return flat[start * self.rows : stop * self.rows]
