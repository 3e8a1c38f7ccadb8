"""Transitions whose weights are those of a module of torch, scanned by its kernel or by a faster loop."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from latentrnn.models.parameters.parameter_spec import ParameterSpec
from latentrnn.models.scans import layer_of, over_members, run, step_is_recorded
from latentrnn.models.transitions.transition import Transition, broadcast_batch
from latentrnn.support.arguments import check_flag, check_rate, check_size


class LibraryTransition(Transition):
    """The common part of `VanillaRNN`, `GRU` and `LSTM`: stacked layers, state packing, the fast scan, options.

    What the fast scans cannot do goes step by step: layer norm, zoneout, and gates that are recorded
    or clamped. Dropout and zoneout are random in training mode, in which `fit` puts a model, and averages otherwise.

    Args:
        hidden_size: number of hidden units of each layer.
        layers: number of stacked layers; readouts see the last.
        dropout: rate at which inputs from the layer below are dropped, anew at each step; it needs two layers.
        zoneout: rate at which a unit keeps its last value.
        layer_norm: normalise the recurrent products, U h_{t-1}, over each gate's units, with a learned gain. The
            inputs' products are left alone: normalised, a single input channel would keep nothing but its sign.

    Raises:
        ValueError: a size below one, a rate outside [0, 1), dropout with one layer, layer norm with one unit.

    References:
        Ba, Kiros, Hinton. Layer normalization. 2016.
        Krueger et al. Zoneout: regularizing RNNs by randomly preserving hidden activations. 2017.
        Zaremba, Sutskever, Vinyals. Recurrent neural network regularization. 2014.
    """

    declared: ClassVar = {"norm_gain": ParameterSpec("norm_gain", dims=("layer", "gate", "unit"), around=1.0)}
    input_units = "standard"

    blocks = 1  # hidden-sized tensors per layer in the state: 1, or 2 where there is a cell state
    num_gates = 1  # hidden-sized pre-activations of each layer

    def __init__(
        self,
        hidden_size: int,
        layers: int = 1,
        *,
        dropout: float = 0.0,
        zoneout: float = 0.0,
        layer_norm: bool = False,
        **shared: Any,
    ) -> None:
        super().__init__(**shared)
        owner = type(self).__name__
        self.hidden_size = check_size(owner, "hidden_size", hidden_size)
        self.layers = check_size(owner, "layers", layers)
        self.dropout = check_rate(owner, "dropout", dropout)
        self.zoneout = check_rate(owner, "zoneout", zoneout)
        self.layer_norm = check_flag(owner, "layer_norm", layer_norm)
        if self.dropout and self.layers == 1:
            raise ValueError(f"{owner}: dropout acts between layers; expected layers >= 2; found {layers}")
        if self.layer_norm and self.hidden_size == 1:
            raise ValueError(f"{owner}: layer_norm would set a single unit to zero; expected hidden_size >= 2")
        self.state_size = self.blocks * self.layers * self.hidden_size

    @abstractmethod
    def _kernel(self, input_size: int) -> nn.RNNBase:
        """Return torch's module, which holds the weights."""

    @abstractmethod
    def _fused(self, layer: int, inputs: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        """Return the new parts of one layer's state by torch's own cell; all are (row, size)."""

    @abstractmethod
    def _written(self, projected: Tensor, recurrent: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        """Return the new parts of one layer's state from W a + b and U h + c, (..., num_gates * hidden_size) each."""

    def build(self, input_size: int) -> None:
        self.input_size = input_size
        self.kernel = self._kernel(input_size)
        if self.layer_norm:
            self.norm_gain = nn.Parameter(torch.ones(self.layers, self.num_gates, self.hidden_size))

    def reset_parameters(self) -> None:
        """Return the gains of the layer norm to one; torch's module draws its own weights."""
        if self.layer_norm:
            nn.init.ones_(self.norm_gain)

    @property
    def by_rows(self) -> bool:
        return super().by_rows and not (self.training and (self.dropout or self.zoneout))

    def output(self, state: Tensor) -> Tensor:
        last = (self.layers - 1) * self.hidden_size
        return state[..., last : last + self.hidden_size]

    def named_states(self, state: Tensor) -> dict[str, Tensor]:
        names = ("hidden", "cell")[: self.blocks]
        parts = zip(names, state.chunk(self.blocks, -1), strict=True)
        if self.layers == 1:
            return dict(parts)
        return {
            f"layer{layer}.{name}": part
            for name, block in parts
            for layer, part in enumerate(block.chunk(self.layers, -1))
        }

    def step(self, state: Tensor, inputs: Tensor) -> Tensor:
        batch, below = state.shape[:-1], inputs
        written = self.layer_norm or self._handler is not None or over_members() or step_is_recorded()
        if not written:  # torch's cells take rows
            state, below = state.reshape(-1, self.state_size), inputs.reshape(-1, inputs.shape[-1])
        parts = state.chunk(self.blocks * self.layers, -1)
        new: list[Tensor] = [state] * len(parts)
        for layer in range(self.layers):
            if layer and self.dropout:
                below = F.dropout(below, self.dropout, self.training)
            old = parts[layer :: self.layers]
            if written:
                updated = self._written(*self._products(layer, below, old[0]), *old)
            else:
                updated = self._fused(layer, below, *old)
            if self.zoneout:
                updated = tuple(self._zoned(*pair) for pair in zip(old, updated, strict=True))
            new[layer :: self.layers] = updated
            below = updated[0]
        return torch.cat(new, -1).reshape(*batch, self.state_size)

    def scan(self, inputs: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        if self.layer_norm or self.zoneout or self._handler is not None:
            return super().scan(inputs, state)
        inputs, state = broadcast_batch(inputs, state)
        batch, steps = inputs.shape[:-2], inputs.shape[-2]
        flat = inputs.reshape(-1, steps, inputs.shape[-1])
        outputs, last = run(self.kernel, flat, self._unpack(state.reshape(-1, self.state_size)))
        return outputs.reshape(*batch, steps, self.hidden_size), self._pack(last).reshape(*batch, self.state_size)

    def _products(self, layer: int, inputs: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        input_weight, weight, input_bias, bias = self._weights(layer)
        recurrent = F.linear(hidden, weight)
        if self.layer_norm:
            split = recurrent.unflatten(-1, (self.num_gates, self.hidden_size))
            recurrent = (F.layer_norm(split, (self.hidden_size,)) * self.norm_gain[layer]).flatten(-2)
        return F.linear(inputs, input_weight, input_bias), recurrent + bias

    def _zoned(self, old: Tensor, new: Tensor) -> Tensor:
        if not self.training:
            return torch.lerp(new, old, self.zoneout)
        return torch.where(torch.rand_like(new) < self.zoneout, old, new)

    def _unpack(self, state: Tensor) -> Any:
        layers = state.view(-1, self.blocks, self.layers, self.hidden_size).permute(1, 2, 0, 3).contiguous()
        return layers[0] if self.blocks == 1 else (layers[0], layers[1])

    def _pack(self, last: Any) -> Tensor:
        parts = (last,) if self.blocks == 1 else last
        return torch.cat([part.permute(1, 0, 2).reshape(part.shape[1], -1) for part in parts], -1)

    def _weights(self, layer: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return layer_of(self.kernel, layer)
