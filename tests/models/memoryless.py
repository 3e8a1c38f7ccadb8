"""A transition without memory, so that whatever joins the steps is the readout's or the pooling's doing."""

from __future__ import annotations

import torch
from torch import Tensor

import latentrnn as lr


class Memoryless(lr.Transition):
    """h_t = W a_t + b."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.hidden_size = self.state_size = hidden_size

    def build(self, input_size: int) -> None:
        self.map = torch.nn.Linear(input_size, self.hidden_size)

    def step(self, state: Tensor, inputs: Tensor) -> Tensor:
        return self.map(inputs)
