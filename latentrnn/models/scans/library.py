"""The faster way along time for torch's recurrent modules: the library's kernel, or a loop of our own."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from latentrnn.models.scans.gru import gru_scan
from latentrnn.models.scans.layout import Layer, final_states
from latentrnn.models.scans.transforms import over_members
from latentrnn.models.scans.vanilla import vanilla_scan
from latentrnn.support.private_symbols import transforms_active

_NAMES = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


def loops(kernel: nn.RNNBase, inputs: Tensor) -> bool:
    """Return whether our own loop is taken.

    On a CPU it was faster than `nn.GRU` and `nn.RNN`, or level, at every size tried (`benchmarks/scans.py`). An LSTM
    goes through oneDNN there, and everything through cuDNN on a GPU, unless `vmap` or `jacfwd` is under way, for which
    the library has no rules. Dropout between layers is left to the library.
    """
    if isinstance(kernel, nn.LSTM) or (kernel.dropout and kernel.training):
        return False
    return inputs.device.type == "cpu" or transforms_active()


def run(kernel: nn.RNNBase, inputs: Tensor, state: Any) -> tuple[Tensor, Any]:
    """Return h_{1:T} of the last layer, (row, time, hidden), and the last state.

    Args:
        kernel: torch's module, which holds the weights.
        inputs: (row, time, channel).
        state: h_0 of every layer, (layer, row, hidden); with c_0 for an LSTM.

    Raises:
        NotImplementedError: dropout between layers, of many members.
    """
    if over_members():
        _refuse_dropout(kernel)
        if isinstance(kernel, nn.LSTM):
            return _lstm(kernel, inputs, *state)
    if not loops(kernel, inputs):
        return kernel(inputs, state)
    last = []
    for number in range(kernel.num_layers):
        layers, before = [layer_of(kernel, number)], state[number : number + 1]
        inputs, end = _scan(kernel, inputs, before, layers, (False,), None)
        last.append(end)
    return inputs, torch.stack(last)


def run_directions(
    forwards: nn.RNNBase | None, backwards: nn.RNNBase | None, inputs: Tensor, lengths: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Return what modules say of each step that run forwards and backwards in time, side by side.

    Args:
        forwards, backwards: modules of one kind, or None.
        inputs: (row, time, channel).
        lengths: (row,), None where all rows have all steps; what lies after a row's length says nothing to the others.

    Returns:
        (row, time, direction * hidden), and what each direction says where it has seen everything, at a row's last
        step and at its first, (row, direction * hidden).

    Raises:
        NotImplementedError: dropout between layers, of many members.
    """
    kernels = [(kernel, back) for kernel, back in ((forwards, False), (backwards, True)) if kernel is not None]
    reverse = tuple(back for _, back in kernels)
    if over_members():
        _refuse_dropout(kernels[0][0])
    if not loops(kernels[0][0], inputs):
        found = []
        for kernel, back in kernels:
            given = _reversed(inputs, lengths) if back else inputs
            if isinstance(kernel, nn.LSTM) and over_members():
                zero = given.new_zeros(kernel.num_layers, len(given), kernel.hidden_size)
                outputs = _lstm(kernel, given, zero, zero)[0]
            else:
                outputs = kernel(given)[0]
            found.append(_reversed(outputs, lengths) if back else outputs)
        together = torch.cat(found, -1) if len(found) > 1 else found[0]
        return together, final_states(together, reverse, lengths)
    if all(kernel.num_layers == 1 for kernel, _ in kernels):
        # both in one product per step: 0.91 to 1.00 of the time of one after the other
        return _scan(kernels[0][0], inputs, None, [layer_of(kernel, 0) for kernel, _ in kernels], reverse, lengths)
    ways = []
    for kernel, back in kernels:
        outputs = inputs
        for number in range(kernel.num_layers):
            outputs, end = _scan(kernel, outputs, None, [layer_of(kernel, number)], (back,), lengths)
        ways.append((outputs, end))
    steps, ends = zip(*ways, strict=True)
    return torch.cat(steps, -1), torch.cat(ends, -1)


def layer_of(kernel: nn.RNNBase, number: int) -> Layer:
    """Return the weights of one layer."""
    return Layer(*(getattr(kernel, f"{name}_l{number}") for name in _NAMES))


def reverse_within(values: Tensor, lengths: Tensor) -> Tensor:
    """Reverse the first steps of (sequence, time, channel), as many as `lengths` (sequence,) says."""
    steps = torch.arange(values.shape[1], device=values.device)
    mirrored = lengths[:, None] - 1 - steps
    order = torch.where(mirrored >= 0, mirrored, steps)
    return values.gather(1, order.unsqueeze(-1).expand_as(values))


def _lstm(kernel: nn.LSTM, inputs: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """The library's kernel step by step, for `vmap`."""
    last = []
    for number in range(kernel.num_layers):
        layer = layer_of(kernel, number)
        projected = F.linear(inputs, layer.input_weight, layer.input_bias + layer.bias).unbind(1)
        h, c, steps = hidden[number], cell[number], []
        for projected_t in projected:
            i, f, g, o = (projected_t + F.linear(h, layer.weight)).chunk(4, -1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
            steps.append(h)
        inputs = torch.stack(steps, 1)
        last.append((h, c))
    ends = [torch.stack(parts) for parts in zip(*last, strict=True)]
    return inputs, (ends[0], ends[1])


def _refuse_dropout(kernel: nn.RNNBase) -> None:
    if kernel.dropout and kernel.training:
        # what the library's kernel drops alone cannot be drawn again outside of it
        raise NotImplementedError("dropout inside a fused kernel")


def _reversed(values: Tensor, lengths: Tensor | None) -> Tensor:
    return values.flip(1) if lengths is None else reverse_within(values, lengths)


def _scan(
    kernel: nn.RNNBase,
    inputs: Tensor,
    state: Tensor | None,
    layers: list[Layer],
    reverse: tuple[bool, ...],
    lengths: Tensor | None,
) -> tuple[Tensor, Tensor]:
    if isinstance(kernel, nn.GRU):
        return gru_scan(inputs, state, layers, reverse, lengths)
    assert isinstance(kernel, nn.RNN)
    return vanilla_scan(inputs, state, layers, reverse, lengths, nonlinearity=kernel.nonlinearity)
