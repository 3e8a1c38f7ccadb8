"""Estimates of each sequence's log evidence, with their Monte Carlo error."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from latentrnn.inference.pareto import tail_shape
from latentrnn.models.transitions.transition import check_size

KINDS = ("elbo", "iwae", "smc", "ais")


@dataclass(frozen=True)
class SMC:
    """How the kind of evidence "smc" is found: by independent particle filters, the mean of whose estimates counts.

    Args:
        num_filters: filters; their spread is the error. Every filter has a draw of the parameters with priors.
        proposal: where particles come from: "guide", or "prior" (a bootstrap filter), which needs no guide and many
            more particles.
        resample_below: effective share of the particles below which they are resampled. Weights of first steps know
            nothing of what is still to come, which a guide that smooths does: where it is good and sequences are
            short, a smaller share, or none, does better.

    Raises:
        ValueError: fewer than two filters, an unknown proposal, or a share outside [0, 1].
    """

    num_filters: int = 8
    proposal: str = "guide"
    resample_below: float = 0.5

    def __post_init__(self) -> None:
        if check_size("SMC", "num_filters", self.num_filters) < 2:
            raise ValueError(f"SMC: num_filters must be at least 2, for the error; found {self.num_filters}")
        if self.proposal not in ("guide", "prior"):
            raise ValueError(f"SMC: proposal must be 'guide' or 'prior'; found {self.proposal!r}")
        if not 0 <= self.resample_below <= 1:
            raise ValueError(f"SMC: resample_below must be in [0, 1]; found {self.resample_below}")


@dataclass(frozen=True)
class AIS:
    """How the kind of evidence "ais" is found: by annealing every draw of the guide into the posterior.

    Args:
        temperatures: steps of the path from the guide to the posterior.
        leapfrog: leapfrog steps of the Hamiltonian transition at each.
        pilot: chains of a run before, in which step sizes are found and which is then thrown away.

    Raises:
        ValueError: a number below one.
    """

    temperatures: int = 64
    leapfrog: int = 8
    pilot: int = 8

    def __post_init__(self) -> None:
        for name in ("temperatures", "leapfrog", "pilot"):
            check_size("AIS", name, getattr(self, name))


@dataclass(frozen=True)
class Evidence:
    """Log evidence, or a bound on it, per sequence.

    Attributes:
        kind: "elbo" (mean log-weight), "iwae" (log mean weight, a tighter bound), "smc" (log mean of the estimates of
            particle filters) or "ais" (log mean weight of annealed draws). On average all are below the log evidence,
            and all but the first come as close as one likes with more particles.
        values: nats, (sequence,).
        standard_error: Monte Carlo error of each value, nats, (sequence,): for "smc" from the spread of the filters.
        num_particles: draws behind each value; for "smc" particles of each filter.
        effective_sample_size: how many draws from the posterior the weights are worth, (sequence,); for "smc" the
            smallest on the way, averaged over filters. None for "elbo" and where the evidence is exact.
        pareto_k: Pareto k-hat of the weights, (sequence,): above 0.7 value and error are not to be believed. NaN for
            fewer than 25 draws; None for "elbo", "smc", and where the evidence is exact.

    References:
        Burda, Grosse, Salakhutdinov. Importance weighted autoencoders. 2016.
        Neal. Annealed importance sampling. 2001.
        Vehtari, Simpson, Gelman, Yao, Gabry. Pareto smoothed importance sampling. 2024.
    """

    kind: str
    values: Tensor
    standard_error: Tensor
    num_particles: int
    effective_sample_size: Tensor | None = None
    pareto_k: Tensor | None = None

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
    """Return the estimate of a kind, "smc" excepted, from log-weights (particle, sequence).

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
    values, error = log_mean(log_weights)
    sizes = 1 / (2 * log_weights.log_softmax(0)).exp().sum(0)
    return Evidence(kind, values, error, count, sizes, tail_shape(log_weights))


def from_filters(log_evidence: Tensor, smallest_sample: Tensor, num_particles: int) -> Evidence:
    """Return the estimate of the kind "smc" from independent filters, both (filter, sequence)."""
    values, error = log_mean(log_evidence)
    return Evidence("smc", values, error, num_particles, smallest_sample.mean(0))


def log_mean(log_weights: Tensor) -> tuple[Tensor, Tensor]:
    """Return the logarithm of the mean of weights (draw, ...), and its Monte Carlo error (delta method)."""
    count = len(log_weights)
    values = torch.logsumexp(log_weights, 0) - math.log(count)
    relative = (log_weights - values).exp()
    spread = relative.std(0) if count > 1 else torch.full_like(values, math.nan)
    return values, spread / count**0.5


def check_kind(kind: str) -> None:
    """Raise a ValueError for an unknown kind of evidence."""
    if kind not in KINDS:
        raise ValueError(f"evidence: kind must be one of {list(KINDS)}; found {kind!r}")
