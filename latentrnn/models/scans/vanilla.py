"""The simple recurrent network in one loop, forwards in time, backwards, or both at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from latentrnn.models.scans.derivatives import again, by_hand, wanted
from latentrnn.models.scans.directions import Directions, Layer, split_layers


@torch.compiler.disable
def vanilla_scan(
    inputs: Tensor,
    state: Tensor | None,
    layers: Sequence[Layer],
    reverse: Sequence[bool] = (False,),
    valid: Tensor | None = None,
    *,
    nonlinearity: str = "tanh",
) -> Tensor:
    """Return h_{1:T} of h_t = f(W a_t + b + U h_{t-1} + c), with f = tanh or relu.

    The loop keeps the states alone, which tell the slope of f. Its backward goes through two operations per step, and
    takes the weights' gradients for many steps in one product each.

    Args:
        inputs, state, layers, reverse, valid: see `gru_scan`.
        nonlinearity: "tanh" or "relu".

    Returns:
        (row, time, direction * hidden).
    """
    inputs = inputs.to(layers[0].weight.dtype).transpose(0, 1).contiguous()
    options = (tuple(reverse), nonlinearity == "relu")
    flat: Any = (inputs, state, valid, *(tensor for layer in layers for tensor in layer))
    if not by_hand():
        return _reference(*options, *flat)[0]
    if wanted(*(tensor for tensor in flat if tensor is not None)):
        return _VanillaScan.apply(*options, *flat)
    return _forward(*options, *flat)[0]


def _reference(
    reverse: tuple[bool, ...], relu: bool, inputs: Tensor, state: Any, valid: Any, *weights: Tensor
) -> tuple[Tensor]:
    """The same, followed by autograd step by step."""
    found = []
    for k, (backwards, layer) in enumerate(zip(reverse, split_layers(weights), strict=True)):
        driven = F.linear(inputs, layer.input_weight, layer.input_bias).unbind(0)
        h = inputs.new_zeros(inputs.shape[1], layer.weight.shape[1]) if state is None else state[k]
        steps: list[Tensor] = []
        for t in range(len(driven))[:: -1 if backwards else 1]:
            pre = driven[t] + F.linear(h, layer.weight, layer.bias)
            h = torch.relu(pre) if relu else torch.tanh(pre)
            if backwards and valid is not None:
                h = torch.where(valid[:, t, None], h, 0.0)
            steps.append(h)
        found.append(torch.stack(steps[::-1] if backwards else steps, 1))
    return (torch.cat(found, -1),)


def _forward(
    reverse: tuple[bool, ...], relu: bool, inputs: Tensor, state: Any, valid: Any, *weights: Tensor
) -> tuple[Tensor, Tensor]:
    """Return h_{1:T} and the course of the states."""
    layers = split_layers(weights)
    ways = Directions(reverse, inputs, layers[0].weight.shape[1])
    course = ways.course(state)
    onto = ways.together([layer.weight.t().contiguous() for layer in layers])
    h, *states = ways.views(course)
    for first, length in ways.chunks():
        masks = ways.masks(valid, first, length)
        for (k, times), layer in zip(ways.times(first, length), layers, strict=True):
            # what the inputs say of a step is written where its state will be
            place = course[k, times.start + (not reverse[k]) : times.stop + (not reverse[k])]
            bias = layer.input_bias + layer.bias
            torch.addmm(bias, inputs[times].flatten(0, 1), layer.input_weight.t(), out=place.flatten(0, 1))
            if (mask := masks[k]) is not None:
                place.mul_(mask)
        for h_t in states[first : first + length]:
            ways.add_product(h_t, h, onto)
            h = h_t.relu_() if relu else h_t.tanh_()
    return ways.outputs(course), course


class _VanillaScan(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, reverse: tuple[bool, ...], relu: bool, *flat: Any) -> Tensor:
        outputs, course = _forward(reverse, relu, *flat)
        ctx.options = reverse, relu
        ctx.save_for_backward(*flat, course)
        return outputs

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        *flat, course = ctx.saved_tensors
        (reverse, relu), needed = ctx.options, ctx.needs_input_grad[2:]
        if torch.is_grad_enabled():
            return (None, None, *again(lambda *given: _reference(reverse, relu, *given), flat, needed, gradients))
        inputs, _, valid, *weights = flat
        layers = split_layers(weights)
        ways = Directions(reverse, inputs, layers[0].weight.shape[1])
        hidden, ready = ways.hidden, 0
        weight = ways.together([layer.weight for layer in layers])
        sums = [(torch.zeros_like(layer.input_weight), torch.zeros_like(layer.weight)) for layer in layers]
        biases, learned = inputs.new_zeros(ways.count, hidden), any(needed[3:])
        to_inputs = torch.zeros_like(inputs) if needed[0] else None
        carry = ways.together(list(inputs.new_zeros(ways.count, ways.rows, hidden)))
        for first, length in reversed(ways.chunks()):
            if length != ready:
                there, slope, ready = ways.buffer(length, hidden), ways.buffer(length, hidden), length
                steps = list(zip(ways.views(there), ways.views(slope), strict=True))[::-1]
            masks = ways.masks(valid, first, length)
            for k, times in ways.times(first, length):
                own = course[k, times.start + (not reverse[k]) : times.stop + (not reverse[k])]
                if relu:
                    torch.sign(own, out=slope[k])
                else:
                    torch.mul(own, own, out=slope[k]).neg_().add_(1)
                if (mask := masks[k]) is not None:
                    slope[k].mul_(mask)
            ways.read(gradients[0], there, first)
            steps[0][0].add_(carry)
            carry.zero_()
            for s, (there_t, slope_t) in enumerate(steps):
                there_t.mul_(slope_t)
                ways.add_product(carry if s + 1 == length else steps[s + 1][0], there_t, weight)

            before = ways.before(course, first, length)
            for k, times in ways.times(first, length):
                total = there[k].flatten(0, 1)
                if learned:
                    sums[k][0].addmm_(total.t(), inputs[times].flatten(0, 1))
                    sums[k][1].addmm_(total.t(), before[k].flatten(0, 1))
                    biases[k] += total.sum(0)
                if to_inputs is not None:
                    to_inputs[times].flatten(0, 1).addmm_(total, layers[k].input_weight)
        to_start = carry.view(ways.count, ways.rows, hidden) if needed[1] else None
        to_weights = [g for own, bias in zip(sums, biases, strict=True) for g in (*own, bias, bias.clone())]
        return (None, None, to_inputs, to_start, None, *to_weights)
