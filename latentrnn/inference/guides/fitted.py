"""What is asked of a fit by those who use one: a model, its guide, and the sequences that both were learned from."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from latentrnn.data import SequenceKey
from latentrnn.inference.guides.guide import Guide
from latentrnn.models.state_space import LatentRNN


@runtime_checkable
class Fitted(Protocol):
    """A fitted model with its guide: a `FitResult`, or a `Posterior`."""

    @property
    def model(self) -> LatentRNN:
        """The model."""

    @property
    def guide(self) -> Guide:
        """The guide of its latents, and of its parameters with priors."""


@runtime_checkable
class Provenance(Protocol):
    """The sequences that a model and its guide were learned from; a `FitResult` knows them."""

    @property
    def used(self) -> frozenset[SequenceKey]:
        """Identity of every sequence that was fitted or decided when to stop."""

    @property
    def conditioned_on(self) -> frozenset[SequenceKey] | None:
        """Identity of those that parameters with a posterior were conditioned on; None where it is not known."""

    @property
    def learned_from(self) -> frozenset[SequenceKey]:
        """Identity of those from which what has no prior was learned."""


@runtime_checkable
class Fit(Fitted, Provenance, Protocol):
    """Both: a `FitResult`."""
