"""States that a map leaves in their place, or nearly: descent of the squared step, then Newton's method."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from latentrnn.interpret.derivatives.derivatives import jacobian

Map = Callable[[Tensor], Tensor]

NEAR = 1e-4  # a step, in units of the spread of the states, from which Newton's method takes over
EXACT = 1e-9  # a step so small, in units of the spread of the states, is none
POLISHED = 60  # iterations of Newton's method at most
AT_ONCE = 2**24  # numbers of Jacobians that are held at once
DAMPING = (1e-6, 1e-14, 1e8)  # to begin with, at least, and where to give up


class Spread(NamedTuple):
    """Where states lie.

    Attributes:
        scale: standard deviation of each number of the state, (size,), never zero.
        radius: root mean squared distance from their mean.
    """

    scale: Tensor
    radius: float

    @classmethod
    def of(cls, states: Tensor) -> Spread:
        """Return the spread of states (state, size)."""
        variance = states.var(0, correction=0)
        radius = float(variance.sum().sqrt())
        radius = radius if radius > 1e-12 else 1.0  # of a single state there is none
        least = 1e-3 * radius / math.sqrt(states.shape[-1])
        return cls(variance.sqrt().clamp_min(least), radius)


def settle(step: Map, states: Tensor, ends: Tensor, spread: Spread, *, descent: int) -> tuple[Tensor, Tensor]:
    """Return where many starts come to rest, (row, size), and how long a step is there, (row,).

    Descends q(s) = |F(s) - s|^2 / 2 by Adam, all starts at once, then by damped Newton steps (Levenberg-Marquardt),
    which end at points where F(s) = s, or at minima of q, where it moves least. `ends` of runs, which are next to
    points that attract, go through the Newton steps alone.

    References:
        Sussillo, Barak. Opening the black box: low-dimensional dynamics in high-dimensional recurrent neural networks.
        2013.
    """
    rows = max(1, AT_ONCE // states.shape[-1] ** 2)
    parts = torch.cat([_descend(step, states, spread, descent), ends]).split(rows)
    found = torch.cat([polish(step, part, spread) for part in parts])
    return found, _residual(step, found).norm(dim=-1)


def polish(step: Map, states: Tensor, spread: Spread) -> Tensor:
    """Return states after damped Newton steps, each kept only where it makes |F(s) - s| smaller."""
    state = states.clone()
    first, least, most = DAMPING
    damping = state.new_full((len(state),), first)
    residual = _residual(step, state)
    identity = torch.eye(state.shape[-1], dtype=state.dtype, device=state.device)
    for _ in range(POLISHED):
        size = residual.norm(dim=-1)
        open_ = ((size > 1e-3 * EXACT * spread.radius) & (damping < most)).nonzero()[:, 0]
        if not len(open_):
            break
        here, r = state[open_], residual[open_]
        slope = jacobian(step, here) - identity
        normal = slope.mT @ slope + damping[open_, None, None] * identity
        move = torch.linalg.solve(normal, slope.mT @ r.unsqueeze(-1)).squeeze(-1)
        there = here - move
        after = _residual(step, there)
        better = after.norm(dim=-1) < size[open_] * (1 - 1e-6)  # NaN is not
        kept = open_[better]
        state[kept], residual[kept] = there[better], after[better]
        damping[open_] = torch.where(better, damping[open_] / 10, damping[open_] * 10).clamp_min(least)
    return state


def distinct(states: Tensor, order: Tensor, least: float) -> Tensor:
    """Return the indices of states no two of which are nearer than `least`; the first in `order` stands for others."""
    kept: list[int] = []
    for index in order.tolist():
        if not kept or float((states[kept] - states[index]).norm(dim=-1).min()) > least:
            kept.append(index)
    return torch.tensor(kept, dtype=torch.long)


def _residual(step: Map, state: Tensor) -> Tensor:
    with torch.no_grad():
        return step(state) - state


def _descend(step: Map, states: Tensor, spread: Spread, iterations: int) -> Tensor:
    """Return states after Adam on q, in units of the states' own spread; the best that each start came by."""
    scale = spread.scale.to(states)
    x = (states / scale).detach()
    first, second = torch.zeros_like(x), torch.zeros_like(x)
    best, least = states.clone(), torch.full_like(states[:, 0], torch.inf)
    for number in range(iterations):
        with torch.enable_grad():
            x.requires_grad_()
            state = x * scale
            q = 0.5 * (step(state) - state).square().sum(-1)
            (gradient,) = torch.autograd.grad(q.sum(), x)
        better = q.detach() < least
        best[better], least[better] = state.detach()[better], q.detach()[better]
        if number % 25 == 24 and float(least.max()) < (NEAR * spread.radius) ** 2:
            break  # Newton's method is sure of the rest
        with torch.no_grad():
            rate = 0.05 * 0.5 * (1 + math.cos(math.pi * number / iterations))
            first = 0.9 * first + 0.1 * gradient
            second = 0.99 * second + 0.01 * gradient.square()
            corrected = second / (1 - 0.99 ** (number + 1))
            x = x.detach() - rate * first / (1 - 0.9 ** (number + 1)) / (corrected.sqrt() + 1e-16)
    return best
