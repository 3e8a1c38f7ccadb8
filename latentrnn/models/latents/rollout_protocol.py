"""What a latent sees of a rollout, which is made with latents and so cannot be imported by them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

import pyro.distributions as dist
from torch import Tensor

from latentrnn.data import SequenceData
from latentrnn.models.latents.path import Path
from latentrnn.models.observations import HeadInputs, Observation
from latentrnn.models.transitions import Transition


class RolloutProtocol(Protocol):
    """One batch given one draw of the latents; see `Rollout`."""

    @property
    def transition(self) -> Transition:
        """The model's transition."""

    @property
    def observations(self) -> Mapping[str, Observation]:
        """The model's heads."""

    @property
    def heads(self) -> Mapping[str, Callable[..., dist.Distribution]]:
        """The heads as callables `(states, inputs, history) -> distribution`."""

    @property
    def data(self) -> SequenceData:
        """The batch."""

    @property
    def transition_inputs(self) -> Tensor:
        """Inputs of the transition from covariates, (sequence, time, channel)."""

    @property
    def path(self) -> Path:
        """The draw of the latents."""

    @property
    def inputs(self) -> Mapping[str, HeadInputs]:
        """What each head needs besides the states."""

    @property
    def outcomes(self) -> Mapping[str, Tensor]:
        """What the heads without feedback turned out to be, as far as the program has gone on."""

    @property
    def is_double(self) -> bool:
        """Whether the heads' distributions are in double precision."""

    def doubled(self, value: Tensor) -> Tensor:
        """Return a tensor in double precision where the device has it."""

    def doubled_heads(self) -> Mapping[str, Callable[..., dist.Distribution]]:
        """Return the heads likewise."""

    def states(self) -> Tensor:
        """Return what readouts see, (*sample, sequence, time, readout_size)."""

    def given(self, name: str, states: Tensor) -> dist.Distribution:
        """Return a head's distribution given what readouts see."""

    def distribution(self, name: str) -> dist.Distribution:
        """Return a head's distribution given states and the past of every head that feeds back."""
