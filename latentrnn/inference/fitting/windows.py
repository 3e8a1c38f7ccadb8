"""Batches of long sequences, window by window."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from latentrnn.data import SequenceData, StoredSequences
from latentrnn.inference.fitting.batches import Batches
from latentrnn.inference.guides.windows import Reach


class WindowedBatches:
    """Endless windows: those of a batch in order, each with what the one before left, then those of the next batch."""

    def __init__(self, batches: Batches, cut: Reach) -> None:
        self.batches, self.reach = batches, cut
        self.batch: SequenceData | StoredSequences | None = None
        self.index = 0  # the next window
        self.latest: SequenceData | None = None
        self.kept: Mapping[str, Tensor] | None = None  # what the latest window left, where it is not at hand

    @property
    def start(self) -> Tensor:
        """Where the generator was before it made this pass's order."""
        return self.batches.start

    @property
    def position(self) -> int:
        """Batches of this pass that were handed out."""
        return self.batches.position

    @property
    def steps_of_a_batch(self) -> float:
        """Windows that a batch of this pass has, on average."""
        return self.batches.steps_of_a_batch

    @property
    def left(self) -> Mapping[str, Tensor]:
        """What the latest window left, empty where the next one begins a batch."""
        if self.index == 0:
            return {}
        if self.latest is not None and self.latest.around is not None:
            return self.latest.around.carry_out
        return self.kept or {}

    def next(self) -> SequenceData:
        """Return the next window."""
        if self.batch is None:
            self.batch, self.index = self.batches.next(), 0
        places = self.reach.windows(self.batch.num_steps)
        if len(places) == 1:
            found, self.batch = self.batch, None
            return found.load_batch() if isinstance(found, StoredSequences) else found
        carry_in = self.left if self.index else None
        # every window is a step, and each step of the pass stands for all of its steps
        total = self.batches.steps * self.batch.num_sequences
        self.latest = self.reach.cut(self.batch, places[self.index], carry_in, total)
        self.index += 1
        if self.index < len(places):
            self.reach.expect(self.batch, places[self.index])
        if self.index == len(places):
            self.batch, self.index = None, 0
        return self.latest

    def close(self) -> None:
        """Leave nothing behind that reads ahead."""
        self.batches.close()

    def give_up(self) -> None:
        """Leave the batch, whose state may be what went wrong."""
        self.batch, self.index = None, 0

    def begin_anew(self, start: Tensor, position: int) -> None:
        """Begin the pass after the one in which other windows were; see `Batches`."""
        self.batches.begin_anew(start, position)
        self.batch, self.index, self.latest, self.kept = None, 0, None, None

    def go_to(self, start: Tensor, position: int, index: int = 0, left: Mapping[str, Tensor] | None = None) -> None:
        """Go to where other windows of the same data were."""
        self.batches.go_to(start, position)
        self.batch, self.index, self.latest, self.kept = None, index, None, left
        if index:
            self.batch = self.batches.current()
