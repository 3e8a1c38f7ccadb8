"""The simple (Elman) recurrent network."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from latentrnn.models.transitions.library import LibraryTransition
from latentrnn.support.arguments import check_choice


class VanillaRNN(LibraryTransition):
    """h_t = f(W a_t + U h_{t-1} + b), with f = tanh or relu.

    It has no gates; "candidate", f(...) itself, is what is recorded and can be clamped.

    Args:
        hidden_size: number of hidden units of each layer.
        layers: number of stacked layers; readouts see the last.
        nonlinearity: "tanh" or "relu".
        dropout, zoneout, layer_norm: see `LibraryTransition`.

    Raises:
        ValueError: an unknown nonlinearity.

    References:
        Elman. Finding structure in time. 1990.
    """

    def __init__(self, hidden_size: int, layers: int = 1, nonlinearity: str = "tanh", **options: float) -> None:
        super().__init__(hidden_size, layers, **options)  # type: ignore[arg-type]
        self.nonlinearity = check_choice("VanillaRNN", "nonlinearity", nonlinearity, ("tanh", "relu"))

    def _kernel(self, input_size: int) -> nn.RNNBase:
        return nn.RNN(
            input_size,
            self.hidden_size,
            self.layers,
            nonlinearity=self.nonlinearity,
            batch_first=True,
            dropout=self.dropout,
        )

    def _fused(self, layer: int, inputs: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        cell = torch.rnn_tanh_cell if self.nonlinearity == "tanh" else torch.rnn_relu_cell
        return (cell(inputs, state[0], *self._weights(layer)),)

    def _written(self, projected: Tensor, recurrent: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        function = torch.tanh if self.nonlinearity == "tanh" else torch.relu
        return (self.gate("candidate", function(projected + recurrent)),)
