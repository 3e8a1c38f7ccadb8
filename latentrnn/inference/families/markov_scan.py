"""The course of a `Markov` guide: drawn in one loop, with a backward of its own."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from latentrnn.inference.families.family import SMALLEST_SCALE, START_SCALE, positive
from latentrnn.models.scans import again, by_hand, wanted

_SHIFT = math.log(math.expm1(START_SCALE))  # as in `positive`


class MarkovWeights(NamedTuple):
    """What the steps share.

    Attributes:
        recurrent: W, (hidden, dim).
        dynamics: A, (dim, dim).
        out: B over C, (2 dim, hidden).
        mixing: M, (dim, dim), or one of each step, (..., time, dim, dim), leading axes as those of the numbers.
    """

    recurrent: Tensor
    dynamics: Tensor
    out: Tensor
    mixing: Tensor


@torch.compiler.disable
def markov_scan(
    start: Tensor, numbers: Tensor, noise: Tensor, valid: Tensor | None, weights: MarkovWeights
) -> tuple[Tensor, Tensor]:
    """Draw z_{1:T} along time.

        x_t = tanh(W z_{t-1} + e_t),  s_t = softplus(C x_t + r_t),  z_t = A z_{t-1} + B x_t + l_t + M_t (s_t * noise_t)

    The loop keeps x, z and s alone. Its backward multiplies by the transposed weights step by step, and takes their
    gradients for all steps in one product each.

    Args:
        start: z_0, (..., dim).
        numbers: [e_t, l_t, r_t], (..., time, hidden + 2 dim); leading axes broadcast against those of `noise`.
        noise: (..., time, dim), standard normal; no gradient goes to it. In padding z_t is the noise itself.
        valid: (sequence, time), False in padding; None where there is none.
        weights: what the steps share.

    Returns:
        z_{1:T} and s_{1:T}, (..., time, dim) each.
    """
    numbers = numbers.to(weights.recurrent.dtype)
    weights = weights._replace(mixing=weights.mixing.to(numbers.dtype))
    start = start.expand(*noise.shape[:-2], start.shape[-1])
    inputs = (start, numbers, noise, valid, *weights)
    if not by_hand():
        return _reference(*inputs)
    if wanted(start, numbers, *weights):
        return _MarkovScan.apply(*inputs)
    z, scale, _ = _forward(*inputs, keep=False)
    return z, scale


def _reference(
    start: Tensor,
    numbers: Tensor,
    noise: Tensor,
    valid: Tensor | None,
    recurrent: Tensor,
    dynamics: Tensor,
    out: Tensor,
    mixing: Tensor,
) -> tuple[Tensor, Tensor]:
    """The same, followed by autograd step by step."""
    dim, hidden = start.shape[-1], recurrent.shape[0]
    told = [None] * noise.shape[-2] if valid is None else valid.unsqueeze(-1).unbind(-2)
    z, path, scales = start, [], []
    mixed = [mixing] * noise.shape[-2] if mixing.dim() == 2 else mixing.unbind(-3)
    for numbers_t, noise_t, mixing_t, valid_t in zip(numbers.unbind(-2), noise.unbind(-2), mixed, told, strict=True):
        e_t, rest_t = numbers_t.split([hidden, 2 * dim], -1)
        loc, raw = (rest_t + F.linear(torch.tanh(F.linear(z, recurrent) + e_t), out)).chunk(2, -1)
        scale = positive(raw, START_SCALE)
        z = loc + F.linear(z, dynamics) + _mixed(scale * noise_t, mixing_t)
        if valid_t is not None:
            z = torch.where(valid_t, z, noise_t)
        path.append(z)
        scales.append(scale)
    return torch.stack(path, -2), torch.stack(scales, -2)


def _mixed(noise: Tensor, mixing: Tensor) -> Tensor:
    """Return M e, (..., dim), with one M for all rows or one of each."""
    return F.linear(noise, mixing) if mixing.dim() == 2 else (mixing @ noise.unsqueeze(-1)).squeeze(-1)


def _of_rows(mixing: Tensor, shape: torch.Size) -> Tensor:
    """Return the M_t of every row, (row, time, dim, dim), where every step has its own."""
    return mixing.expand(*shape, *mixing.shape[-3:]).reshape(-1, *mixing.shape[-3:])


def _forward(
    start: Tensor,
    numbers: Tensor,
    noise: Tensor,
    valid: Tensor | None,
    recurrent: Tensor,
    dynamics: Tensor,
    out: Tensor,
    mixing: Tensor,
    *,
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return z, s and, to keep, x, (row, time, hidden)."""
    shape, (steps, dim), hidden = noise.shape[:-2], noise.shape[-2:], recurrent.shape[0]
    rows = shape.numel()
    # transposed copies: the product of a few rows with a matrix as it lies is a quarter to a third faster
    into = torch.cat([recurrent, dynamics]).t().contiguous()
    onto, shared = out.t().contiguous(), mixing.dim() == 2
    mix = mixing.t().contiguous() if shared else _of_rows(mixing, shape)
    mix_steps = None if shared else mix.unbind(1)

    first, raw = numbers.split([hidden + dim, dim], -1)
    first_steps = first.expand(*shape, steps, -1).unbind(-2)
    raw_steps = (raw + _SHIFT).expand(*shape, steps, dim).unbind(-2)
    noise = noise.reshape(rows, steps, dim)
    floors = (SMALLEST_SCALE * noise).unbind(1)
    told = None if valid is None else valid.expand(*shape, steps).reshape(rows, steps, 1).unbind(1)

    path, scale = noise.new_empty(rows, steps, dim), noise.new_empty(rows, steps, dim)
    x = noise.new_empty(rows, steps, hidden) if keep else None
    x_steps = None if x is None else x.unbind(1)
    pre = noise.new_empty(rows, hidden + dim)
    both, drawn = noise.new_empty(rows, 2 * dim), noise.new_empty(rows, dim)
    pre_x, pre_loc, both_loc, both_raw = pre[:, :hidden], pre[:, hidden:], both[:, :dim], both[:, dim:]
    pre_shaped, raw_shaped = pre.view(*shape, -1), both.view(*shape, -1)[..., dim:]

    z = start.reshape(rows, dim)
    for t, (z_t, s_t, noise_t) in enumerate(zip(path.unbind(1), scale.unbind(1), noise.unbind(1), strict=True)):
        torch.mm(z, into, out=pre)
        pre_shaped.add_(first_steps[t])
        x_t = torch.tanh(pre_x, out=pre_x if x_steps is None else x_steps[t])
        torch.mm(x_t, onto, out=both)
        raw_shaped.add_(raw_steps[t])
        torch._C._nn.softplus(both_raw, out=s_t)  # type: ignore[call-arg]
        torch.addcmul(floors[t], s_t, noise_t, out=drawn)
        pre_loc.add_(both_loc)
        if mix_steps is None:
            z = torch.addmm(pre_loc, drawn, mix, out=z_t)
        else:
            z = torch.add(pre_loc, torch.bmm(mix_steps[t], drawn.unsqueeze(-1)).squeeze(-1), out=z_t)
        if told is not None:
            torch.where(told[t], z, noise_t, out=z_t)
    scale += SMALLEST_SCALE
    return path.view(*shape, steps, dim), scale.view(*shape, steps, dim), x


