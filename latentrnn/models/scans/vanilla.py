"""The simple recurrent network in one loop, forwards in time, backwards, or both at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from latentrnn.models.scans.layout import DenseLayout, Layer, ScanLayout, active_rows, split_layers, step_by_step
from latentrnn.models.scans.packed_layout import LengthOrder, PackedLayout
from latentrnn.models.scans.transforms import PLAIN, gradient_wanted, gradients_by_autograd
from latentrnn.support.private_symbols import never_traced, transforms_active


@never_traced
def vanilla_scan(
    inputs: Tensor,
    state: Tensor | None,
    layers: Sequence[Layer],
    reverse: Sequence[bool] = (False,),
    lengths: Tensor | None = None,
    *,
    nonlinearity: str = "tanh",
) -> tuple[Tensor, Tensor]:
    """Return h_{1:T} of h_t = f(W a_t + b + U h_{t-1} + c), with f = tanh or relu.

    The loop keeps the states alone, which tell the slope of f. Its backward goes through two operations per step, and
    takes the weights' gradients for many steps in one product each.

    Args:
        inputs, state, layers, reverse, lengths: see `gru_scan`.
        nonlinearity: "tanh" or "relu".

    Returns:
        As of `gru_scan`.
    """
    inputs = inputs.to(layers[0].weight.dtype).transpose(0, 1).contiguous()
    layout, relu = tuple(reverse), nonlinearity == "relu"
    flat: Any = (inputs, state, *(tensor for layer in layers for tensor in layer))
    if transforms_active() or not PLAIN.issuperset(map(type, flat)):
        return _reference(layout, lengths, relu, *flat)
    order = None if lengths is None else LengthOrder(lengths, len(inputs))
    if gradient_wanted(*(tensor for tensor in flat if tensor is not None)):
        return _VanillaScan.apply(layout, order, lengths, relu, *flat)
    return _forward(layout, order, relu, *flat)[:2]


def _reference(
    reverse: tuple[bool, ...], lengths: Tensor | None, relu: bool, inputs: Tensor, state: Any, *weights: Tensor
) -> tuple[Tensor, Tensor]:
    """The same, followed by autograd step by step."""

    def step(layer: Layer, projected: Tensor, h: Tensor) -> Tensor:
        pre = projected + F.linear(h, layer.weight, layer.bias)
        return torch.relu(pre) if relu else torch.tanh(pre)

    return step_by_step(step, reverse, lengths, inputs, state, weights)


def _forward(
    reverse: tuple[bool, ...], order: LengthOrder | None, relu: bool, inputs: Tensor, state: Any, *weights: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return h_{1:T}, the ends and the trajectory of the states."""
    layers = split_layers(weights)
    shape = reverse, inputs, layers[0].weight.shape[1]
    layout: ScanLayout = DenseLayout(*shape) if order is None else PackedLayout(*shape, order)
    trajectory = layout.trajectory(state)
    onto = layout.together([layer.weight.t().contiguous() for layer in layers])
    h, *states = layout.path(trajectory)
    for chunk in layout.chunks():
        for k, layer in enumerate(layers):
            # what the inputs say of a step is written where its state will be
            place, bias = layout.states(trajectory, k, chunk), layer.input_bias + layer.bias
            torch.addmm(bias, layout.given(k, chunk), layer.input_weight.t(), out=place)
        for h_t in states[chunk.first : chunk.first + chunk.length]:
            layout.add_product(h_t, active_rows(h, h_t), onto)
            h = h_t.relu_() if relu else h_t.tanh_()
    return layout.outputs(trajectory), layout.ends(trajectory), trajectory


class _VanillaScan(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, reverse: tuple[bool, ...], order: LengthOrder | None, lengths: Tensor | None, relu: bool, *flat: Any
    ) -> tuple[Tensor, Tensor]:
        outputs, ends, trajectory = _forward(reverse, order, relu, *flat)
        ctx.options = reverse, order, lengths, relu
        ctx.save_for_backward(*flat, trajectory)
        ctx.set_materialize_grads(False)
        return outputs, ends

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        *flat, trajectory = ctx.saved_tensors
        (reverse, order, lengths, relu), needed = ctx.options, ctx.needs_input_grad[4:]
        if torch.is_grad_enabled():
            found = gradients_by_autograd(
                lambda *given: _reference(reverse, lengths, relu, *given), flat, needed, gradients
            )
            return (None, None, None, None, *found)
        inputs, _, *weights = flat
        layers = split_layers(weights)
        shape = reverse, inputs, layers[0].weight.shape[1]
        layout: ScanLayout = DenseLayout(*shape) if order is None else PackedLayout(*shape, order)
        weight = layout.together([layer.weight for layer in layers])
        sums = [(torch.zeros_like(layer.input_weight), torch.zeros_like(layer.weight)) for layer in layers]
        biases, learned = inputs.new_zeros(layout.count, layout.hidden), any(needed[2:])
        carry = layout.carry(gradients[1])
        laid, there = None if gradients[0] is None else layout.laid(gradients[0]), None
        for chunk in reversed(layout.chunks()):
            if there is None or there.shape[1] != chunk.entries:
                there, slope = layout.buffer(chunk, layout.hidden), layout.buffer(chunk, layout.hidden)
            steps = list(zip(layout.views(there, chunk), layout.views(slope, chunk), strict=True))[::-1]
            for k in range(layout.count):
                own = layout.states(trajectory, k, chunk)
                if relu:
                    torch.sign(own, out=slope[k])
                else:
                    torch.mul(own, own, out=slope[k]).neg_().add_(1)
            layout.read(laid, there, chunk)
            last, first = steps[0][0], steps[-1][0]
            last.add_(active_rows(carry, last))
            carry.zero_()
            for s, (there_t, slope_t) in enumerate(steps):
                there_t.mul_(slope_t)
                layout.add_product(
                    active_rows(carry if there_t is first else steps[s + 1][0], there_t), there_t, weight
                )

            for k in range(layout.count):
                if learned:
                    sums[k][0].addmm_(there[k].t(), layout.given(k, chunk))
                    sums[k][1].addmm_(there[k].t(), layout.before(trajectory, k, chunk))
                    biases[k] += there[k].sum(0)
                if needed[0]:
                    layout.to_given(k, chunk).addmm_(there[k], layers[k].input_weight)
        to_inputs = layout.to_inputs() if needed[0] else None
        to_start = carry.view(layout.count, layout.rows, layout.hidden) if needed[1] else None
        to_weights = [g for own, bias in zip(sums, biases, strict=True) for g in (*own, bias, bias.clone())]
        return (None, None, None, None, to_inputs, to_start, *to_weights)
