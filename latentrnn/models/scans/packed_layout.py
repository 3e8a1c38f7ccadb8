"""Rows of different lengths in a loop over time: a row leaves when it has ended."""

from __future__ import annotations

from itertools import accumulate, pairwise

import torch
from torch import Tensor

from latentrnn.models.scans import layout
from latentrnn.models.scans.layout import Chunk, ScanLayout


class LengthOrder:
    """Rows by decreasing length, so that those still there at a step are the first; padding has no entries.

    Step s of a row is its s-th from the beginning, or from its own end where a direction runs backwards: all rows begin
    together, whichever way they go. Entries lie step by step.

    Args:
        lengths: (row,) on the CPU, not below zero.
        steps: of the longest row, and of padding.

    Attributes:
        rows: how many there are.
        order: the rows by decreasing length, (row,).
        sizes: rows at each step at which there are any.
        starts: entries before each of these steps, and of all.
        index: where an entry lies among all (time, row), (entry,).
        backwards: the same for a direction that runs backwards.
        padding: where among all (time, row) there is no entry.
        last: the last entry of each row that has any, the rows in this order.
        previous: where what is before an entry lies, after as many places for what is before the first step as there
            are rows, (entry,).
    """

    def __init__(self, lengths: Tensor, steps: int) -> None:
        self.rows = len(lengths)
        order = self.order = torch.argsort(lengths, descending=True, stable=True)
        own = lengths[order]
        step = torch.arange(steps).unsqueeze(-1)
        there = step < own
        self.sizes: list[int] = [size for size in there.sum(1).tolist() if size]
        self.starts = list(accumulate(self.sizes, initial=0))
        self.index = (step * self.rows + order)[there]
        self.backwards = ((own - 1 - step) * self.rows + order)[there]
        self.padding = (step * self.rows + order)[~there]
        ends = [self.starts[length - 1] + n for n, length in enumerate(own.tolist()) if length]
        self.last = torch.tensor(ends, dtype=torch.long)
        earlier = torch.tensor([0, *(start + self.rows for start in self.starts[:-2])])
        self.previous = (earlier[: len(self.sizes), None] + torch.arange(self.rows))[there[: len(self.sizes)]]

    @property
    def entries(self) -> int:
        """How many entries there are."""
        return self.starts[-1]


def order_of(valid: Tensor | None, shape: torch.Size) -> LengthOrder | None:
    """Return the order of rows (*sample, sequence) with steps that are `valid`, (sequence, time); None for all steps.

    On a GPU a step costs its calls, whatever the rows, and their lengths would have to be waited for: all rows stay.
    """
    if valid is None or valid.device.type != "cpu":
        return None
    return LengthOrder(valid.sum(1).expand(shape).reshape(-1), valid.shape[1])


class PackedRows:
    """Values of rows at steps as a loop forwards in time wants them: (row, time, size), or, in an order, (entry, size).

    Args:
        valid: (sequence, time), False in padding; None where there is none.
        shape: of the rows, (*sample, sequence).
        steps: how many.

    Attributes:
        order: of the rows, where they leave when they have ended; else None.
        inside: by step, (row, 1), where rows stay in padding; else None.
    """

    def __init__(self, valid: Tensor | None, shape: torch.Size, steps: int) -> None:
        self.rows, self.steps, self.order = shape.numel(), steps, order_of(valid, shape)
        self._mask: Tensor | None = None
        if valid is not None and self.order is None:
            self._mask = valid.expand(*shape, steps).reshape(self.rows, steps, 1)
        self.inside = None if self._mask is None else self._mask.unbind(1)

    def take(self, values: Tensor) -> Tensor:
        """Return (*sample, sequence, time, size) as it is wanted."""
        values = values.reshape(self.rows, self.steps, values.shape[-1])
        if self.order is None:
            return values
        return values.transpose(0, 1).reshape(self.steps * self.rows, -1).index_select(0, self.order.index)

    def take_gradient(self, gradient: Tensor | None) -> Tensor | None:
        """Return a gradient as it is wanted: none of what is in padding, where nothing is a function of anything."""
        if gradient is None:
            return None
        taken = self.take(gradient)
        return taken if self._mask is None else taken * self._mask

    def put(self, values: Tensor, padding: Tensor | float) -> Tensor:
        """Return what is as it is wanted as (row, time, size), with what stands in padding."""
        if self.order is None:
            return values if self._mask is None else torch.where(self._mask, values, padding)
        size = (self.steps, self.rows, values.shape[-1])
        if isinstance(padding, Tensor):
            found = padding.transpose(0, 1).clone(memory_format=torch.contiguous_format)
        else:
            found = values.new_empty(size)
            found.flatten(0, 1).index_fill_(0, self.order.padding, padding)
        found.flatten(0, 1).index_copy_(0, self.order.index, values)
        return found.transpose(0, 1)

    def empty(self, like: Tensor, size: int) -> Tensor:
        """Return an empty buffer, as it is wanted."""
        if self.order is None:
            return like.new_empty(self.rows, self.steps, size)
        return like.new_empty(self.order.entries, size)

    def views(self, values: Tensor) -> list[Tensor]:
        """Return what is there of each step, (row, size)."""
        return list(values.unbind(1) if self.order is None else values.split(self.order.sizes))

    def start(self, values: Tensor) -> Tensor:
        """Return (row, size) of what is before the first step, the rows as they lie."""
        return values if self.order is None else values.index_select(0, self.order.order)

    def at_start(self, values: Tensor) -> Tensor:
        """Return (row, size) of rows as they lie, of which the last may have no step at all, as they were."""
        if self.order is None:
            return values
        found = values.new_zeros(self.rows, values.shape[-1])
        return found.index_copy_(0, self.order.order[: len(values)], values)

    @staticmethod
    def backward_step(into: Tensor, given: Tensor, later: Tensor, weight: Tensor) -> None:
        """Write what is given of a step plus a product of what is there of the next one, whose rows are the first."""
        rows = len(later)
        torch.addmm(given[:rows], later, weight, out=into[:rows])
        if rows < len(into):
            into[rows:].copy_(given[rows:])

    def before(self, start: Tensor, values: Tensor) -> Tensor:
        """Return what is before each entry, (entry, size), the first being what `start` returned."""
        if self.order is None:
            return torch.cat([start.unsqueeze(1), values[:, :-1]], 1).flatten(0, 1)
        return torch.cat([start, values]).index_select(0, self.order.previous)


