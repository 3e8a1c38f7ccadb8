"""A non-linear readout."""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import Tensor, nn

from latentrnn.data import DataSpec
from latentrnn.models.readouts.readout import Readout, Surroundings
from latentrnn.support.arguments import check_choice, check_size

ACTIVATIONS: dict[str, type[nn.Module]] = {"tanh": nn.Tanh, "relu": nn.ReLU, "softplus": nn.Softplus, "silu": nn.SiLU}


class MLPReadout(Readout):
    """eta_t = W f(A_L ... f(A_1 h_t + a_1) ... + a_L) + b, f elementwise.

    Args:
        hidden_size: units per hidden layer.
        layers: hidden layers.
        activation: "tanh", "relu", "softplus" or "silu".

    Raises:
        ValueError: a size below one or an unknown activation.
    """

    network_weights = ("weight",)

    def __init__(self, hidden_size: int = 32, *, layers: int = 1, activation: str = "tanh", **shared: Any) -> None:
        super().__init__(**shared)
        self.hidden_size = check_size("MLPReadout", "hidden_size", hidden_size)
        self.layers = check_size("MLPReadout", "layers", layers)
        self.activation = check_choice("MLPReadout", "activation", activation, ACTIVATIONS)

    def build(self, hidden_size: int, outputs: int, spec: DataSpec) -> None:
        sizes = [hidden_size] + [self.hidden_size] * self.layers
        hidden: list[nn.Module] = []
        for into, out in itertools.pairwise(sizes):
            hidden += [nn.Linear(into, out), ACTIVATIONS[self.activation]()]
        self.hidden = nn.Sequential(*hidden)
        self.weight = nn.Parameter(torch.zeros(outputs, self.hidden_size))
        self.baseline = nn.Parameter(torch.zeros(outputs))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw small output weights from torch's global generator; hidden layers reset themselves."""
        with torch.no_grad():
            self.weight.normal_(0.0, 0.5 / self.hidden_size**0.5)
            self.baseline.zero_()

    def forward(self, states: Tensor, surroundings: Surroundings = Surroundings()) -> Tensor:  # noqa: B008 - immutable
        return nn.functional.linear(self.hidden(states), self.weight, self.baseline)
