"""Estimates of each sequence's log evidence, with their Monte Carlo error and what speaks against believing them."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from latentrnn.inference.evidence.pareto import LARGEST_GOOD, tail_shape
from latentrnn.support.arguments import check_choice, check_number, check_size
from latentrnn.support.notebooks import ShownInNotebooks

if TYPE_CHECKING:
    import pandas

PRIOR_SHARE = 0.2  # of the particles of a filter with the proposal "mixture" that come from the prior
PROPOSALS = ("guide", "prior", "mixture")
EXACT = "exact"
KINDS = ("elbo", "iwae", "smc", "ais", EXACT)
AUTO = "auto"
LARGEST_SPREAD = 1.0  # nats between filters: beyond, the logarithm of their mean is biased and its error a guess
SMALLEST_SAMPLE = 2.0  # effective particles: below, a single one carries a step
BOUNDED_SHARE = 0.1  # of the particles: above it, bounded weights with a heavy tail are a matter of chance
FEWEST_DRAWS = 25  # that k-hat can be told from


@dataclass(frozen=True)
class SMC:
    """How the kind of evidence "smc" is found: by independent particle filters, the mean of whose estimates counts.

    Args:
        num_filters: filters; their spread is the error. Every filter has a draw of the parameters with priors.
        proposal: where particles come from: "guide"; "prior" (a bootstrap filter), which needs no guide and many more
            particles; or "mixture", the guide for four in five and the prior for the others, which a guide that is too
            narrow or hardly trained cannot mislead, at the price of a fifth of the particles where it is good.
        resample_below: effective share of the particles below which they are resampled. Weights of first steps know
            nothing of what is still to come, which a guide that smooths does: where it is good and sequences are
            short, a smaller share, or none, does better.

    Raises:
        ValueError: fewer than two filters, an unknown proposal, or a share outside [0, 1].

    References:
        Hesterberg. Weighted average importance sampling and defensive mixture distributions. 1995.
    """

    num_filters: int = 8
    proposal: str = "guide"
    resample_below: float = 0.5

    def __post_init__(self) -> None:
        number = check_size("SMC", "num_filters", self.num_filters)
        if number < 2:
            raise ValueError(f"SMC: num_filters must be at least 2, for the error; found {number}")
        check_choice("SMC", "proposal", self.proposal, PROPOSALS)
        share = check_number("SMC", "resample_below", self.resample_below, least=0, most=1)
        object.__setattr__(self, "num_filters", number)
        object.__setattr__(self, "resample_below", share)


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
            object.__setattr__(self, name, check_size("AIS", name, getattr(self, name)))


@dataclass(frozen=True)
class Evidence(ShownInNotebooks):
    """Log evidence, or a bound on it, per sequence; printed, it says whether it is to be believed.

    Attributes:
        kind: "elbo" (mean log-weight), "iwae" (log mean weight, a tighter bound), "smc" (log mean of the estimates of
            particle filters), "ais" (log mean weight of annealed draws) or "exact". On average the others are below the
            log evidence, and all but the first come as close as one likes with more particles.
        values: nats, (sequence,).
        standard_error: Monte Carlo error of each value, nats, (sequence,): for "smc" from the spread of the filters. In
            single precision it has what rounding of the states may change, too.
        num_particles: draws behind each value; for "smc" particles of each filter.
        effective_sample_size: how many draws from the posterior the weights are worth, (sequence,); for "smc" the
            smallest on the way, averaged over filters. None for "elbo" and where the evidence is exact.
        pareto_k: Pareto k-hat of the weights, (sequence,): above 0.7 value and error are not to be believed. For "smc"
            the largest of all steps, of the weights of all filters together. NaN for fewer than 25 draws; None for
            "elbo" and where the evidence is exact.
        spread: standard deviation of log Z over independent filters, nats, (sequence,); None but for "smc".
        proposal: where the particles of "smc" came from, see `SMC`; None for the others.
        names: of the sequences, where they are known.
        doubt: of a mixture, whether a member that matters to a sequence is doubtful, (sequence,); None otherwise.

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
    spread: Tensor | None = None
    proposal: str | None = None
    doubt: Tensor | None = None
    names: tuple[str, ...] | None = None

    @property
    def total(self) -> float:
        """Sum over sequences, nats."""
        return float(self.values.sum())

    @property
    def total_standard_error(self) -> float:
        """Monte Carlo error of the sum, nats."""
        return float(self.standard_error.square().sum().sqrt())

    @property
    def doubtful(self) -> Tensor:
        """Sequences whose value and error are not to be believed, (sequence,).

        Those with k-hat above 0.7, or unknown because there were too few draws; with filters also those where fewer
        than two particles carried a step, or the filters differ by more than a nat (standard deviation). Where
        particles come from the prior, or a share of them does, weights are bounded: a heavy tail at one of many steps
        then counts only where the effective sample size falls below a tenth of the particles. Never where the evidence
        is exact; a bound of kind "elbo" is what it says it is. A mixture is as doubtful as its members.
        """
        if self.doubt is not None:
            return self.doubt
        found = torch.zeros(self.values.shape, dtype=torch.bool)
        if self.pareto_k is not None:
            found = ~(self.pareto_k.cpu() <= LARGEST_GOOD)
        if self.spread is not None and self.effective_sample_size is not None:
            size = self.effective_sample_size.cpu()
            if self.proposal != "guide":
                found = found & (size < BOUNDED_SHARE * self.num_particles)
            found = found | ~(self.spread.cpu() <= LARGEST_SPREAD) | (size < SMALLEST_SAMPLE)
        return found

    @property
    def remedy(self) -> str:
        """What to try where some of it is not to be believed."""
        if self.kind == "smc":
            return f"more than {self.num_particles} particles per filter, a guide that is fitted longer, or lr.AIS()"
        if self.kind == "ais":
            return "lr.AIS() with more temperatures, more particles, or a guide that is fitted longer"
        if self.num_particles < FEWEST_DRAWS:
            return f"at least {FEWEST_DRAWS} particles, or kind='auto'"
        return "kind='auto' or 'smc' (particle filters), lr.AIS(), a richer family, or a guide that is fitted longer"

    def diagnosis(self) -> str:
        """Return effective sample size, k-hat, spread of filters, and whether that is a reason for doubt, in words."""
        measures = []
        if self.effective_sample_size is not None:
            what = "smallest effective sample size" + (" on the way" if self.kind == "smc" else "")
            measures.append(f"{what} {float(self.effective_sample_size.min()):.1f}")
        if self.pareto_k is not None:
            largest = float(self.pareto_k.nan_to_num(-math.inf).max())
            unknown = f"unknown below {FEWEST_DRAWS} draws"
            measures.append(f"k-hat {unknown if largest == -math.inf else f'up to {largest:.2f}'}")
        if self.spread is not None:
            measures.append(f"filters {float(self.spread.max()):.2f} nats apart at most")
        text = ", ".join(measures)
        if bad := int(self.doubtful.sum()):
            text += f"; not to be believed for {bad} of {len(self.values)} sequences, try {self.remedy}"
        return text

    def to_dataframe(self) -> pandas.DataFrame:
        """The estimate of every sequence, nats, with its Monte Carlo error and what is known of how good it is.

        Columns are "log_evidence" ("elbo" for that bound), "standard_error", "effective_sample_size", "pareto_k" and
        "spread" where there are any, and "doubtful".
        """
        import pandas

        columns = {
            "elbo" if self.kind == "elbo" else "log_evidence": self.values,
            "standard_error": self.standard_error,
        }
        for name in ("effective_sample_size", "pareto_k", "spread"):
            if (value := getattr(self, name)) is not None:
                columns[name] = value
        columns["doubtful"] = self.doubtful
        index = None if self.names is None else list(self.names)
        found = pandas.DataFrame({name: value.cpu().numpy() for name, value in columns.items()}, index)
        return found.rename_axis("sequence")

    def warn(self, owner: str, name: str, *, stacklevel: int = 3) -> None:
        """Warn (UserWarning) where some of it is not to be believed.

        Args:
            owner: who rests something on it.
            name: of the model.
            stacklevel: as of `warnings.warn`, counted from here.
        """
        if bool(self.doubtful.any()):
            warnings.warn(f"{owner}: {name}: {self!r}", UserWarning, stacklevel=stacklevel)

    def __repr__(self) -> str:
        kind = self.kind if self.proposal is None else f"{self.kind}, particles from the {self.proposal}"
        exact = self.effective_sample_size is None and self.kind != "elbo" and self.total_standard_error == 0
        head = f"{self.total:.2f} nats in {len(self.values)} sequences"
        if exact:
            return f"Evidence(exact: {head})"
        error = f"Monte Carlo error {self.total_standard_error:.2f}, {self.num_particles} particles"
        diagnosis = self.diagnosis()
        return f"Evidence({kind}: {head}, {error}{f', {diagnosis}' if diagnosis else ''})"


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


