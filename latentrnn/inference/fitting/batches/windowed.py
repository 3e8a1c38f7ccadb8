"""Batches of long sequences, window by window."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from latentrnn.data import SequenceData, StoredSequences
from latentrnn.inference.fitting.batches.batches import Batches, Place
from latentrnn.inference.guides.windows import WindowPlan


class WindowedBatches:
    """Endless windows: those of a batch in order, each with what the one before carries out; then of the next batch."""

    def __init__(self, batches: Batches, plan: WindowPlan) -> None:
        self.batches, self.plan = batches, plan
        self.batch: SequenceData | StoredSequences | None = None
        self.index = 0  # the next window
        self.latest: SequenceData | None = None
        self.kept: Mapping[str, Tensor] | None = None  # what the latest window carries out, where it is not at hand

    @property
    def steps_of_a_batch(self) -> float:
        """Windows that a batch of this pass has, on average."""
        return self.batches.steps_of_a_batch

    @property
    def carry(self) -> Mapping[str, Tensor]:
        """What the latest window carries out, empty where the next one begins a batch."""
        if self.index == 0:
            return {}
        if self.latest is not None and self.latest.around is not None:
            return self.latest.around.carry_out
        return self.kept or {}

    def next(self) -> SequenceData:
        """Return the next window."""
        if self.batch is None:
            self.batch, self.index = self.batches.next(), 0
        places = self.plan.windows(self.batch.num_steps)
        if len(places) == 1:
            found, self.batch = self.batch, None
            return found.load_batch() if isinstance(found, StoredSequences) else found
        carry_in = self.carry if self.index else None
        # every window is a step, and each step of the pass stands for all of its steps
        total = self.batches.steps * self.batch.num_sequences
        self.latest = self.plan.cut(self.batch, places[self.index], carry_in, total)
        self.index += 1
        if self.index < len(places):
            self.plan.expect(self.batch, places[self.index])
        if self.index == len(places):
            self.batch, self.index = None, 0
        return self.latest

    def close(self) -> None:
        """Leave nothing behind that reads ahead."""
        self.batches.close()

    def abandon_batch(self) -> None:
        """Leave the present batch, whose state may be what went wrong."""
        self.batch, self.index = None, 0

    def place(self) -> Place:
        """Return where these windows are."""
        return self.batches.place()._replace(window=self.index, carry=self.carry)

    def begin_pass_after(self, place: Place) -> None:
        """Begin the pass after the one in which other windows were; see `Batches`."""
        self.batches.begin_pass_after(place)
        self.batch, self.index, self.latest, self.kept = None, 0, None, None

    def go_to(self, place: Place) -> None:
        """Go to where other windows of the same data were."""
        self.batches.go_to(place)
        self.batch, self.index, self.latest, self.kept = None, place.window, None, place.carry
        if place.window:
            self.batch = self.batches.current()
