"""Distribution functions of single entries, of every family that has one."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.distributions import StudentT

from latentrnn.models.observations.zero_inflated import ZeroOrGamma

MOST_SUMMED = 10_000  # values of a count whose probabilities are added up


def cumulative(entries: Any, value: Tensor, *, discrete: bool) -> Tensor | None:
    """Return P(Y <= value) of every entry; None where the family has no distribution function that can be computed.

    Args:
        entries: univariate distributions, batch shape (..., channel).
        value: broadcasts with them.
        discrete: whether values are whole numbers from zero on, whose probabilities can be added up.
    """
    if isinstance(entries, StudentT):
        from scipy.special import stdtr  # only those who ask should wait for it

        standard = (value - entries.loc) / entries.scale
        df, standard = torch.broadcast_tensors(entries.df, standard)
        return torch.from_numpy(stdtr(df.numpy(), standard.numpy()))
    if has_cdf(entries):
        return entries.cdf(value)
    return _added_up(entries, value) if discrete else None


def has_cdf(entries: Any) -> bool:
    """Whether the distribution function has a closed form."""
    try:
        entries.cdf(entries.mean)
    except (NotImplementedError, AttributeError):
        return isinstance(entries, StudentT)
    return True


def mass(entries: Any, value: Tensor, *, discrete: bool) -> Tensor:
    """Return P(Y = value) of every entry, zero where Y has a density."""
    if discrete:
        return entries.log_prob(value).exp()
    if isinstance(entries, ZeroOrGamma):
        return torch.where(value == 0, entries.log_prob(torch.zeros_like(value)).exp(), 0.0)
    return torch.zeros_like(value)


def _added_up(entries: Any, value: Tensor) -> Tensor | None:
    top = int(value.max()) if value.numel() else 0
    if top > MOST_SUMMED:
        return None
    total = torch.zeros((), dtype=value.dtype)
    for k in range(top + 1):
        each = entries.log_prob(torch.full_like(value, k)).exp()
        total = total + torch.where(value >= k, each, 0.0)
    return total
