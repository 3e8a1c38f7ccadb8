"""Counts with a Poisson distribution."""

from __future__ import annotations

from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints

from latentrnn.data import SequenceData
from latentrnn.models.features.units import channel_means
from latentrnn.models.observations.exposure import ExposedCounts
from latentrnn.models.observations.head_inputs import HeadInputs
from latentrnn.models.observations.links import Link, as_link
from latentrnn.models.observations.observation import refuse_outside

LARGEST_PART = 2**22  # log-factorials that are held at once
LARGEST_RATE = 1e6  # a free-running model that explodes shows up as huge counts, not as NaN


class Poisson(ExposedCounts):
    """y ~ Poisson(rate), rate = exposure * link(eta): the expected count per bin.

    Args:
        link: "exp", "softplus" or a `PositiveLink`.
        exposure: name of a positive covariate to which the rate is proportional, or None; see `ExposedCounts`.
        **shared: see `Observation`.

    Raises:
        ValueError: an unknown link, or one that does not map onto the positive numbers.
    """

    discrete = True
    counts_events = True

    def __init__(self, link: str | Link = "exp", *, exposure: str | None = None, **shared: Any) -> None:
        super().__init__(link, exposure, **shared)

    def family(self, eta: Tensor) -> dist.Distribution:
        return LogRatePoisson(as_link(self.link).log(eta))

    def exposed(self, entries: LogRatePoisson, log_exposure: Tensor) -> dist.Distribution:
        return LogRatePoisson(entries.log_rate + log_exposure)

    def prepare(self, data: SequenceData) -> SequenceData:
        name = self.head.name
        values, mask = data.observations[name], None if data.complete(name) else data.scored(name)
        return data.with_constant(name, total_log_factorials(values, mask))

    def inputs(self, data: SequenceData) -> HeadInputs:
        inputs, values = super().inputs(data), data.observations[self.head.name]
        known = data.constant(self.head.name)
        return inputs if known is None else inputs._replace(constant=(values, known))

    def distribution(self, eta: Tensor, inputs: HeadInputs) -> dist.Distribution:
        rates = self.entries(eta, inputs)
        return PoissonCounts(rates, inputs.mask, inputs.constant, 2 if self.head.per_step else 1)

    def check(self, name: str, values: Tensor, mask: Tensor) -> None:
        bad = mask & (values != values.floor().clamp_min(0))
        refuse_outside(name, "Poisson", "non-negative integers", bad, values)

    def starting_baseline(self, values: Tensor, mask: Tensor) -> Tensor:
        return as_link(self.link).inverse(channel_means(values, mask).clamp_min(1e-4))


class LogRatePoisson(TorchDistribution):
    """Poisson by its log-rate, which stays finite where the rate underflows."""

    arg_constraints: ClassVar[dict[str, Any]] = {"log_rate": constraints.real}
    support = constraints.nonnegative_integer

    def __init__(self, log_rate: Tensor) -> None:
        self.log_rate = log_rate
        super().__init__(log_rate.shape, validate_args=False)

    @property
    def mean(self) -> Tensor:
        """The rate."""
        return self.log_rate.exp()

    variance = mean

    def expand(self, batch_shape: torch.Size, _instance: None = None) -> LogRatePoisson:
        return LogRatePoisson(self.log_rate.expand(batch_shape))

    def log_prob(self, value: Tensor) -> Tensor:
        return value * self.log_rate - self.log_rate.exp() - torch.lgamma(value + 1)

    def cdf(self, value: Tensor) -> Tensor:
        below = torch.special.gammaincc(value.floor().clamp_min(0) + 1, self.log_rate.exp())
        return torch.where(value < 0, 0.0, below)

    def sample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008
        with torch.no_grad():
            rate = self.log_rate.exp().clamp(max=LARGEST_RATE).expand(torch.Size(sample_shape) + self.batch_shape)
            return torch.poisson(rate)


class PoissonCounts(dist.Independent):
    """Poisson counts of a whole sequence: their density is a product of arrays and two sums.

    Args:
        rates: of every entry.
        mask: which entries count; None for all.
        constant: values and the sum of their log-factorials, (sequence,), which need not be computed again.
        dims: how many last axes are the event.
    """

    def __init__(
        self, rates: LogRatePoisson, mask: Tensor | None, constant: tuple[Tensor, Tensor] | None, dims: int
    ) -> None:
        self.log_rate, self.mask_of_entries, self.constant = rates.log_rate, mask, constant
        super().__init__(rates if mask is None else rates.mask(mask), dims, validate_args=False)

    def expand(self, batch_shape: torch.Size, _instance: None = None) -> PoissonCounts:
        rates = LogRatePoisson(self.log_rate.expand(torch.Size(batch_shape) + self.event_shape))
        return PoissonCounts(rates, self.mask_of_entries, self.constant, self.reinterpreted_batch_ndims)

    def log_prob(self, value: Tensor) -> Tensor:
        mask, axes = self.mask_of_entries, tuple(range(-self.reinterpreted_batch_ndims, 0))
        if self.constant is not None and value is self.constant[0]:
            constant = self.constant[1]
        else:
            constant = log_factorials(value, mask).sum(axes)
        if mask is not None:
            entries = torch.where(mask, value * self.log_rate - self.log_rate.exp(), 0.0)
            return entries.sum(axes) - constant
        counted = torch.linalg.vecdot(value.flatten(axes[0]), self.log_rate.flatten(axes[0]))
        return counted - self.log_rate.exp().sum(axes) - constant


def log_factorials(counts: Tensor, mask: Tensor | None) -> Tensor:
    """Return log y! of every entry, zero where masked."""
    found = torch.lgamma(counts + 1)
    return found if mask is None else torch.where(mask, found, 0.0)


def total_log_factorials(counts: Tensor, mask: Tensor | None) -> Tensor:
    """Return sum log y! of each sequence, (sequence,), in a memory that does not grow with the counts."""
    axes = tuple(range(1, counts.dim()))
    steps = max(1, LARGEST_PART * counts.shape[1] // max(counts.numel(), 1))
    masks = [None] * len(counts.split(steps, 1)) if mask is None else mask.split(steps, 1)
    parts = [log_factorials(*part).sum(axes) for part in zip(counts.split(steps, 1), masks, strict=True)]
    return parts[0] if len(parts) == 1 else torch.stack(parts).sum(0)
