"""Gated recurrent units of many members with weights of their own, in one loop: what `vmap` does with `gru_scan`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


class MembersGRU(torch.autograd.Function):
    """`gru_scan` without padding under `vmap` over members; arguments as of its reference."""

    @staticmethod
    def forward(reverse: tuple[bool, ...], inputs: Tensor, state: Tensor | None, *weights: Tensor) -> Tensor:
        raise NotImplementedError("one member alone takes gru_scan")

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        pass

    @staticmethod
    def vmap(info: Any, in_dims: Any, *given: Any) -> tuple[Tensor, int]:
        reverse, inputs, state, *weights = (
            value if not isinstance(value, Tensor) else _first(value, axis, info.batch_size)
            for value, axis in zip(given, in_dims, strict=True)
        )
        # ways are members and directions; what belongs to a step lies together, features before rows
        ways = [torch.stack(weights[kind::4], 1).flatten(0, 1) for kind in range(4)]
        driving = torch.stack([inputs.flip(1) if back else inputs for back in reverse], 1).flatten(0, 1)
        driving = driving.permute(1, 0, 3, 2)  # (time, way, channel, row)
        start = None if state is None else state.flatten(0, 1).mT
        found = _Scan.apply(driving, start, _joined(*ways))
        found = found.unflatten(1, (info.batch_size, len(reverse))).unbind(2)  # (time, member, hidden, row)
        parts = [part.flip(0) if back else part for part, back in zip(found, reverse, strict=True)]
        outputs = torch.cat(parts, 2) if len(parts) > 1 else parts[0]
        return outputs.permute(1, 3, 0, 2), 0  # (member, row, time, direction * hidden)


def _joined(input_weight: Tensor, weight: Tensor, input_bias: Tensor, bias: Tensor) -> Tensor:
    """Return the weights (way, 4 hidden, channel + 1 + hidden) that map [x, 1, h] to r, z, U_n h + c_n and W_n x + b_n.

    Gates and states then take one product per step. The zeros in it cost less than a second product.
    """
    size = weight.shape[-1]
    rz, n = slice(0, 2 * size), slice(2 * size, None)
    first = torch.cat([input_weight[:, rz], (input_bias + bias)[:, rz, None], weight[:, rz]], -1)
    none = torch.zeros_like(input_weight[:, n])
    second = torch.cat([none, bias[:, n, None], weight[:, n]], -1)
    third = torch.cat([input_weight[:, n], input_bias[:, n, None], torch.zeros_like(weight[:, n])], -1)
    return torch.cat([first, second, third], 1)


class _Scan(torch.autograd.Function):
    """h_{1:T}, (time, way, hidden, row), of inputs (time, way, channel, row), h_0 and joined weights.

    The forward pass keeps what the products gave and what they were given; the backward pass takes the weights'
    gradient of many steps at once.
    """

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, state: Tensor | None, weight: Tensor) -> Tensor:
        steps, ways, channels, rows = inputs.shape
        size = weight.shape[1] // 4
        given = inputs.new_empty(steps + 1, ways, channels + 1 + size, rows)  # [x_t, 1, h_{t-1}]
        given[:-1, :, :channels] = inputs
        given[:, :, channels] = 1
        trajectory = given[:, :, channels + 1 :]
        if state is None:
            trajectory[0].zero_()
        else:
            trajectory[0] = state
        gates = inputs.new_empty(steps, ways, 4 * size, rows)
        for given_t, gates_t, h, new in zip(given[:-1], gates, trajectory[:-1], trajectory[1:], strict=True):
            torch.bmm(weight, given_t, out=gates_t)
            r, z, u, n = gates_t.split(size, 1)
            gates_t[:, : 2 * size].sigmoid_()
            n.addcmul_(r, u).tanh_()
            torch.lerp(n, h, z, out=new)
        ctx.channels = channels
        ctx.save_for_backward(weight, given, gates)
        return trajectory[1:].clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        (gradient,) = gradients
        weight, given, gates = ctx.saved_tensors
        steps, ways, _, rows = gates.shape
        size, first = weight.shape[1] // 4, ctx.channels + 1
        back = weight[:, : 3 * size, first:].mT.contiguous()
        onto_inputs = weight[:, :, : ctx.channels].mT.contiguous() if ctx.needs_input_grad[0] else None
        inputs = gates.new_empty(steps, ways, ctx.channels, rows)
        total = torch.zeros_like(weight)
        slopes = torch.empty_like(gates[0])
        on_r, on_z, on_u, on_n = slopes.split(size, 1)
        carry = gates.new_zeros(ways, size, rows)
        kept = torch.empty_like(carry)
        for t in range(steps - 1, -1, -1):
            r, z, u, n = gates[t].split(size, 1)
            carry += gradient[t]
            torch.mul(carry, z, out=kept)
            torch.sub(given[t, :, first:], n, out=on_z).mul_(carry)
            torch.ops.aten.sigmoid_backward.grad_input(on_z, z, grad_input=on_z)
            torch.ops.aten.tanh_backward.grad_input(carry.sub_(kept), n, grad_input=on_n)
            torch.mul(on_n, r, out=on_u)
            torch.mul(on_n, u, out=on_r)
            torch.ops.aten.sigmoid_backward.grad_input(on_r, r, grad_input=on_r)
            torch.baddbmm(kept, back, slopes[:, : 3 * size], out=carry)
            total.baddbmm_(slopes, given[t].mT)
            if onto_inputs is not None:
                torch.bmm(onto_inputs, slopes, out=inputs[t])
        found = [inputs, carry, total]
        return tuple(value if needed else None for value, needed in zip(found, ctx.needs_input_grad, strict=True))


def _first(value: Tensor, axis: int | None, size: int) -> Tensor:
    """Return a tensor with its axis of members in front."""
    return value.expand(size, *value.shape) if axis is None else value.movedim(axis, 0)
