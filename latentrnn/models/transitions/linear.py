"""The linear transition."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from latentrnn.models.parameters.parameter_spec import ParameterSpec
from latentrnn.models.transitions.transition import Transition
from latentrnn.support.arguments import check_size


class Linear(Transition):
    """h_t = A h_{t-1} + B a_t + b: with `MarkovNormal` and `Gaussian`, the Kalman filter's model (`LinearGaussian`).

    A starts at 0.9 times the identity plus small noise, so that an untrained state neither dies nor explodes.

    Args:
        hidden_size: dimension of the state.
    """

    declared: ClassVar = {
        "weight": ParameterSpec("recurrent_weight", dims=("state", "state before")),
        "input_weight": ParameterSpec("input_weight", dims=("state", "input")),
        "bias": ParameterSpec("bias", dims=("state",)),
    }

    is_network = False
    input_units = "standard"

    def __init__(self, hidden_size: int, **shared: Any) -> None:
        super().__init__(**shared)
        self.hidden_size = self.state_size = check_size("Linear", "hidden_size", hidden_size)

    def build(self, input_size: int) -> None:
        self.input_size = input_size
        self.recurrent_weight = nn.Parameter(torch.empty(self.hidden_size, self.hidden_size))
        self.input_weight = nn.Parameter(torch.empty(self.hidden_size, input_size))
        self.bias = nn.Parameter(torch.empty(self.hidden_size))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw starting values from torch's global generator."""
        with torch.no_grad():
            noise = torch.randn_like(self.recurrent_weight) * 0.1 / self.hidden_size**0.5
            self.recurrent_weight.copy_(0.9 * torch.eye(self.hidden_size) + noise)
            self.input_weight.normal_(0.0, (1.0 / max(self.input_size, 1)) ** 0.5)
            self.bias.zero_()

    def step(self, state: Tensor, inputs: Tensor) -> Tensor:
        return F.linear(state, self.recurrent_weight, self.bias) + F.linear(inputs, self.input_weight)

    def scan(self, inputs: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        # the input's part does not depend on the state: one product for all steps
        projected = F.linear(inputs, self.input_weight, self.bias)
        return self.along_time(lambda h, part: F.linear(h, self.recurrent_weight) + part, projected, state)
