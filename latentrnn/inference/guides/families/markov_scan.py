"""The path of a `Markov` guide: drawn in one loop, with a backward of its own."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from latentrnn.inference.guides.families.draw_gradients import DrawGradients
from latentrnn.inference.guides.families.family import SMALLEST_SCALE, START_SCALE, positive
from latentrnn.models.scans import (
    PLAIN,
    PackedRows,
    active_rows,
    gradient_wanted,
    gradients_by_autograd,
)
from latentrnn.support.private_symbols import never_traced, transforms_active

_SHIFT = math.log(math.expm1(START_SCALE))  # as in `positive`


class MarkovWeights(NamedTuple):
    """The weights of all steps.

    Attributes:
        recurrent: W, (hidden, dim).
        dynamics: A, (dim, dim).
        out: B over C, (2 dim, hidden).
        mixing: M, (dim, dim), or one of each step, (..., time, dim, dim), leading axes as those of the parameters.
    """

    recurrent: Tensor
    dynamics: Tensor
    out: Tensor
    mixing: Tensor


@never_traced
def markov_scan(
    start: Tensor, parameters: Tensor, noise: Tensor, valid: Tensor | None, weights: MarkovWeights
) -> tuple[Tensor, Tensor]:
    """Draw z_{1:T} along time.

        x_t = tanh(W z_{t-1} + e_t),  s_t = softplus(C x_t + r_t),  z_t = A z_{t-1} + B x_t + l_t + M_t (s_t * noise_t)

    The loop keeps x, z and s alone. Its backward multiplies by the transposed weights step by step, and takes the
    gradient of what the steps share for all of them in one product each.

    Args:
        start: z_0, (..., dim).
        parameters: [e_t, l_t, r_t], (..., time, hidden + 2 dim); leading axes broadcast against those of `noise`.
        noise: (..., time, dim), standard normal; no gradient goes to it. In padding z_t is the noise itself, s_t one.
        valid: (sequence, time), False in padding; None where there is none.
        weights: of all steps.

    Returns:
        z_{1:T} and s_{1:T}, (..., time, dim) each.
    """
    parameters = parameters.to(weights.recurrent.dtype)
    weights = weights._replace(mixing=weights.mixing.to(parameters.dtype))
    start = start.expand(*noise.shape[:-2], start.shape[-1])
    inputs = (start, parameters, noise, valid, *weights)
    if transforms_active() or not PLAIN.issuperset(map(type, inputs)):
        return _reference(*inputs)
    entries = PackedRows(valid, noise.shape[:-2], noise.shape[-2])
    if gradient_wanted(start, parameters, *weights):
        return _MarkovScan.apply(entries, *inputs)
    z, scale, _ = _forward(entries, *inputs, keep=False)
    return z, scale


def _reference(
    start: Tensor,
    parameters: Tensor,
    noise: Tensor,
    valid: Tensor | None,
    recurrent: Tensor,
    dynamics: Tensor,
    out: Tensor,
    mixing: Tensor,
) -> tuple[Tensor, Tensor]:
    """The same, followed by autograd step by step."""
    dim, hidden = start.shape[-1], recurrent.shape[0]
    valid_steps = [None] * noise.shape[-2] if valid is None else valid.unsqueeze(-1).unbind(-2)
    z, path, scales = start, [], []
    mixed = [mixing] * noise.shape[-2] if mixing.dim() == 2 else mixing.unbind(-3)
    for parameters_t, noise_t, mixing_t, valid_t in zip(
        parameters.unbind(-2), noise.unbind(-2), mixed, valid_steps, strict=True
    ):
        e_t, rest_t = parameters_t.split([hidden, 2 * dim], -1)
        loc, raw = (rest_t + F.linear(torch.tanh(F.linear(z, recurrent) + e_t), out)).chunk(2, -1)
        scale = positive(raw, START_SCALE)
        z = loc + F.linear(z, dynamics) + _mixed(scale * noise_t, mixing_t)
        if valid_t is not None:
            z, scale = torch.where(valid_t, z, noise_t), torch.where(valid_t, scale, 1.0)
        path.append(z)
        scales.append(scale)
    return torch.stack(path, -2), torch.stack(scales, -2)


def _mixed(noise: Tensor, mixing: Tensor) -> Tensor:
    """Return M e, (..., dim), with one M for all rows or one of each."""
    return F.linear(noise, mixing) if mixing.dim() == 2 else (mixing @ noise.unsqueeze(-1)).squeeze(-1)


def _mixing_steps(entries: PackedRows, mixing: Tensor, shape: torch.Size) -> list[Tensor] | None:
    """Return the M_t of every step, (row, dim, dim), where each has its own."""
    if mixing.dim() == 2:
        return None
    steps = entries.views(entries.take(mixing.flatten(-2).expand(*shape, mixing.shape[-3], -1)))
    return [step.unflatten(-1, mixing.shape[-2:]) for step in steps]


def _forward(
    entries: PackedRows,
    start: Tensor,
    parameters: Tensor,
    noise: Tensor,
    valid: Tensor | None,
    recurrent: Tensor,
    dynamics: Tensor,
    out: Tensor,
    mixing: Tensor,
    *,
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return z, s and, to keep, x as `PackedRows` want it."""
    shape, (steps, dim), hidden = noise.shape[:-2], noise.shape[-2:], recurrent.shape[0]
    rows = shape.numel()
    # transposed copies: the product of a few rows with a matrix as it lies is a quarter to a third faster
    into = torch.cat([recurrent, dynamics]).t().contiguous()
    onto, mix = out.t().contiguous(), mixing.t().contiguous() if mixing.dim() == 2 else mixing
    mix_steps = _mixing_steps(entries, mixing, shape)

    first, raw = entries.take(parameters.expand(*shape, steps, -1)).split([hidden + dim, dim], -1)
    drawn = entries.take(noise)
    path, scale = entries.empty(noise, dim), entries.empty(noise, dim)
    x = entries.empty(noise, hidden) if keep else None
    x_steps = None if x is None else entries.views(x)
    pre, both, mixed = (noise.new_empty(rows, size) for size in (hidden + dim, 2 * dim, dim))
    z = entries.start(start.reshape(rows, dim))
    parts = (path, scale, drawn, first, raw + _SHIFT, SMALLEST_SCALE * drawn)
    steps_of = zip(*(entries.views(part) for part in parts), strict=True)
    for t, (z_t, s_t, noise_t, first_t, raw_t, floor_t) in enumerate(steps_of):
        if t == 0 or len(z) > len(z_t):
            z, pre, both, mixed = (active_rows(part, z_t) for part in (z, pre, both, mixed))
            pre_x, pre_loc, both_loc, both_raw = pre[:, :hidden], pre[:, hidden:], both[:, :dim], both[:, dim:]
        torch.mm(z, into, out=pre)
        pre.add_(first_t)
        x_t = torch.tanh(pre_x, out=pre_x if x_steps is None else x_steps[t])
        torch.mm(x_t, onto, out=both)
        both_raw.add_(raw_t)
        F.softplus(both_raw, out=s_t)  # type: ignore[call-arg]
        torch.addcmul(floor_t, s_t, noise_t, out=mixed)
        pre_loc.add_(both_loc)
        if mix_steps is None:
            z = torch.addmm(pre_loc, mixed, mix, out=z_t)
        else:
            z = torch.add(pre_loc, torch.bmm(mix_steps[t], mixed.unsqueeze(-1)).squeeze(-1), out=z_t)
        if entries.inside is not None:
            torch.where(entries.inside[t], z, noise_t, out=z_t)
    scale += SMALLEST_SCALE
    found = entries.put(path, noise.reshape(rows, steps, dim)), entries.put(scale, 1.0)
    return found[0].reshape(noise.shape), found[1].reshape(noise.shape), x


