"""Counts with a Poisson distribution."""

from __future__ import annotations

from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints

from latentrnn.models.observations.links import Link, PositiveLink, as_link, check_link
from latentrnn.models.observations.observation import Observation, channel_means, refuse_outside

LARGEST_RATE = 1e6  # a free-running model that explodes shows up as huge counts, not as NaN


class Poisson(Observation):
    """y ~ Poisson(rate), rate = link(eta): the expected count per bin.

    Args:
        link: "exp", "softplus" or a `PositiveLink`.
        **shared: see `Observation`.

    Raises:
        ValueError: an unknown link, or one that does not map onto the positive numbers.
    """

    discrete = True

    def __init__(self, link: str | Link = "exp", **shared: Any) -> None:
        super().__init__(**shared)
        self.link = check_link("Poisson", link, PositiveLink)

    def family(self, eta: Tensor) -> dist.Distribution:
        return LogRatePoisson(as_link(self.link).log(eta))

    def check(self, name: str, values: Tensor, mask: Tensor) -> None:
        bad = mask & ((values < 0) | (values != values.floor()))
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

    def sample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008
        with torch.no_grad():
            rate = self.log_rate.exp().clamp(max=LARGEST_RATE).expand(torch.Size(sample_shape) + self.batch_shape)
            return torch.poisson(rate)
