"""The batches of a fit: shuffled passes over the data that can be left and taken up again anywhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from latentrnn.data import SequenceData, StoredSequences
from latentrnn.data.views.batches import batch_order
from latentrnn.inference.fitting.distributed.processes import SingleProcess


class Place(NamedTuple):
    """Where batches are, from which others of the same data go on.

    Attributes:
        start: state of the generator before it made this pass's order.
        position: batches of this pass that were handed out.
        window: the next window of the present batch.
        carry: what the window before it left.
    """

    start: Tensor
    position: int
    window: int = 0
    carry: Mapping[str, Tensor] = {}


class Batches:
    """Endless batches; each pass visits every sequence once, in an order of its own.

    A sequence counts in the loss of its step as often as there are steps in the pass, whatever the size of its batch.
    So the average of the steps' gradients is the gradient of the whole, in which every sequence counts once, as
    parameters with priors do, whose terms are in every step.

    Several processes have the same order, and each gets its share of every batch.

    Args:
        data: what to go through.
        batch_size: sequences of a batch at most.
        generator: of the order.
        processes: that share the batches.
        steps_of: how many steps a batch of so many base steps takes: one, or as many as it has windows.
    """

    def __init__(
        self,
        data: SequenceData | StoredSequences,
        batch_size: int,
        generator: torch.Generator,
        processes: SingleProcess | None = None,
        steps_of: Callable[[int], int] = lambda num_steps: 1,
    ) -> None:
        self.data, self.batch_size, self.generator = data, batch_size, generator
        self.processes, self.steps_of = processes or SingleProcess(), steps_of
        self.order: list[Tensor] = []
        self.position = 0  # batches of this pass that were handed out
        self.start = generator.get_state()  # of the generator, before it made this pass's order
        self.whole = batch_size >= len(data)  # every pass is one batch
        self.steps = steps_of(data.num_steps) if self.whole else 0  # optimizer steps of this pass

    @property
    def steps_of_a_batch(self) -> float:
        """Optimiser steps that a batch of this pass takes, on average."""
        return self.steps / max(len(self.order), 1)

    def next(self) -> SequenceData:
        """Return the next batch."""
        if self.whole:
            return self.processes.share(self.data, None)  # type: ignore[arg-type]
        if self.position == len(self.order):
            self._begin(self.generator.get_state())
        self.position += 1
        positions = self.order[self.position - 1]
        batch = self.processes.share(self.data, positions, self._total(positions))  # type: ignore[arg-type]
        self._read_ahead()
        return batch

    def _total(self, positions: Tensor) -> int:
        """Return how many sequences a batch stands for."""
        return self.steps * len(positions)

    def _read_ahead(self) -> None:
        data, alone = self.data, self.processes.size == 1
        if isinstance(data, StoredSequences) and not data.unread and alone and self.position < len(self.order):
            positions = self.order[self.position]
            data.expect(positions, total=self._total(positions))

    def current(self) -> SequenceData:
        """Return the batch that was handed out last."""
        found: Any = self.data
        if self.whole:
            return found
        positions = self.order[self.position - 1]
        return found.batch(positions, total=self._total(positions))

    def close(self) -> None:
        """Leave nothing behind that reads ahead."""
        if isinstance(self.data, StoredSequences):
            self.data.close()

    def abandon_batch(self) -> None:
        """Leave the present batch, whose state may be what went wrong; here, batches have none."""

    def place(self) -> Place:
        """Return where these batches are."""
        return Place(self.start, self.position)

    def go_to(self, place: Place) -> None:
        """Go to where other batches of the same data and size were.

        Raises:
            ValueError: a pass has fewer batches.
        """
        self.generator.set_state(place.start)
        if place.position:
            self._begin(place.start)
        if place.position > len(self.order):
            raise ValueError(f"position {place.position} in a pass of {len(self.order)} batches")
        self.position = place.position

    def begin_pass_after(self, place: Place) -> None:
        """Go to the end of the pass in which other batches of these data were, which were cut in another way."""
        self.generator.set_state(place.start)
        if place.position:
            self._begin(place.start)
        self.position = len(self.order)

    def _begin(self, start: Tensor) -> None:
        data = self.data
        self.start, self.position = start, 0
        self.order = batch_order(data.host_lengths, self.batch_size, data.padded, self.generator)
        longest = [max(int(data.host_lengths[batch.numpy()].max()), data.spec.slowest) for batch in self.order]
        self.steps = sum(map(self.steps_of, longest))