class _MarkovScan(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, entries: PackedRows, *inputs: Any) -> tuple[Tensor, Tensor]:
        z, scale, x = _forward(entries, *inputs, keep=True)
        ctx.entries = entries
        ctx.save_for_backward(*inputs, z, scale, x)
        ctx.set_materialize_grads(False)
        return z, scale

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        *inputs, z, scale, x = ctx.saved_tensors
        if torch.is_grad_enabled():
            return (None, *gradients_by_autograd(_reference, inputs, ctx.needs_input_grad[1:], gradients))
        start, parameters, noise, _, recurrent, dynamics, out, mixing = inputs
        shape, (steps, dim), hidden = noise.shape[:-2], noise.shape[-2:], recurrent.shape[0]
        rows, entries = shape.numel(), ctx.entries
        z, scale, noise = (entries.take(part) for part in (z, scale, noise))
        outside = DrawGradients(entries, scale, noise, gradients)
        back = torch.cat([recurrent, dynamics])

        mix_steps = _mixing_steps(entries, mixing, shape)

        total = entries.empty(noise, hidden + 2 * dim)  # the gradient of numbers, whose parts are written in place
        inner, loc, raw = (entries.views(part) for part in total.split([hidden, dim, dim], -1))
        towards_z, towards_x = (entries.views(part) for part in (total[..., : hidden + dim], total[..., hidden:]))
        x_steps = entries.views(x)
        drawn, from_x = noise.new_empty(rows, dim), noise.new_empty(rows, hidden)
        for t in range(len(outside.to_draws) - 1, -1, -1):
            if t + 1 == len(outside.to_draws):
                loc[t].copy_(outside.to_draws[t])
            mixed, towards = active_rows(drawn, loc[t]), active_rows(from_x, loc[t])
            if mix_steps is None:
                torch.mm(loc[t], mixing, out=mixed)
            else:
                torch.bmm(loc[t].unsqueeze(-2), mix_steps[t], out=mixed.unsqueeze(-2))
            outside.write_to_raw(t, mixed, raw[t])
            torch.mm(towards_x[t], out, out=towards)
            torch.ops.aten.tanh_backward.grad_input(towards, x_steps[t], grad_input=inner[t])
            if t:
                entries.backward_step(loc[t - 1], outside.to_draws[t - 1], towards_z[t], back)
        first = towards_z[0] @ back if towards_z else noise.new_empty(0, dim)  # where no row has a step
        to_start = entries.at_start(first).view(*shape, dim)

        flat = total.reshape(-1, hidden + 2 * dim)
        before = entries.before(entries.start(start.reshape(rows, dim)), z)
        to_both = flat[:, : hidden + dim].t() @ before
        to_out = flat[:, hidden:].t() @ x.reshape(-1, hidden)
        to_loc, white = total[..., hidden : hidden + dim], scale * noise
        if mix_steps is None:
            to_mixing = to_loc.reshape(-1, dim).t() @ white.reshape(-1, dim)
        else:
            outer = entries.put((to_loc.unsqueeze(-1) * white.unsqueeze(-2)).flatten(-2), 0.0)
            to_mixing = outer.reshape(*shape, *mixing.shape[-3:]).sum_to_size(mixing.shape)
        to_parameters = entries.put(total, 0.0).reshape(*shape, steps, -1).sum_to_size(parameters.shape)
        return (None, to_start, to_parameters, None, None, to_both[:hidden], to_both[hidden:], to_out, to_mixing)
