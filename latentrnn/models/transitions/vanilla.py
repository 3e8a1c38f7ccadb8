"""The simple (Elman) recurrent network."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from latentrnn.models.transitions.library import LibraryTransition


class VanillaRNN(LibraryTransition):
    """h_t = f(W a_t + U h_{t-1} + b), with f = tanh or relu.

    Args:
        hidden_size: number of hidden units of each layer.
        layers: number of stacked layers; readouts see the last.
        nonlinearity: "tanh" or "relu".

    Raises:
        ValueError: an unknown nonlinearity.

    References:
        Elman. Finding structure in time. 1990.
    """

    def __init__(self, hidden_size: int, layers: int = 1, nonlinearity: str = "tanh") -> None:
        if nonlinearity not in ("tanh", "relu"):
            raise ValueError(f"VanillaRNN: nonlinearity must be 'tanh' or 'relu'; found {nonlinearity!r}")
        super().__init__(hidden_size, layers)
        self.nonlinearity = nonlinearity

    def _kernel(self, input_size: int) -> nn.RNNBase:
        return nn.RNN(input_size, self.hidden_size, self.layers, nonlinearity=self.nonlinearity, batch_first=True)

    def step(self, state: Tensor, inputs: Tensor) -> Tensor:
        cell = torch.rnn_tanh_cell if self.nonlinearity == "tanh" else torch.rnn_relu_cell
        batch, below, states = state.shape[:-1], inputs.reshape(-1, inputs.shape[-1]), []
        for layer, h in enumerate(state.reshape(-1, self.state_size).chunk(self.layers, -1)):
            below = cell(below, h, *self._weights(layer))
            states.append(below)
        return torch.cat(states, -1).reshape(*batch, self.state_size)
