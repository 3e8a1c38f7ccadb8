"""The deep Markov model's own guide: what the state carries forward, averaged with what an encoder says."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from latentrnn.inference.guides.families.draw_gradients import DrawGradients
from latentrnn.inference.guides.families.family import SMALLEST_SCALE, START_SCALE, positive, start_small
from latentrnn.inference.guides.families.markov import Markov, MarkovStep
from latentrnn.models.latents import LatentSite
from latentrnn.models.scans import (
    PLAIN,
    PackedRows,
    active_rows,
    gradient_wanted,
    gradients_by_autograd,
)
from latentrnn.support.private_symbols import never_traced, transforms_active

_SHIFT = math.log(math.expm1(START_SCALE))  # as in `positive`


class Combiner(Markov):
    """q(z_{1:T}) = prod_t Normal(z_t; m_t, diag(s_t)^2), given z_{t-1}.

        x_t = (tanh(W z_{t-1} + b) + f_t) / 2,  m_t = B x_t + d,  s_t = softplus(C x_t + c)

    f_t are the encoder's features as they are, so that x_t has their size. A narrower family than `Markov` (no linear
    step, no correlated noise, one network for both parts), for comparisons with deep Markov models as published.

    References:
        Krishnan, Shalit, Sontag. Structured inference networks for nonlinear state space models. 2017.
    """

    def __init__(self) -> None:
        super(Markov, self).__init__()

    def _make_step(self, site: LatentSite, start: LatentSite | None, step_size: int) -> MarkovStep:
        return _CombinerStep(site, start, step_size)


class _CombinerStep(MarkovStep):
    identity: Tensor

    def __init__(self, site: LatentSite, start: LatentSite | None, step_size: int) -> None:
        nn.Module.__init__(self)
        self.dim, self.hidden_size = site.dim, step_size
        self.map = nn.Identity()
        self.recurrent = nn.Linear(site.dim, step_size)
        self.out = nn.Linear(step_size, 2 * site.dim)
        self.first = None if start is None else nn.Parameter(torch.zeros(site.dim, start.dim))
        self.register_buffer("identity", torch.eye(site.dim), persistent=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Start nearly independent of the step before, with small weights from torch's global generator."""
        start_small(self.out)
        with torch.no_grad():
            nn.init.normal_(self.recurrent.weight, 0.0, 1 / self.dim**0.5)
            nn.init.zeros_(self.recurrent.bias)
        self.start_at_start()

    def parts(self, parameters: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return parameters, parameters[..., :0], parameters[..., :0]

    def mixing(self, below: Tensor) -> Tensor:
        return self.identity

    def forward(self, z: Tensor, e_t: Tensor, rest_t: Tensor) -> tuple[Tensor, Tensor]:
        loc, raw = self.out(0.5 * (torch.tanh(self.recurrent(z)) + e_t)).chunk(2, -1)
        return loc, positive(raw, START_SCALE)

    def draw(self, start: Tensor, parameters: Tensor, noise: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor]:
        weights = self.recurrent.weight, self.recurrent.bias, self.out.weight, self.out.bias
        return combiner_scan(start, parameters, noise, valid, *weights)


@never_traced
def combiner_scan(
    start: Tensor,
    features: Tensor,
    noise: Tensor,
    valid: Tensor | None,
    recurrent: Tensor,
    bias: Tensor,
    out: Tensor,
    out_bias: Tensor,
) -> tuple[Tensor, Tensor]:
    """Draw z_{1:T} along time, z_t = m_t + s_t * noise_t, with a backward that takes weights' gradients at once.

    Args:
        start: z_0, (..., dim).
        features: f_t, (..., time, hidden); leading axes broadcast against those of `noise`.
        noise: (..., time, dim), standard normal; no gradient goes to it. In padding z_t is the noise itself, s_t one.
        valid: (sequence, time), False in padding; None where there is none.
        recurrent, bias: W (hidden, dim) and b (hidden,).
        out, out_bias: B over C, (2 dim, hidden), and d beside c, (2 dim,).

    Returns:
        z_{1:T} and s_{1:T}, (..., time, dim) each.
    """
    features = features.to(recurrent.dtype)
    inputs = (start.expand(*noise.shape[:-2], -1), features, noise, valid, recurrent, bias, out, out_bias)
    if transforms_active() or not PLAIN.issuperset(map(type, inputs)):
        return _reference(*inputs)
    entries = PackedRows(valid, noise.shape[:-2], noise.shape[-2])
    if gradient_wanted(start, features, recurrent, bias, out, out_bias):
        return _CombinerScan.apply(entries, *inputs)
    z, scale, _ = _forward(entries, *inputs, keep=False)
    return z, scale


def _reference(
    start: Tensor,
    features: Tensor,
    noise: Tensor,
    valid: Tensor | None,
    recurrent: Tensor,
    bias: Tensor,
    out: Tensor,
    out_bias: Tensor,
) -> tuple[Tensor, Tensor]:
    """The same, followed by autograd step by step."""
    valid_steps = [None] * noise.shape[-2] if valid is None else valid.unsqueeze(-1).unbind(-2)
    z, path, scales = start, [], []
    for f_t, noise_t, valid_t in zip(features.unbind(-2), noise.unbind(-2), valid_steps, strict=True):
        x = 0.5 * (torch.tanh(F.linear(z, recurrent, bias)) + f_t)
        loc, raw = F.linear(x, out, out_bias).chunk(2, -1)
        scale = positive(raw, START_SCALE)
        z = loc + scale * noise_t
        if valid_t is not None:
            z, scale = torch.where(valid_t, z, noise_t), torch.where(valid_t, scale, 1.0)
        path.append(z)
        scales.append(scale)
    return torch.stack(path, -2), torch.stack(scales, -2)


def _forward(
    entries: PackedRows,
    start: Tensor,
    features: Tensor,
    noise: Tensor,
    valid: Tensor | None,
    recurrent: Tensor,
    bias: Tensor,
    out: Tensor,
    out_bias: Tensor,
    *,
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return z, s and, to keep, tanh(...) as `PackedRows` want it."""
    shape, (steps, dim), hidden = noise.shape[:-2], noise.shape[-2:], recurrent.shape[0]
    rows = shape.numel()
    # transposed copies: the product of a few rows with a matrix as it lies is a quarter to a third faster
    into, onto = recurrent.t().contiguous(), (0.5 * out).t().contiguous()
    shift = torch.cat([out_bias[:dim], out_bias[dim:] + _SHIFT])
    f_steps = entries.views(entries.take(features.expand(*shape, steps, hidden)))
    drawn = entries.take(noise)

    path, scale = entries.empty(noise, dim), entries.empty(noise, dim)
    kept = entries.empty(noise, hidden) if keep else None
    kept_steps = None if kept is None else entries.views(kept)
    units_0, x, both = (noise.new_empty(rows, size) for size in (hidden, hidden, 2 * dim))
    loc, raw = both[:, :dim], both[:, dim:]
    z = entries.start(start.reshape(rows, dim))
    steps_of = zip(*(entries.views(part) for part in (path, scale, drawn)), strict=True)
    for t, (z_t, s_t, noise_t) in enumerate(steps_of):
        if len(z) > len(z_t):
            z, units_0, x, both, loc, raw = (active_rows(part, z_t) for part in (z, units_0, x, both, loc, raw))
        units = units_0 if kept_steps is None else kept_steps[t]
        torch.addmm(bias, z, into, out=units).tanh_()
        torch.add(units, f_steps[t], out=x)
        torch.addmm(shift, x, onto, out=both)
        F.softplus(raw, out=s_t)  # type: ignore[call-arg]
        s_t.add_(SMALLEST_SCALE)
        z = torch.addcmul(loc, s_t, noise_t, out=z_t)
        if entries.inside is not None:
            torch.where(entries.inside[t], z, noise_t, out=z_t)
    found = entries.put(path, noise.reshape(rows, steps, dim)), entries.put(scale, 1.0)
    return found[0].reshape(noise.shape), found[1].reshape(noise.shape), kept


class _CombinerScan(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, entries: PackedRows, *inputs: Any) -> tuple[Tensor, Tensor]:
        z, scale, units = _forward(entries, *inputs, keep=True)
        ctx.entries = entries
        ctx.save_for_backward(*inputs, z, scale, units)
        ctx.set_materialize_grads(False)
        return z, scale

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        *inputs, z, scale, units = ctx.saved_tensors
        if torch.is_grad_enabled():
            return (None, *gradients_by_autograd(_reference, inputs, ctx.needs_input_grad[1:], gradients))
        start, features, noise, _, recurrent, _, out, _ = inputs
        shape, (steps, dim), hidden = noise.shape[:-2], noise.shape[-2:], recurrent.shape[0]
        rows, entries = shape.numel(), ctx.entries
        z, scale, noise = (entries.take(part) for part in (z, scale, noise))
        outside = DrawGradients(entries, scale, noise, gradients)
        half = 0.5 * out

        # gradients of [m_t, C x_t + c], of x_t + x_t and of W z + b
        both, to_x, inner = (entries.empty(noise, size) for size in (2 * dim, hidden, hidden))
        both_steps, loc_steps, raw_steps, to_x_steps, inner_steps, units_steps = (
            entries.views(part) for part in (both, both[..., :dim], both[..., dim:], to_x, inner, units)
        )
        for t in range(len(outside.to_draws) - 1, -1, -1):
            loc, within = loc_steps[t], inner_steps[t]
            if t + 1 == len(outside.to_draws):
                loc.copy_(outside.to_draws[t])
            outside.write_to_raw(t, loc, raw_steps[t])
            torch.mm(both_steps[t], half, out=to_x_steps[t])
            torch.ops.aten.tanh_backward.grad_input(to_x_steps[t], units_steps[t], grad_input=within)
            if t:
                entries.backward_step(loc_steps[t - 1], outside.to_draws[t - 1], within, recurrent)
        first = inner_steps[0] @ recurrent if inner_steps else noise.new_empty(0, dim)  # where no row has a step
        to_start = entries.at_start(first).view(*shape, dim)

        before = entries.before(entries.start(start.reshape(rows, dim)), z)
        flat, within = both.reshape(-1, 2 * dim), inner.reshape(-1, hidden)
        f = entries.take(features.expand(*shape, steps, hidden))
        to_out = 0.5 * (flat.t() @ (units + f).reshape(-1, hidden))
        to_features = entries.put(to_x, 0.0).reshape(*shape, steps, hidden).sum_to_size(features.shape)
        to_weights = within.t() @ before, within.sum(0), to_out, flat.sum(0)
        return (None, to_start, to_features, None, None, *to_weights)
