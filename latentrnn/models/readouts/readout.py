"""The map from states to a head's raw outputs: the contract that every readout fulfils."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import Tensor

from latentrnn.data import DataSpec, SequenceData
from latentrnn.models.component import Component
from latentrnn.models.features.feature import CovariateReader
from latentrnn.models.transitions.transition import Transition


class Surroundings(NamedTuple):
    """What a readout may need besides the states it is given; None where it needs nothing.

    Attributes:
        context: features of every frame, (sequence, time, feature).
        source: a sequence to attend to as a whole, (sequence, source time, feature).
        source_valid: which steps of the source exist, booleans (sequence, source time).
        past: states before those given, (*sample, sequence, earlier, hidden_size), when running step by step.
    """

    context: Tensor | None = None
    source: Tensor | None = None
    source_valid: Tensor | None = None
    past: Tensor | None = None

    def at(self, t: int) -> Surroundings:
        """Return the surroundings of one frame, with a time axis of length one."""
        return self if self.context is None else self._replace(context=self.context[..., t : t + 1, :])

    def split(self, frames: int, count: int) -> list[Surroundings]:
        """Return the surroundings of consecutive stretches of this many frames, as many as `count`."""
        if self.context is None:
            return [self] * count
        return [self._replace(context=context) for context in self.context.split(frames, -2)]


class Readout(Component):
    """eta_t = readout(h_{<=t}).

    A readout is evaluated for all steps at once, and step by step where a head feeds back or a particle filter
    runs. One that reads earlier states says in `memory` how many; it is then handed that many in
    `surroundings.past` at every step, each particle its own. Every readout has a `baseline`, (outputs,), added last.
    """

    memory: int | None = 0  # earlier states that it reads; None for all of them
    lookahead: float = 0  # steps of covariates after t that it uses; infinite for the whole sequence
    broadcasts = False  # whether it takes draws of its parameters, (*sample, 1, *shape), in their places as they are
    along_time = False  # whether states must have a time axis, which a per-sequence head's state has not
    per_output: tuple[str, ...] = ()  # parameters that eta is linear in, one row for each output
    parts: Mapping[str, slice] = MappingProxyType({})  # channels with a name (streams), known before `build`
    baseline: Tensor

    @abstractmethod
    def build(self, hidden_size: int, outputs: int, spec: DataSpec) -> None:
        """Create the parameters for states of `hidden_size` and this many raw outputs."""

    def attach(self, transition: Transition, inputs: CovariateReader, names: list[str], others: int) -> None:
        """Take in where the states come from; called once, when all parts of the model are built.

        Args:
            transition: the model's.
            inputs: what drives it, as far as that is features of covariates.
            names: the covariate of each of them, "" for a feature.
            others: how many channels besides them the states depend on: innovations, fed-back heads, and what is drawn
                into the states themselves.
        """

    def check(self, data: SequenceData) -> None:
        """Raise a ValueError that names the first value of a covariate that the readout cannot take in."""

    def surroundings(self, data: SequenceData) -> Surroundings:
        """Return what it reads of a batch besides the states, at the model's steps; nothing, if not overridden."""
        return Surroundings()

    @abstractmethod
    def forward(self, states: Tensor, surroundings: Surroundings = Surroundings()) -> Tensor:  # noqa: B008 - immutable
        """Return eta, (..., time, outputs), of states (..., time, hidden_size)."""

    def remember(self, past: Tensor | None, state: Tensor) -> Tensor | None:
        """Return the `past` of the next step, given this one's, (..., earlier, hidden_size), and h_t."""
        if self.memory == 0:
            return None
        past = state.unsqueeze(-2) if past is None else torch.cat([past, state.unsqueeze(-2)], -2)
        return past if self.memory is None else past[..., -self.memory :, :]


def with_past(states: Tensor, past: Tensor | None) -> Tensor:
    """Return earlier and present states in one, (..., earlier + time, hidden_size)."""
    if past is None:
        return states
    batch = torch.broadcast_shapes(states.shape[:-2], past.shape[:-2])
    return torch.cat([past.expand(*batch, *past.shape[-2:]), states.expand(*batch, *states.shape[-2:])], -2)
