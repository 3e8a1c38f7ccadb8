"""Transitions whose products with the input are taken for all steps in one call."""

from __future__ import annotations

from abc import abstractmethod

from torch import Tensor

from latentrnn.models.transitions.transition import Transition


class ProjectedInputTransition(Transition):
    """A transition in two parts: `project_inputs`, what the input says whatever the state, and `advance`, the rest."""

    @abstractmethod
    def project_inputs(self, inputs: Tensor) -> Tensor:
        """Return what `advance` needs of inputs (..., input_size), as one tensor (..., size)."""

    @abstractmethod
    def advance(self, state: Tensor, projected: Tensor) -> Tensor:
        """Return the next state, (..., state_size), from the last one and from `project_inputs` of the input."""

    def step(self, state: Tensor, inputs: Tensor) -> Tensor:
        return self.advance(state, self.project_inputs(inputs))

    def scan(self, inputs: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        return self.along_time(self.advance, self.project_inputs(inputs), state)
