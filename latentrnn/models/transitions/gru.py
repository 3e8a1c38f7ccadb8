"""The gated recurrent unit."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from latentrnn.models.transitions.library import LibraryTransition


class GRU(LibraryTransition):
    """Gated recurrent unit, with the reset gate applied after the product, as in torch and cuDNN.

        r_t = sigmoid(W_r a_t + b_r + U_r h_{t-1} + c_r)
        z_t = sigmoid(W_z a_t + b_z + U_z h_{t-1} + c_z)
        n_t = tanh(W_n a_t + b_n + r_t * (U_n h_{t-1} + c_n))
        h_t = (1 - z_t) * n_t + z_t * h_{t-1}

    Recorded gates: "reset" r_t, "candidate" n_t and "update" 1 - z_t, the share of the candidate in the new state:
    papers often call that the update gate, of which torch's z_t is the complement.

    Args:
        hidden_size: number of hidden units of each layer.
        layers: number of stacked layers; readouts see the last.
        dropout, zoneout, layer_norm: see `LibraryTransition`.

    References:
        Cho, van Merrienboer, Gulcehre, Bahdanau, Bougares, Schwenk, Bengio. Learning phrase representations using
        RNN encoder-decoder for statistical machine translation. 2014.
    """

    num_gates = 3

    def _kernel(self, input_size: int) -> nn.RNNBase:
        return nn.GRU(input_size, self.hidden_size, self.layers, batch_first=True, dropout=self.dropout)

    def _fused(self, layer: int, inputs: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        return (torch.gru_cell(inputs, state[0], *self._weights(layer)),)

    def kept_share(self, gates: Mapping[str, Tensor]) -> Tensor:
        return 1 - gates["update"]

    def _written(self, projected: Tensor, recurrent: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        (reset_in, update_in, candidate_in), (reset_re, update_re, candidate_re) = (
            part.chunk(3, -1) for part in (projected, recurrent)
        )
        reset = self.gate("reset", torch.sigmoid(reset_in + reset_re))
        update = self.gate("update", torch.sigmoid(-update_in - update_re))
        candidate = self.gate("candidate", torch.tanh(candidate_in + reset * candidate_re))
        return ((1 - update) * state[0] + update * candidate,)
