"""Counts that vary more than Poisson counts."""

from __future__ import annotations

from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.distributions import constraints

from latentrnn.data import HeadSpec
from latentrnn.models.features.units import channel_means, channel_moments
from latentrnn.models.observations.entries import Entries
from latentrnn.models.observations.exposure import ExposedCounts
from latentrnn.models.observations.links import Link, as_link
from latentrnn.models.observations.observation import refuse_outside
from latentrnn.models.observations.poisson import LARGEST_RATE
from latentrnn.models.parameters.parameter_spec import ParameterSpec

SMALLEST_DISPERSION = 1e-4  # below, float32 cannot tell the family from a Poisson


class NegativeBinomial(ExposedCounts):
    """y ~ NegativeBinomial(mean mu, dispersion alpha): mu = exposure * link(eta), variance mu + alpha mu^2.

    A Poisson count whose rate is Gamma-distributed; alpha is learned per channel, and alpha -> 0 is the Poisson.

        log p(y) = log G(y + r) - log G(r) - log y! + r log(r / (r + mu)) + y log(mu / (r + mu)),  r = 1 / alpha

    Args:
        link: "exp", "softplus" or a `PositiveLink`.
        exposure: name of a positive covariate to which mu is proportional, or None; see `ExposedCounts`.
        **shared: see `Observation`.

    Raises:
        ValueError: an unknown link, or one that does not map onto the positive numbers.

    References:
        Lawless. Negative binomial and mixed Poisson regression. 1987.
    """

    declared: ClassVar = {
        "dispersion": ParameterSpec(
            "log_dispersion",
            value=lambda _, kept: SMALLEST_DISPERSION + kept.exp(),
            tensor=lambda _, value: (value - SMALLEST_DISPERSION).clamp_min(1e-3 * SMALLEST_DISPERSION).log(),
            support=constraints.positive,
            dims=("channel",),
        )
    }

    discrete = True
    counts_events = True

    def __init__(self, link: str | Link = "exp", *, exposure: str | None = None, **shared: Any) -> None:
        super().__init__(link, exposure, **shared)

    def build_family(self, head: HeadSpec) -> None:
        self.log_dispersion = nn.Parameter(torch.zeros(head.channels))

    def reset_parameters(self) -> None:
        super().reset_parameters()
        with torch.no_grad():
            self.log_dispersion.zero_()

    @property
    def dispersion(self) -> Tensor:
        """alpha, (channel,): variance = mean + alpha mean^2."""
        return SMALLEST_DISPERSION + self.log_dispersion.exp()

    def family(self, eta: Tensor) -> dist.Distribution:
        return MeanNegativeBinomial(as_link(self.link).log(eta), self.dispersion)

    def exposed(self, entries: MeanNegativeBinomial, log_exposure: Tensor) -> dist.Distribution:
        log_mean, dispersion = entries.parameters
        return MeanNegativeBinomial(log_mean + log_exposure, dispersion)

    def check(self, name: str, values: Tensor, mask: Tensor) -> None:
        bad = mask & ((values < 0) | (values != values.floor()))
        refuse_outside(name, "NegativeBinomial", "non-negative integers", bad, values)

    def starting_baseline(self, values: Tensor, mask: Tensor) -> Tensor:
        return as_link(self.link).inverse(channel_means(values, mask).clamp_min(1e-4))

    def initialise(self, values: Tensor, mask: Tensor) -> None:
        super().initialise(values, mask)
        mean, variance = channel_moments(values, mask)
        excess = (variance - mean) / mean.clamp_min(1e-4) ** 2
        with torch.no_grad():
            self.log_dispersion.copy_(excess.clamp(0.05, 10.0).log())


class MeanNegativeBinomial(Entries):
    """Negative binomial by log-mean and dispersion."""

    support = constraints.nonnegative_integer

    @property
    def mean(self) -> Tensor:
        """mu."""
        return self.parameters[0].exp()

    @property
    def variance(self) -> Tensor:
        """mu + alpha mu^2."""
        return self.mean + self.parameters[1] * self.mean**2

    def log_prob(self, value: Tensor) -> Tensor:
        log_mean, dispersion = self.parameters
        r, log_r = 1 / dispersion, -dispersion.log()
        log_sum = torch.logaddexp(log_r, log_mean)
        constant = torch.lgamma(value + r) - torch.lgamma(r) - torch.lgamma(value + 1)
        return constant + r * (log_r - log_sum) + value * (log_mean - log_sum)

    def sample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008
        with torch.no_grad():
            log_mean, dispersion = self.expanded_parameters(sample_shape)
            rate = dist.Gamma(1 / dispersion, 1.0, validate_args=False).sample() * dispersion * log_mean.exp()
            return torch.poisson(rate.clamp(max=LARGEST_RATE))
