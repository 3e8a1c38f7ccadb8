"""Estimates of each sequence's log evidence, with their Monte Carlo error."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

KINDS = ("elbo", "iwae")


@dataclass(frozen=True)
class Evidence:
    """Log evidence, or a bound on it, per sequence.

    Attributes:
        kind: "elbo" (mean log-weight) or "iwae" (log mean weight, a tighter bound).
        values: nats, (sequence,).
        standard_error: Monte Carlo error of each value, nats, (sequence,).
        num_particles: draws behind each value.

    References:
        Burda, Grosse, Salakhutdinov. Importance weighted autoencoders. 2016.
    """

    kind: str
    values: Tensor
    standard_error: Tensor
    num_particles: int

    @property
    def total(self) -> float:
        """Sum over sequences, nats."""
        return float(self.values.sum())

    @property
    def total_standard_error(self) -> float:
        """Monte Carlo error of the sum, nats."""
        return float(self.standard_error.square().sum().sqrt())

    def __repr__(self) -> str:
        return (
            f"Evidence({self.kind}: {self.total:.2f} nats in {len(self.values)} sequences, Monte Carlo error "
            f"{self.total_standard_error:.2f}, {self.num_particles} particles)"
        )


def summarise(kind: str, log_weights: Tensor) -> Evidence:
    """Return the estimate of a kind from log-weights (particle, sequence).

    The error of a log mean weight is the relative error of the mean (delta method).

    Raises:
        ValueError: an unknown kind.
    """
    check_kind(kind)
    count = len(log_weights)
    if kind == "elbo":
        values = log_weights.mean(0)
        spread = log_weights.std(0) if count > 1 else torch.full_like(values, math.nan)
        return Evidence(kind, values, spread / count**0.5, count)
    values = torch.logsumexp(log_weights, 0) - math.log(count)
    relative = (log_weights - values).exp()
    spread = relative.std(0) if count > 1 else torch.full_like(values, math.nan)
    return Evidence(kind, values, spread / count**0.5, count)


def check_kind(kind: str) -> None:
    """Raise a ValueError for an unknown kind of evidence."""
    if kind not in KINDS:
        raise ValueError(f"evidence: kind must be one of {list(KINDS)}; found {kind!r}")
