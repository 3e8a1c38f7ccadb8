"""The transition of the deep Markov model."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from latentrnn.models.transitions.projected_input import ProjectedInputTransition
from latentrnn.support.arguments import check_size


class GatedTransition(ProjectedInputTransition):
    """Each dimension chooses, by a gate, between a linear and a nonlinear step.

        g_t = sigmoid(MLP_g(z_{t-1}, a_t))
        h_t = (1 - g_t) * (W z_{t-1} + B a_t + b) + g_t * MLP_n(z_{t-1}, a_t)

    Both networks have one hidden layer of rectified units; W starts as the identity. With
    `MarkovNormal(scale="state")` this is the deep Markov model. Recorded gate: "gate" g_t.

    Args:
        hidden_size: dimension of the state.
        width: hidden units of each network.

    References:
        Krishnan, Shalit, Sontag. Structured inference networks for nonlinear state space models. 2017.
    """

    input_units = "standard"

    def __init__(self, hidden_size: int, width: int = 32, **shared: Any) -> None:
        super().__init__(**shared)
        self.hidden_size = self.state_size = check_size("GatedTransition", "hidden_size", hidden_size)
        self.width = check_size("GatedTransition", "width", width)

    def build(self, input_size: int) -> None:
        # columns of both: the gate's hidden units, the nonlinear step's, and the linear step
        self.input_map = nn.Linear(input_size, 2 * self.width + self.hidden_size)
        self.state_map = nn.Linear(self.hidden_size, 2 * self.width + self.hidden_size, bias=False)
        self.gate_map = nn.Linear(self.width, self.hidden_size)
        self.nonlinear_map = nn.Linear(self.width, self.hidden_size)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Start the linear step at the identity."""
        with torch.no_grad():
            self.state_map.weight[2 * self.width :] = torch.eye(self.hidden_size)
            self.input_map.bias[2 * self.width :] = 0.0

    def project_inputs(self, inputs: Tensor) -> Tensor:
        return self.input_map(inputs)

    def advance(self, state: Tensor, projected: Tensor) -> Tensor:
        sizes = [self.width, self.width, self.hidden_size]
        gate_units, units, linear = (projected + self.state_map(state)).split(sizes, -1)
        gate = self.gate("gate", torch.sigmoid(self.gate_map(F.relu(gate_units))))
        return torch.lerp(linear, self.nonlinear_map(F.relu(units)), gate)
