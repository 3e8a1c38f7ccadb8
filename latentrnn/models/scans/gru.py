"""The gated recurrent unit in one loop, forwards in time, backwards, or both at once."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from latentrnn.models.scans.layout import (
    Chunk,
    DenseLayout,
    Layer,
    ScanLayout,
    active_rows,
    final_states,
    split_layers,
    step_by_step,
)
from latentrnn.models.scans.packed_layout import LengthOrder, PackedLayout
from latentrnn.models.scans.transforms import (
    PLAIN,
    gradient_wanted,
    gradients_by_autograd,
    over_members,
)
from latentrnn.models.scans.vmap_members import MembersGRU
from latentrnn.support.private_symbols import never_traced, transforms_active, within_transform

# numbers in the states of a step from which passes over them cost more than calls
LARGE = 16_384

tanh_backward = torch.ops.aten.tanh_backward.grad_input
sigmoid_backward = torch.ops.aten.sigmoid_backward.grad_input
# the gradient of Huber's loss where it is a square: two operations in one pass
product_of_difference = torch.ops.aten.huber_loss_backward.out


@never_traced
def gru_scan(
    inputs: Tensor,
    state: Tensor | None,
    layers: Sequence[Layer],
    reverse: Sequence[bool] = (False,),
    lengths: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Return h_{1:T} of torch's gated recurrent unit.

    The loop keeps gates and states. Its backward goes through three operations per step, and takes the weights'
    gradients for many steps in one product each.

    Args:
        inputs: (row, time, channel).
        state: h_0 of each direction, (direction, row, hidden); None for zero.
        layers: the weights of each direction.
        reverse: for each direction whether it runs backwards in time; both at once as (False, True).
        lengths: (row,), steps before padding, in which h is zero and after which a direction that runs backwards
            begins; None where all rows have all steps, or where that does not matter. They go with `state=None`.

    Returns:
        h_{1:T}, (row, time, direction * hidden), and the states at which the directions end, (row, direction * hidden).
    """
    inputs = inputs.to(layers[0].weight.dtype).transpose(0, 1).contiguous()
    directions = tuple(reverse)
    flat: Any = (inputs, state, *(tensor for layer in layers for tensor in layer))
    if transforms_active():
        # where only some of a stack's weights have members, the layers below them have none
        if over_members() and lengths is None and within_transform(*(tensor for tensor in flat if tensor is not None)):
            outputs = MembersGRU.apply(directions, inputs, state, *flat[2:])
            return outputs, final_states(outputs, directions, None)
        return _reference(directions, lengths, *flat)
    if not PLAIN.issuperset(map(type, flat)):
        return _reference(directions, lengths, *flat)
    order = None if lengths is None else LengthOrder(lengths, len(inputs))
    if gradient_wanted(*(tensor for tensor in flat if tensor is not None)):
        return _GRUScan.apply(directions, order, lengths, *flat)
    return _forward(directions, order, *flat, keep=False)[:2]


def _reference(
    reverse: tuple[bool, ...], lengths: Tensor | None, inputs: Tensor, state: Any, *weights: Tensor
) -> tuple[Tensor, Tensor]:
    """The same, followed by autograd step by step."""

    def step(layer: Layer, projected: Tensor, h: Tensor) -> Tensor:
        r, z, n = projected.chunk(3, -1)
        from_r, from_z, from_n = F.linear(h, layer.weight, layer.bias).chunk(3, -1)
        n = torch.tanh(n + torch.sigmoid(r + from_r) * from_n)
        return n + torch.sigmoid(z + from_z) * (h - n)

    return step_by_step(step, reverse, lengths, inputs, state, weights)


class _Gates:
    """Buffers of a chunk: U_n h + c_n, r and z, and n; before the loop what the inputs say of them."""

    def __init__(self, hidden: int, everything: Tensor, candidate: Tensor) -> None:
        self.all, self.candidate = everything, candidate
        self.recurrent, self.open = everything.split([hidden, 2 * hidden], -1)
        self.reset, self.update = self.open.chunk(2, -1)

    def project_inputs(self, layout: ScanLayout, chunk: Chunk, layers: list[Layer]) -> None:
        """Put in place what does not depend on the state."""
        size = layout.hidden
        for k, layer in enumerate(layers):
            x, bias = layout.given(k, chunk), layer.input_bias[: 2 * size] + layer.bias[: 2 * size]
            torch.addmm(bias, x, layer.input_weight[: 2 * size].t(), out=self.open[k])
            bias, weight = layer.input_bias[2 * size :], layer.input_weight[2 * size :].t()
            torch.addmm(bias, x, weight, out=self.candidate[k])
            self.recurrent[k].copy_(layer.bias[2 * size :].expand_as(self.recurrent[k]))