def from_filters(
    log_evidence: Tensor, smallest_sample: Tensor, largest_shape: Tensor, num_particles: int, proposal: str
) -> Evidence:
    """Return the estimate of the kind "smc" from independent filters.

    The error is the jackknife's over filters: where a single filter holds all of the mean, as with a bad proposal, it
    is as large as what leaving that one out changes, where the delta method says one nat at most.

    Args:
        log_evidence, smallest_sample: (filter, sequence).
        largest_shape: k-hat of the weights of all filters, the largest of all steps, (sequence,).
        num_particles: of each filter.
        proposal: see `SMC`.
    """
    values, error = log_mean(log_evidence)
    error = torch.maximum(error, _jackknife(log_evidence))
    spread = log_evidence.std(0)
    return Evidence(
        "smc", values, error, num_particles, smallest_sample.mean(0), largest_shape, spread, proposal
    )  # fmt: skip


def exactly(values: Tensor) -> Evidence:
    """Return values, (sequence,), that are the log evidence itself, nats."""
    return Evidence(EXACT, values, torch.zeros_like(values), 1)


def log_mean(log_weights: Tensor) -> tuple[Tensor, Tensor]:
    """Return the logarithm of the mean of weights (draw, ...), and its Monte Carlo error (delta method)."""
    count = len(log_weights)
    values = torch.logsumexp(log_weights, 0) - math.log(count)
    relative = (log_weights - values).exp()
    spread = relative.std(0) if count > 1 else torch.full_like(values, math.nan)
    return values, spread / count**0.5


def check_kind(kind: str) -> None:
    """Raise unless a kind of evidence is known by name: "auto" or one of `KINDS`; settings (`SMC`) are not names.

    Raises:
        ValueError: it is unknown or no name, with those that are known.
    """
    check_choice("evidence", "kind", kind, [AUTO, *KINDS])


def _jackknife(log_weights: Tensor) -> Tensor:
    """Return the jackknife error of the logarithm of a mean weight, (...), from log-weights (draw, ...)."""
    count = len(log_weights)
    scaled = log_weights - log_weights.amax(0)
    weights = scaled.exp()
    rest = weights.sum(0) - weights
    # without the largest the difference would be one of nearly equal numbers
    others = torch.zeros_like(weights, dtype=torch.bool).scatter_(0, weights.argmax(0, keepdim=True), True)
    without = torch.where(others, torch.logsumexp(scaled.masked_fill(others, -math.inf), 0), rest.log())
    centred = without - without.mean(0)
    return ((count - 1) / count * centred.square().sum(0)).sqrt()
