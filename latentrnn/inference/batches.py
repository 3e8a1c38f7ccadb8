"""The batches of a fit: shuffled passes over the data that can be left and taken up again anywhere."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from latentrnn.data import SequenceData, StoredSequences
from latentrnn.data.batching import plan
from latentrnn.inference.distributed import Alone


class Batches:
    """Endless batches; each pass visits every sequence once, in an order of its own.

    Several processes have the same order, and each gets its share of every batch.
    """

    def __init__(
        self,
        data: SequenceData | StoredSequences,
        batch_size: int,
        generator: torch.Generator,
        processes: Alone | None = None,
    ) -> None:
        self.data, self.batch_size, self.generator = data, batch_size, generator
        self.processes = processes or Alone()
        self.order: list[Tensor] = []
        self.position = 0  # batches of this pass that were handed out
        self.start = generator.get_state()  # of the generator, before it made this pass's order

    def next(self) -> SequenceData:
        """Return the next batch."""
        if self.batch_size >= len(self.data):
            return self.processes.share(self.data, None)  # type: ignore[arg-type]
        if self.position == len(self.order):
            self._begin(self.generator.get_state())
        self.position += 1
        batch = self.processes.share(self.data, self.order[self.position - 1])  # type: ignore[arg-type]
        self._read_ahead()
        return batch

    def _read_ahead(self) -> None:
        data, alone = self.data, self.processes.size == 1
        if isinstance(data, StoredSequences) and not data.unread and alone and self.position < len(self.order):
            data.expect(self.order[self.position])

    def current(self) -> SequenceData:
        """Return the batch that was handed out last."""
        found: Any = self.data
        return found if self.batch_size >= len(self.data) else found.batch(self.order[self.position - 1])

    def close(self) -> None:
        """Leave nothing behind that reads ahead."""
        if isinstance(self.data, StoredSequences):
            self.data.close()

    def go_to(self, start: Tensor, position: int) -> None:
        """Go to where other batches of the same data and size were: their `start` and `position`."""
        self.generator.set_state(start)
        if position:
            self._begin(start)
        self.position = position

    def _begin(self, start: Tensor) -> None:
        self.start, self.position = start, 0
        self.order = list(plan(self.data.host_lengths, self.batch_size, self.data.padded, self.generator))