class PackedLayout(ScanLayout):
    """Rows leave when they have ended. They begin with a state of zero; h is zero in padding.

    Args:
        reverse, inputs, hidden: as of `ScanLayout`.
        order: of the rows.
    """

    def __init__(self, reverse: tuple[bool, ...], inputs: Tensor, hidden: int, order: LengthOrder) -> None:
        super().__init__(reverse, inputs, hidden)
        self.order = order
        self.index = [order.backwards if back else order.index for back in reverse]
        flat = inputs.flatten(0, 1)
        self.packed = [flat.index_select(0, index) for index in self.index]
        self._to_packed: list[Tensor] = []
        self._to_ends: Tensor | None = None

    def chunks(self) -> list[Chunk]:
        starts, first, found = self.order.starts, 0, []
        most = max(1, layout.CHUNK // self.hidden)
        for step, (start, stop) in enumerate(pairwise(starts)):
            if step > first and stop - starts[first] > most:
                found.append(Chunk(first, step - first, start - starts[first]))
                first = step
        last = len(starts) - 1
        return [*found, Chunk(first, last - first, starts[last] - starts[first])] if last else []

    def views(self, buffer: Tensor, chunk: Chunk) -> list[Tensor]:
        return self._views(buffer, self.order.sizes[chunk.first : chunk.first + chunk.length])

    def _views(self, buffer: Tensor, sizes: list[int]) -> list[Tensor]:
        return list(buffer[0].split(sizes)) if self.count == 1 else list(buffer.split(sizes, 1))

    def trajectory(self, state: Tensor | None) -> Tensor:
        assert state is None
        trajectory = self.like.new_empty(self.count, self.rows + self.order.entries, self.hidden)
        trajectory[:, : self.rows].zero_()
        return trajectory

    def path(self, trajectory: Tensor) -> list[Tensor]:
        return self._views(trajectory, [self.rows, *self.order.sizes])

    def states(self, trajectory: Tensor, k: int, chunk: Chunk) -> Tensor:
        return self._part(trajectory[k, self.rows :], chunk)

    def before(self, trajectory: Tensor, k: int, chunk: Chunk) -> Tensor:
        return trajectory[k].index_select(0, self._part(self.order.previous, chunk))

    def given(self, k: int, chunk: Chunk) -> Tensor:
        return self._part(self.packed[k], chunk)

    def outputs(self, trajectory: Tensor) -> Tensor:
        found = self.like.new_empty(self.steps * self.rows, self.count * self.hidden)
        found.index_fill_(0, self.order.padding, 0.0)
        for index, part, own in zip(self.index, found.split(self.hidden, -1), trajectory, strict=True):
            part.index_copy_(0, index, own[self.rows :])
        return found.unflatten(0, (self.steps, self.rows)).transpose(0, 1)

    def ends(self, trajectory: Tensor) -> Tensor:
        found = self.like.new_zeros(self.rows, self.count * self.hidden)
        rows = self.order.order[: len(self.order.last)]
        last = torch.cat([own[self.rows :].index_select(0, self.order.last) for own in trajectory], -1)
        return found.index_copy_(0, rows, last)

    def carry(self, to_ends: Tensor | None) -> Tensor:
        self._to_ends = None if to_ends is None else self.by_way(to_ends).index_select(1, self.order.order)
        return self.together(list(self.like.new_zeros(self.count, self.rows, self.hidden)))

    def laid(self, values: Tensor) -> Tensor:
        return values.transpose(0, 1).reshape(self.steps * self.rows, self.count, -1)

    def read(self, laid: Tensor | None, buffer: Tensor, chunk: Chunk) -> None:
        for k, (index, own) in enumerate(zip(self.index, buffer, strict=True)):
            if laid is None:
                own.zero_()
            else:
                torch.index_select(laid[:, k], 0, self._part(index, chunk), out=own)
        if self._to_ends is None:
            return
        # the rows that end here come last of those that are still there
        stop, sizes = chunk.first + chunk.length, self.order.sizes
        ending = slice(sizes[stop] if stop < len(sizes) else 0, sizes[chunk.first])
        last = self.order.last[ending] - self.order.starts[chunk.first]
        if len(last):
            buffer.index_add_(1, last, self._to_ends[:, ending])

    def to_given(self, k: int, chunk: Chunk) -> Tensor:
        if not self._to_packed:
            self._to_packed = [torch.zeros_like(own) for own in self.packed]
        return self._part(self._to_packed[k], chunk)

    def to_inputs(self) -> Tensor:
        found = torch.zeros_like(self.like)
        for index, own in zip(self.index, self._to_packed, strict=bool(self._to_packed)):
            found.flatten(0, 1).index_add_(0, index, own)
        return found

    def _part(self, entries: Tensor, chunk: Chunk) -> Tensor:
        start = self.order.starts[chunk.first]
        return entries[start : start + chunk.entries]
