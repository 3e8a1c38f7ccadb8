"""The long short-term memory cell."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from latentrnn.models.transitions.library import LibraryTransition


class LSTM(LibraryTransition):
    """Long short-term memory with a forget gate.

        i_t, f_t, o_t = sigmoid(W a_t + U h_{t-1} + b), one block of weights each
        g_t = tanh(W_g a_t + U_g h_{t-1} + b_g)
        c_t = f_t * c_{t-1} + i_t * g_t
        h_t = o_t * tanh(c_t)

    The state is `[h of every layer, c of every layer]`.

    Args:
        hidden_size: number of hidden units of each layer.
        layers: number of stacked layers; readouts see the last.

    References:
        Hochreiter, Schmidhuber. Long short-term memory. 1997.
        Gers, Schmidhuber, Cummins. Learning to forget: continual prediction with LSTM. 2000.
    """

    blocks = 2

    def _kernel(self, input_size: int) -> nn.RNNBase:
        return nn.LSTM(input_size, self.hidden_size, self.layers, batch_first=True)

    def step(self, state: Tensor, inputs: Tensor) -> Tensor:
        batch, below = state.shape[:-1], inputs.reshape(-1, inputs.shape[-1])
        parts = state.reshape(-1, self.state_size).chunk(2 * self.layers, -1)
        hidden, cells = [], []
        for layer in range(self.layers):
            below, cell = torch.lstm_cell(below, (parts[layer], parts[self.layers + layer]), *self._weights(layer))
            hidden.append(below)
            cells.append(cell)
        return torch.cat(hidden + cells, -1).reshape(*batch, self.state_size)
