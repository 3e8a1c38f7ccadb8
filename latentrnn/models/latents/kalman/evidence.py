"""The log evidence of a linear-Gaussian chain, with a backward pass that is written out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from latentrnn.models.latents.kalman.filter import (
    Dynamics,
    Information,
    identity_like,
    kalman_filter,
    matrix_recursion,
    recursion,
    times,
)
from latentrnn.models.scans.transforms import PLAIN, gradient_wanted, gradients_by_autograd
from latentrnn.support.private_symbols import transforms_active


def log_normaliser(dynamics: Dynamics, information: Information) -> tuple[Tensor, Tensor]:
    """Return what log p(y_{1:T}) has beyond the heads' log-densities at given states, nats, (...), and these states.

    The states are the filtered means, (..., time, state). Values and gradients are right for the sum of the two parts,
    whose gradients are those of the smoother's moments: followed back through the filter by hand, a gradient costs
    about as much as the filter.

    References:
        Bryson, Frazier. Smoothing for linear and nonlinear dynamic systems. 1963.
        Koopman, Shephard. Exact score for time series models in state space form. 1992.
    """
    inputs = (*dynamics[:5], *information)
    if not transforms_active() and PLAIN.issuperset(map(type, inputs)) and gradient_wanted(*inputs):
        found: tuple[Tensor, Tensor] = _LogNormaliser.apply(dynamics.valid, *inputs)
        return found
    filtered = kalman_filter(dynamics, information)
    return filtered.log_normaliser, filtered.loc


class _LogNormaliser(torch.autograd.Function):
    """log E[exp(sum_t j_t'(z_t - m_t) - (z_t' J_t z_t - m_t' J_t m_t) / 2)] under the prior, the m_t being held."""

    @staticmethod
    def forward(ctx: Any, valid: Tensor | None, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        filtered = kalman_filter(*_parts(valid, inputs))
        ctx.valid = valid
        ctx.save_for_backward(*inputs, filtered.loc, filtered.root)
        ctx.mark_non_differentiable(filtered.loc)
        ctx.set_materialize_grads(False)
        return filtered.log_normaliser, filtered.loc

    @staticmethod
    def backward(ctx: Any, gradient: Tensor | None, _: None) -> tuple[Tensor | None, ...]:
        *inputs, loc, root = ctx.saved_tensors
        if gradient is None:
            return (None,) * (1 + len(inputs))
        if torch.is_grad_enabled():
            valid, needed = ctx.valid, ctx.needs_input_grad[1:]
            return (
                None,
                *gradients_by_autograd(lambda *given: _reference(valid, loc, *given), inputs, needed, [gradient]),
            )
        found = _gradients(*_parts(ctx.valid, inputs), loc, root @ root.mT, gradient)
        return (None, *(part.sum_to_size(given.shape) for part, given in zip(found, inputs, strict=True)))


def _reference(valid: Tensor | None, held: Tensor, *inputs: Tensor) -> tuple[Tensor]:
    """The same, followed by autograd step by step."""
    dynamics, information = _parts(valid, inputs)
    filtered = kalman_filter(dynamics, information)

    def said(states: Tensor) -> Tensor:
        quadratic = (states * times(information.precision, states)).sum(-1)
        return ((information.vector * states).sum(-1) - 0.5 * quadratic).sum(-1)

    return (filtered.log_normaliser + said(filtered.loc) - said(held),)


def _parts(valid: Tensor | None, inputs: Sequence[Tensor]) -> tuple[Dynamics, Information]:
    weight, offset, scale, initial_loc, initial_scale, precision, vector = inputs
    return Dynamics(weight, offset, scale, initial_loc, initial_scale, valid), Information(precision, vector)


def _gradients(
    dynamics: Dynamics, information: Information, loc: Tensor, covariance: Tensor, gradient: Tensor
) -> list[Tensor]:
    """Return gradients of the tensors of `dynamics` and `information`, not yet summed over what these share.

    Of log p(y) with respect to the predicted mean of step t it is r_t, and with respect to the predicted covariance
    (r_t r_t' - N_t) / 2, where both come back from the end:

        r_t = F_t' A' r_{t+1} + j_t - J_t m_t,   N_t = F_t' A' N_{t+1} A F_t + F_t' J_t,   F_t = I - P_t J_t

    Args:
        dynamics, information: of the filter.
        loc, covariance: m and P, of its filtered states.
        gradient: of the log normaliser, (...).
    """
    precision, weights = information.precision, dynamics.weights
    shrinkage = identity_like(precision) - covariance @ precision
    later = weights if weights.shape[-3] == 1 else weights.roll(-1, -3)  # nothing comes after the last step
    back = (later @ shrinkage).mT.flip(-3)
    score = recursion(back, (information.vector - times(precision, loc)).flip(-2), torch.zeros_like(loc[..., 0, :]))
    curvature = matrix_recursion(back, (shrinkage.mT @ precision).flip(-3), torch.zeros_like(covariance[..., 0, :, :]))
    score, curvature = score.flip(-2), curvature.flip(-3)
    # with respect to the filtered moments of the step before, z_0 first
    pulled_score, pulled_curvature = times(weights.mT, score), weights.mT @ curvature @ weights
    moved = times(covariance, _later(pulled_score, -2))  # from the filtered to the smoothed mean
    smoothed = covariance - covariance @ _later(pulled_curvature, -3) @ covariance
    across = _outer(loc, moved)
    spread = _outer(score, score) - curvature
    start_loc, start_scale = dynamics.initial_loc, dynamics.initial_scale
    loc_before = _earlier(start_loc, loc, -2)
    covariance_before = _earlier(torch.diag_embed(start_scale**2), covariance, -3)
    start_score, start_curvature = pulled_score[..., 0, :], pulled_curvature[..., 0, :, :]
    per_state, per_step = gradient.unsqueeze(-1), gradient[..., None, None]
    per_matrix = per_step.unsqueeze(-1)
    return [
        (per_matrix * (_outer(score, loc_before) + spread @ weights @ covariance_before)).sum(-3),
        per_step * score,
        per_state * dynamics.scale * _diagonal(spread).sum(-2),
        per_state * start_score,
        per_state * start_scale * (start_score**2 - _diagonal(start_curvature)),
        -0.5 * per_matrix * (smoothed + _outer(moved, moved) + across + across.mT),
        per_step * moved,
    ]


def _outer(left: Tensor, right: Tensor) -> Tensor:
    return left.unsqueeze(-1) * right.unsqueeze(-2)


def _diagonal(matrices: Tensor) -> Tensor:
    return matrices.diagonal(dim1=-2, dim2=-1)


def _later(values: Tensor, dim: int) -> Tensor:
    """Return the values of the step after each along `dim`, zero after the last."""
    rest = values.narrow(dim, 1, values.shape[dim] - 1)
    return torch.cat([rest, torch.zeros_like(values.narrow(dim, 0, 1))], dim)


def _earlier(first: Tensor, values: Tensor, dim: int) -> Tensor:
    """Return the values of the step before each along `dim`, `first` before the first."""
    start = first.unsqueeze(dim).expand_as(values.narrow(dim, 0, 1))
    return torch.cat([start, values.narrow(dim, 0, values.shape[dim] - 1)], dim)