class _MarkovScan(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, Tensor]:
        z, scale, x = _forward(*inputs, keep=True)
        ctx.save_for_backward(*inputs, z, scale, x)
        ctx.set_materialize_grads(False)
        return z, scale

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        *inputs, z, scale, x = ctx.saved_tensors
        if torch.is_grad_enabled():
            return tuple(again(_reference, inputs, ctx.needs_input_grad, gradients))
        start, numbers, noise, valid, recurrent, dynamics, out, mixing = inputs
        shape, (steps, dim), hidden = noise.shape[:-2], noise.shape[-2:], recurrent.shape[0]
        rows = shape.numel()
        z, scale, noise = (part.reshape(rows, steps, dim) for part in (z, scale, noise))
        from_z, from_scale = (None if g is None else g.reshape(rows, steps, dim) for g in gradients)
        back = torch.cat([recurrent, dynamics])

        # d softplus(r) / dr = sigmoid(r) = 1 - exp(-softplus(r))
        slope = torch.expm1(SMALLEST_SCALE - scale).neg_()
        by_noise = (slope * noise).unbind(1)
        by_scale = None if from_scale is None else (slope * from_scale).unbind(1)
        told = None if valid is None else valid.expand(*shape, steps).reshape(rows, steps, 1).to(z.dtype).unbind(1)

        total = noise.new_empty(rows, steps, hidden + 2 * dim)  # of numbers; beside it nothing is written
        inner, loc, raw = (part.unbind(1) for part in total.split([hidden, dim, dim], -1))
        towards_z, towards_x = (part.unbind(1) for part in (total[..., : hidden + dim], total[..., hidden:]))
        ahead = noise.new_zeros(rows, steps, dim).unbind(1) if from_z is None else from_z.unbind(1)
        x_steps = x.unbind(1)
        mix_steps = None if mixing.dim() == 2 else _of_rows(mixing, shape).unbind(1)
        drawn, from_x = noise.new_empty(rows, dim), noise.new_empty(rows, hidden)
        loc[-1].copy_(ahead[-1])
        for t in range(steps - 1, -1, -1):
            if told is not None:
                loc[t].mul_(told[t])
            if mix_steps is None:
                torch.mm(loc[t], mixing, out=drawn)
            else:
                torch.bmm(loc[t].unsqueeze(-2), mix_steps[t], out=drawn.unsqueeze(-2))
            if by_scale is None:
                torch.mul(drawn, by_noise[t], out=raw[t])
            else:
                torch.addcmul(by_scale[t], drawn, by_noise[t], out=raw[t])
            torch.mm(towards_x[t], out, out=from_x)
            torch.ops.aten.tanh_backward.grad_input(from_x, x_steps[t], grad_input=inner[t])
            if t:
                torch.addmm(ahead[t - 1], towards_z[t], back, out=loc[t - 1])
        to_start = (towards_z[0] @ back).view(*shape, dim)

        flat = total.view(rows * steps, -1)
        before = torch.cat([start.reshape(rows, 1, dim), z[:, :-1]], 1).view(-1, dim)
        to_both = flat[:, : hidden + dim].t() @ before
        to_out = flat[:, hidden:].t() @ x.view(-1, hidden)
        to_loc, drawn = flat[:, hidden : hidden + dim], (scale * noise).view(-1, dim)
        if mix_steps is None:
            to_mixing = to_loc.t() @ drawn
        else:
            outer = to_loc.unsqueeze(-1) * drawn.unsqueeze(-2)
            to_mixing = outer.view(*shape, *mixing.shape[-3:]).sum_to_size(mixing.shape)
        to_numbers = total.view(*shape, steps, -1).sum_to_size(numbers.shape)
        return to_start, to_numbers, None, None, to_both[:hidden], to_both[hidden:], to_out, to_mixing
