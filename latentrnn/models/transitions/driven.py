"""Transitions whose products with the input are taken for all steps in one call."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from latentrnn.models.transitions.transition import Transition, broadcast_batch


class DrivenTransition(Transition):
    """A transition in two parts: `drive`, what the input says whatever the state, and `advance`, the rest."""

    @abstractmethod
    def drive(self, inputs: Tensor) -> Tensor:
        """Return what `advance` needs of inputs (..., input_size), as one tensor (..., size)."""

    @abstractmethod
    def advance(self, state: Tensor, driven: Tensor) -> Tensor:
        """Return the next state, (..., state_size), from the last one and from `drive` of the input."""

    def step(self, state: Tensor, inputs: Tensor) -> Tensor:
        return self.advance(state, self.drive(inputs))

    def scan(self, inputs: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        driven, state = broadcast_batch(self.drive(inputs), state)
        outputs = []
        for part in driven.unbind(-2):
            state = self.advance(state, part)
            outputs.append(self.output(state))
        return torch.stack(outputs, -2), state