def _forward(
    reverse: tuple[bool, ...], order: LengthOrder | None, inputs: Tensor, state: Any, *weights: Tensor, keep: bool
) -> tuple[Tensor, Tensor, Tensor, list[Tensor]]:
    """Return h_{1:T}, the ends, the trajectory of the states, and, to keep, gates and candidates chunk by chunk."""
    layers = split_layers(weights)
    shape = reverse, inputs, layers[0].weight.shape[1]
    layout: ScanLayout = DenseLayout(*shape) if order is None else PackedLayout(*shape, order)
    trajectory, kept = layout.trajectory(state), []
    # transposed copies: the product of a few rows with a matrix as it lies is a quarter to a third faster
    onto = layout.together([layer.weight.roll(layout.hidden, 0).t().contiguous() for layer in layers])
    h, *states = layout.path(trajectory)
    gates: Any = None
    for chunk in layout.chunks():
        if keep or gates is None or chunk.entries != gates.all.shape[1]:
            gates = _Gates(layout.hidden, layout.buffer(chunk, 3 * layout.hidden), layout.buffer(chunk, layout.hidden))
        gates.project_inputs(layout, chunk, layers)
        buffers = (gates.all, gates.open, gates.reset, gates.update, gates.recurrent, gates.candidate)
        steps = zip(*(layout.views(buffer, chunk) for buffer in buffers), strict=True)
        own = states[chunk.first : chunk.first + chunk.length]
        for (all_t, open_t, r_t, z_t, u_t, n_t), h_t in zip(steps, own, strict=True):
            h = active_rows(h, h_t)
            layout.add_product(all_t, h, onto)
            open_t.sigmoid_()
            n_t.addcmul_(r_t, u_t).tanh_()
            h = torch.lerp(n_t, h, z_t, out=h_t)
        if keep:
            kept += [gates.all, gates.candidate]
    return layout.outputs(trajectory), layout.ends(trajectory), trajectory, kept


class _GRUScan(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, reverse: tuple[bool, ...], order: LengthOrder | None, lengths: Tensor | None, *flat: Any
    ) -> tuple[Tensor, Tensor]:
        outputs, ends, trajectory, kept = _forward(reverse, order, *flat, keep=True)
        ctx.options, ctx.given = (reverse, order, lengths), len(flat)
        ctx.save_for_backward(*flat, trajectory, *kept)
        ctx.set_materialize_grads(False)
        return outputs, ends

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        flat, (trajectory, *kept) = ctx.saved_tensors[: ctx.given], ctx.saved_tensors[ctx.given :]
        (reverse, order, lengths), needed = ctx.options, ctx.needs_input_grad[3:]
        if torch.is_grad_enabled():
            found = gradients_by_autograd(lambda *given: _reference(reverse, lengths, *given), flat, needed, gradients)
            return (None, None, None, *found)
        inputs, _, *weights = flat
        layers = split_layers(weights)
        shape = reverse, inputs, layers[0].weight.shape[1]
        layout: ScanLayout = DenseLayout(*shape) if order is None else PackedLayout(*shape, order)
        hidden = layout.hidden
        weight = layout.together([layer.weight for layer in layers])
        # gradients lie in the order n, r, z, U_n h + c_n: the first three for the inputs, the last three for the state
        n_first = [layer.input_weight.roll(hidden, 0) for layer in layers]
        sums = [
            (torch.zeros_like(own), torch.zeros_like(layer.weight)) for own, layer in zip(n_first, layers, strict=True)
        ]
        biases, learned = inputs.new_zeros(layout.count, 4 * hidden), any(needed[2:])
        carry = layout.carry(gradients[1])
        laid, there = None if gradients[0] is None else layout.laid(gradients[0]), None
        path, large = layout.path(trajectory), layout.count * layout.rows * hidden >= LARGE
        write: Callable[..., None] = _write_directly if large else _write_by_slopes
        for chunk in reversed(layout.chunks()):
            gates = _Gates(hidden, *kept[-2:])
            del kept[-2:]
            if there is None or there.shape[1] != chunk.entries:
                there, total = layout.buffer(chunk, hidden), layout.buffer(chunk, 4, hidden)
                factors = None if large else torch.empty_like(total)
            before = [layout.before(trajectory, k, chunk) for k in range(layout.count)]
            layout.read(laid, there, chunk)
            buffers = (there, total.flatten(-2)[..., hidden:], gates.update)
            steps = list(zip(*(layout.views(buffer, chunk) for buffer in buffers), strict=True))[::-1]
            if factors is None:
                given = _gates_by_step(layout, chunk, gates, path, total)
            else:
                given = _slopes_by_step(layout, chunk, gates, before, factors, total)
            last, first = steps[0][0], steps[-1][0]
            last.add_(active_rows(carry, last))
            carry.zero_()
            for s, ((there_t, to_state_t, z_t), given_t) in enumerate(zip(steps, given, strict=True)):
                write(there_t, *given_t)
                earlier = active_rows(carry if there_t is first else steps[s + 1][0], there_t).addcmul_(there_t, z_t)
                layout.add_product(earlier, to_state_t, weight)

            for k, own in enumerate(before):
                flat_total = total[k].view(-1, 4 * hidden)
                to_input, to_state = flat_total[:, : 3 * hidden], flat_total[:, hidden:]
                if learned:
                    sums[k][0].addmm_(to_input.t(), layout.given(k, chunk))
                    sums[k][1].addmm_(to_state.t(), own)
                    biases[k] += flat_total.sum(0)
                if needed[0]:
                    layout.to_given(k, chunk).addmm_(to_input, n_first[k])
        to_inputs = layout.to_inputs() if needed[0] else None
        to_start = carry.view(layout.count, layout.rows, hidden) if needed[1] else None
        to_weights: list[Tensor] = []
        for (of_input, of_state), bias in zip(sums, biases, strict=True):
            to_weights += [of_input.roll(-hidden, 0), of_state, bias[: 3 * hidden].roll(-hidden), bias[hidden:]]
        return (None, None, None, to_inputs, to_start, *to_weights)


