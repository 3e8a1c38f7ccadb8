"""Transitions whose scan is a fused kernel of torch (cuDNN on a GPU, oneDNN where torch has it)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from latentrnn.models.transitions.transition import Transition, broadcast_batch, check_size


class LibraryTransition(Transition):
    """The common part of `VanillaRNN`, `GRU` and `LSTM`: stacked layers, state packing, the fused scan."""

    blocks = 1  # hidden-sized tensors per layer in the state: 1, or 2 where there is a cell state

    def __init__(self, hidden_size: int, layers: int = 1) -> None:
        super().__init__()
        self.hidden_size = check_size(type(self).__name__, "hidden_size", hidden_size)
        self.layers = check_size(type(self).__name__, "layers", layers)
        self.state_size = self.blocks * layers * hidden_size

    def _kernel(self, input_size: int) -> nn.RNNBase:
        raise NotImplementedError

    def build(self, input_size: int) -> None:
        self.input_size = input_size
        self.kernel = self._kernel(input_size)

    def output(self, state: Tensor) -> Tensor:
        last = (self.layers - 1) * self.hidden_size
        return state[..., last : last + self.hidden_size]

    def scan(self, inputs: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        inputs, state = broadcast_batch(inputs, state)
        batch, steps = inputs.shape[:-2], inputs.shape[-2]
        flat = inputs.reshape(-1, steps, inputs.shape[-1])
        outputs, last = self.kernel(flat, self._unpack(state.reshape(-1, self.state_size)))
        return outputs.reshape(*batch, steps, self.hidden_size), self._pack(last).reshape(*batch, self.state_size)

    def _unpack(self, state: Tensor) -> Any:
        layers = state.view(-1, self.blocks, self.layers, self.hidden_size).permute(1, 2, 0, 3).contiguous()
        return layers[0] if self.blocks == 1 else (layers[0], layers[1])

    def _pack(self, last: Any) -> Tensor:
        parts = (last,) if self.blocks == 1 else last
        return torch.cat([part.permute(1, 0, 2).reshape(part.shape[1], -1) for part in parts], -1)

    def _weights(self, layer: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        names = (f"{kind}_l{layer}" for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
        return tuple(getattr(self.kernel, name) for name in names)  # type: ignore[return-value]
