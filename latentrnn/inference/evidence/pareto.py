"""How heavy the tail of importance weights is."""

from __future__ import annotations

import math

import torch
from torch import Tensor

LARGEST_GOOD = 0.7  # above it, importance sampling converges too slowly to be of use


def tail_shape(log_weights: Tensor) -> Tensor:
    """Return Pareto k-hat of importance weights: weights have finite moments up to order 1 / k.

    A generalised Pareto distribution is fitted to the largest weights, min(S / 5, 3 sqrt(S)) of S, by the empirical
    Bayes estimate of Zhang and Stephens, with a weak prior at one half. NaN where there are fewer than five in the
    tail (S < 25); zero where no weight is a hundredth above where the tail begins: what differs then is rounding.

    Args:
        log_weights: (particle, ...), in nats, up to a constant.

    Returns:
        (...).

    References:
        Zhang, Stephens. A new and efficient estimation method for the generalized Pareto distribution. 2009.
        Vehtari, Simpson, Gelman, Yao, Gabry. Pareto smoothed importance sampling. 2024.
    """
    count = len(log_weights)
    tail = math.ceil(min(count / 5, 3 * count**0.5))
    if tail < 5:
        return torch.full(log_weights.shape[1:], math.nan, dtype=torch.float64, device=log_weights.device)
    ordered = log_weights.double().sort(0).values
    ordered = ordered - ordered[-1:]
    over = ordered[-tail:].exp() - ordered[-tail - 1].exp()  # ascending, as the fit wants them
    flat = over[-1] < 0.01
    over = torch.where(flat, 1.0, over)
    grid = 30 + int(tail**0.5)
    steps = torch.arange(1, grid + 1, dtype=over.dtype, device=over.device) - 0.5
    steps = steps.reshape(-1, *[1] * (over.dim() - 1))
    quartile = over[int(tail / 4 + 0.5) - 1].clamp_min(torch.finfo(over.dtype).tiny)
    b = (1 - (grid / steps).sqrt()) / (3 * quartile) + 1 / over[-1]  # (grid, ...)
    k = torch.log1p(-b.unsqueeze(1) * over).mean(1)
    profile = tail * (torch.log(-b / k) - k - 1)
    weight = profile.softmax(0)
    best = (b * weight).sum(0)
    shape = torch.log1p(-best * over).mean(0)
    shape = (tail * shape + 5.0) / (tail + 10)
    return torch.where(flat, 0.0, shape)
