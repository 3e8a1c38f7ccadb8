"""The long short-term memory cell."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from latentrnn.models.transitions.library import LibraryTransition


class LSTM(LibraryTransition):
    """Long short-term memory with a forget gate.

        i_t, f_t, o_t = sigmoid(W a_t + U h_{t-1} + b), one block of weights each
        g_t = tanh(W_g a_t + U_g h_{t-1} + b_g)
        c_t = f_t * c_{t-1} + i_t * g_t
        h_t = o_t * tanh(c_t)

    The state is `[h of every layer, c of every layer]`. Recorded gates: "input" i_t, "forget" f_t, "output" o_t and
    "candidate" g_t.

    Args:
        hidden_size: number of hidden units of each layer.
        layers: number of stacked layers; readouts see the last.
        dropout, zoneout, layer_norm: see `LibraryTransition`; zoneout keeps h and c alike.

    References:
        Hochreiter, Schmidhuber. Long short-term memory. 1997.
        Gers, Schmidhuber, Cummins. Learning to forget: continual prediction with LSTM. 2000.
    """

    blocks = 2
    num_gates = 4

    def _kernel(self, input_size: int) -> nn.RNNBase:
        return nn.LSTM(input_size, self.hidden_size, self.layers, batch_first=True, dropout=self.dropout)

    def _fused(self, layer: int, inputs: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        return torch.lstm_cell(inputs, (state[0], state[1]), *self._weights(layer))

    def kept_share(self, gates: Mapping[str, Tensor]) -> Tensor:
        return gates["forget"]

    def _written(self, projected: Tensor, recurrent: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        i, f, g, o = (projected + recurrent).chunk(4, -1)
        forget, admit = self.gate("forget", torch.sigmoid(f)), self.gate("input", torch.sigmoid(i))
        cell = forget * state[1] + admit * self.gate("candidate", torch.tanh(g))
        return self.gate("output", torch.sigmoid(o)) * torch.tanh(cell), cell
