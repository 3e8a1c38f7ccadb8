"""Resampling of weighted particles, and the number of equal ones that they are worth."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def effective_sample_size(log_weights: Tensor) -> Tensor:
    """Return the effective number of particles, (filter, sequence), of normalised log-weights."""
    return 1 / (2 * log_weights).exp().sum(1)


def systematic_resampling(log_weights: Tensor, below: float) -> tuple[Tensor, Tensor]:
    """Return new normalised log-weights and the ancestor of every particle, (filter, particle, sequence).

    Args:
        log_weights: normalised, (filter, particle, sequence).
        below: the effective sample size, as a share of the particles, below which they are resampled.
    """
    filters, count, sequences = log_weights.shape
    weights = log_weights.detach().exp()
    poor = (effective_sample_size(log_weights.detach()) < below * count).unsqueeze(1)
    # systematic: one uniform number for each filter and sequence, equally spaced positions from there
    start = torch.rand(filters, 1, sequences, dtype=weights.dtype, device=weights.device)
    order = torch.arange(count, device=weights.device)[:, None]
    positions = ((order + start) / count).transpose(1, 2).contiguous()
    cumulative = weights.cumsum(1).transpose(1, 2).contiguous()
    ancestors = torch.searchsorted(cumulative, positions).clamp(max=count - 1)
    ancestors = torch.where(poor, ancestors.transpose(1, 2), order)
    return torch.where(poor, torch.full_like(log_weights, -math.log(count)), log_weights), ancestors


def values_of(ancestors: Tensor, value: Tensor) -> Tensor:
    """Return the ancestors' values; `value` is (filter, particle, sequence, ...)."""
    chosen = ancestors.reshape(*ancestors.shape, *[1] * (value.dim() - ancestors.dim()))
    return value.gather(1, chosen.expand_as(value))
