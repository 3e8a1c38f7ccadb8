"""The gated recurrent unit."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from latentrnn.models.transitions.library import LibraryTransition


class GRU(LibraryTransition):
    """Gated recurrent unit, with the reset gate applied after the product, as in torch and cuDNN.

        r_t = sigmoid(W_r a_t + b_r + U_r h_{t-1} + c_r)
        z_t = sigmoid(W_z a_t + b_z + U_z h_{t-1} + c_z)
        n_t = tanh(W_n a_t + b_n + r_t * (U_n h_{t-1} + c_n))
        h_t = (1 - z_t) * n_t + z_t * h_{t-1}

    Papers often write the complement: their update gate is 1 - z_t.

    Args:
        hidden_size: number of hidden units of each layer.
        layers: number of stacked layers; readouts see the last.

    References:
        Cho, van Merrienboer, Gulcehre, Bahdanau, Bougares, Schwenk, Bengio. Learning phrase representations using
        RNN encoder-decoder for statistical machine translation. 2014.
    """

    def _kernel(self, input_size: int) -> nn.RNNBase:
        return nn.GRU(input_size, self.hidden_size, self.layers, batch_first=True)

    def step(self, state: Tensor, inputs: Tensor) -> Tensor:
        batch, below, states = state.shape[:-1], inputs.reshape(-1, inputs.shape[-1]), []
        for layer, h in enumerate(state.reshape(-1, self.state_size).chunk(self.layers, -1)):
            below = torch.gru_cell(below, h, *self._weights(layer))
            states.append(below)
        return torch.cat(states, -1).reshape(*batch, self.state_size)