def _slopes_by_step(
    layout: ScanLayout, chunk: Chunk, gates: _Gates, before: list[Tensor], factors: Tensor, total: Tensor
) -> Sequence[tuple[Tensor, ...]]:
    """Return what `_write_by_slopes` is given of each step of a chunk, the last first.

    What d h_t is multiplied by to be that of n, r, z before their functions and of U_n h + c_n is taken for all steps.

    Args:
        layout, chunk: of the loop.
        gates: of the chunk, after its steps.
        before: in each direction the states before, (entry, hidden).
        factors: (direction, entry, 4, hidden), which are written over.
        total: the same, where their products with the gradients go.
    """
    for k, own in enumerate(before):
        r, z, u, n = gates.reset[k], gates.update[k], gates.recurrent[k], gates.candidate[k]
        of_n, of_r, of_z, of_u = factors[k].unbind(-2)
        rest = torch.rsub(z, 1)
        tanh_backward(rest, n, grad_input=of_n)  # (1 - z) (1 - n^2)
        torch.mul(of_n, r, out=of_u)
        sigmoid_backward(torch.mul(of_n, u, out=rest), r, grad_input=of_r)
        sigmoid_backward(torch.sub(own, n, out=rest), z, grad_input=of_z)
    return list(zip(layout.views(factors, chunk), layout.views(total, chunk), strict=True))[::-1]


def _write_by_slopes(there: Tensor, factors: Tensor, total: Tensor) -> None:
    """Write the gradients of n, r, z before their functions and of U_n h + c_n: few calls."""
    torch.mul(there.unsqueeze(-2), factors, out=total)


def _gates_by_step(
    layout: ScanLayout, chunk: Chunk, gates: _Gates, path: list[Tensor], total: Tensor
) -> Sequence[tuple[Tensor, ...]]:
    """Return what `_write_directly` is given of each step of a chunk, the last first.

    Args:
        layout, chunk, gates, total: as of `_slopes_by_step`.
        path: what the loop sees of the states, of h_0 first.
    """
    flat = total.flatten(-2)
    of_n, of_z = total.select(-2, 0), total.select(-2, 2)
    with_u = gates.all[..., : 2 * layout.hidden].unflatten(-1, (2, layout.hidden))
    buffers = [
        gates.update,
        gates.candidate,
        gates.open,
        with_u,
        of_n,
        of_z,
        flat[..., layout.hidden : 3 * layout.hidden],
        total[..., 1::2, :],
    ]
    before = path[chunk.first : chunk.first + chunk.length]
    return list(zip(before, *(layout.views(buffer, chunk) for buffer in buffers), strict=True))[::-1]


def _write_directly(
    there: Tensor,
    before: Tensor,
    z: Tensor,
    n: Tensor,
    opened: Tensor,
    with_u: Tensor,
    of_n: Tensor,
    of_z: Tensor,
    of_open: Tensor,
    of_r_and_u: Tensor,
) -> None:
    """Write the gradients of n, r, z before their functions and of U_n h + c_n: few passes."""
    product_of_difference(there, active_rows(before, there), n, 0, math.inf, grad_input=of_z)  # d h (h - n)
    torch.addcmul(there, there, z, value=-1, out=of_n)
    tanh_backward(of_n, n, grad_input=of_n)
    torch.mul(of_n.unsqueeze(-2), with_u, out=of_r_and_u)
    sigmoid_backward(of_open, opened, grad_input=of_open)
