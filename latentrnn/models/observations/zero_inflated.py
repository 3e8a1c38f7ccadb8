"""Observations with more zeros than their family allows."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.distributions import constraints
from torch.nn import functional as F

from latentrnn.data import HeadSpec
from latentrnn.models.features.units import channel_means, channel_moments, channel_units
from latentrnn.models.observations.entries import Entries, inside_positive
from latentrnn.models.observations.exposure import ExposedCounts
from latentrnn.models.observations.gamma import GammaEntries, GammaShaped
from latentrnn.models.observations.links import Link, PositiveLink, as_link, check_link
from latentrnn.models.observations.observation import Observation, refuse_outside
from latentrnn.models.observations.poisson import LARGEST_RATE
from latentrnn.models.parameters.parameter_spec import ParameterSpec
from latentrnn.support.arguments import check_choice


class ZeroInflated(Observation):
    """With probability pi an entry is an extra zero; otherwise it comes from the family with mean mu = link(eta).

    Args:
        zeros: "channel", pi learned per channel, or "state": a second linear predictor, logit pi = eta_2, so that
            the state decides when extra zeros come.
        link: from eta to the mean of what is no extra zero: "exp", "softplus" or a `PositiveLink`.
        **shared: see `Observation`.

    Raises:
        ValueError: unknown `zeros`, an unknown link, or one that does not map onto the positive numbers.
    """

    declared: ClassVar = {
        "zero_probability": ParameterSpec.unit_interval("zero_logit", dims=("channel",)),
    }

    def __init__(self, zeros: str = "channel", link: str | Link = "exp", **shared: Any) -> None:
        super().__init__(**shared)
        owner = type(self).__name__
        self.zeros = check_choice(owner, "zeros", zeros, ("channel", "state"))
        self.link = check_link(owner, link, PositiveLink)
        self.outputs_per_channel = 2 if zeros == "state" else 1

    def build_family(self, head: HeadSpec) -> None:
        if self.zeros == "channel":
            self.zero_logit = nn.Parameter(torch.zeros(head.channels))

    def reset_parameters(self) -> None:
        super().reset_parameters()
        if self.zeros == "channel":
            with torch.no_grad():
                self.zero_logit.zero_()

    @property
    def zero_probability(self) -> Tensor:
        """pi, (channel,); zeros="channel" only."""
        return torch.sigmoid(self.zero_logit)

    def split(self, eta: Tensor) -> tuple[Tensor, Tensor]:
        """Return log mu and logit pi, (..., channel) each."""
        if self.zeros == "channel":
            return self.log_mean(eta), self.zero_logit
        return self.log_mean(eta[..., 0]), eta[..., 1]

    def log_mean(self, eta: Tensor) -> Tensor:
        """Return log mu of eta, (..., channel)."""
        return as_link(self.link).log(eta)

    @abstractmethod
    def moments(self, values: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return starting values of link(eta) and pi, (channel,) each."""

    def starting_baseline(self, values: Tensor, mask: Tensor) -> Tensor:
        mean, zero = self.moments(values, mask)
        eta = as_link(self.link).inverse(mean)
        return eta if self.zeros == "channel" else torch.stack([eta, torch.logit(zero)], -1).flatten()

    def initialise(self, values: Tensor, mask: Tensor) -> None:
        super().initialise(values, mask)
        if self.zeros == "channel":
            with torch.no_grad():
                self.zero_logit.copy_(torch.logit(self.moments(values, mask)[1]))


class ZeroInflatedPoisson(ZeroInflated, ExposedCounts):
    """p(0) = pi + (1 - pi) exp(-mu);  p(y) = (1 - pi) Poisson(y; mu), y = 1, 2, ...;  mu = exposure * link(eta).

    Args:
        zeros: see `ZeroInflated`.
        link: see `ZeroInflated`.
        exposure: name of a positive covariate to which mu is proportional, or None; see `ExposedCounts`.
        **shared: see `Observation`.

    References:
        Lambert. Zero-inflated Poisson regression, with an application to defects in manufacturing. 1992.
    """

    discrete = True
    counts_events = True

    def __init__(
        self, zeros: str = "channel", link: str | Link = "exp", *, exposure: str | None = None, **shared: Any
    ) -> None:
        super().__init__(zeros, link, exposure=exposure, **shared)

    def family(self, eta: Tensor) -> dist.Distribution:
        return ZeroInflatedCounts(*self.split(eta))

    def exposed(self, entries: ZeroInflatedCounts, log_exposure: Tensor) -> dist.Distribution:
        log_mean, zero_logit = entries.parameters
        return ZeroInflatedCounts(log_mean + log_exposure, zero_logit)

    def check(self, name: str, values: Tensor, mask: Tensor) -> None:
        bad = mask & ((values < 0) | (values != values.floor()))
        refuse_outside(name, "ZeroInflatedPoisson", "non-negative integers", bad, values)

    def moments(self, values: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        mean, variance = channel_moments(values, mask)
        mean = mean.clamp_min(1e-4)
        # mean (1 - pi) mu; variance / mean = 1 + pi mu
        mu = mean + (variance / mean - 1).clamp_min(0.0)
        zero = (1 - mean / mu).clamp(0.02, 0.98)
        return mean / (1 - zero), zero


class ZeroInflatedGamma(GammaShaped, ZeroInflated):
    """p(0) = pi;  density (1 - pi) Gamma(y; alpha, alpha / mu) for y > 0, the shape alpha learned per channel.

    The density is with respect to a point mass at zero plus length: events deconvolved from fluorescence, rainfall.
    With another link than "exp" mu = unit * link(eta); see `GammaShaped`. Arguments: see `ZeroInflated`.

    References:
        Wei, Zhou, Grosmark, Ajabi, Sparks, Zhou, Brandon, Losonczy, Paninski. A zero-inflated gamma model for
        post-deconvolved calcium imaging traces. 2020.
    """

    def family(self, eta: Tensor) -> dist.Distribution:
        return ZeroOrGamma(*self.split(eta), self.log_shape)

    def check(self, name: str, values: Tensor, mask: Tensor) -> None:
        refuse_outside(name, "ZeroInflatedGamma", "non-negative numbers", mask & (values < 0), values)

    def moments(self, values: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        positive = mask & (values > 0)
        zero = 1 - channel_means(positive.to(values.dtype), mask)
        mean, _ = channel_units(values, positive)
        return torch.where(mean > 0, mean / self.unit, 1.0), zero.clamp(1e-3, 1 - 1e-3)


class ZeroInflatedCounts(Entries):
    """Zero-inflated Poisson by log mu and logit pi."""

    support = constraints.nonnegative_integer

    @property
    def mean(self) -> Tensor:
        """(1 - pi) mu."""
        log_mean, zero_logit = self.parameters
        return (log_mean + F.logsigmoid(-zero_logit)).exp()

    @property
    def variance(self) -> Tensor:
        """mean (1 + pi mu)."""
        log_mean, zero_logit = self.parameters
        return self.mean * (1 + torch.sigmoid(zero_logit) * log_mean.exp())

    def log_prob(self, value: Tensor) -> Tensor:
        log_mean, zero_logit = self.parameters
        log_mean, zero_logit, value = torch.broadcast_tensors(log_mean, zero_logit, value)
        poisson = F.logsigmoid(-zero_logit) + value * log_mean - log_mean.exp() - torch.lgamma(value + 1)
        return torch.where(value == 0, torch.logaddexp(F.logsigmoid(zero_logit), poisson), poisson)

    def cdf(self, value: Tensor) -> Tensor:
        log_mean, zero_logit = self.parameters
        counts = torch.special.gammaincc(value.floor().clamp_min(0) + 1, log_mean.exp())
        return torch.where(value < 0, 0.0, torch.sigmoid(zero_logit) + torch.sigmoid(-zero_logit) * counts)

    def sample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008
        with torch.no_grad():
            log_mean, zero_logit = self.expanded_parameters(sample_shape)
            present = torch.bernoulli(torch.sigmoid(-zero_logit))
            return present * torch.poisson(log_mean.exp().clamp(max=LARGEST_RATE))


class ZeroOrGamma(Entries):
    """A point mass at zero and a Gamma, by log mu, logit pi and log alpha."""

    support = constraints.nonnegative

    @property
    def mean(self) -> Tensor:
        """(1 - pi) mu."""
        log_mean, zero_logit, _ = self.parameters
        return (log_mean + F.logsigmoid(-zero_logit)).exp()

    @property
    def variance(self) -> Tensor:
        """(1 - pi) mu^2 (1 + 1 / alpha) less the squared mean."""
        log_mean, zero_logit, log_shape = self.parameters
        return torch.sigmoid(-zero_logit) * (2 * log_mean).exp() * (1 + (-log_shape).exp()) - self.mean**2

    def _gamma(self, log_mean: Tensor, log_shape: Tensor) -> GammaEntries:
        return GammaEntries(log_shape.exp(), (log_shape - log_mean).exp(), validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        log_mean, zero_logit, log_shape = self.parameters
        # where the value is zero the Gamma is evaluated at one, so that the branch not taken has a gradient to discard
        positive = torch.where(value > 0, value, 1.0)
        gamma = F.logsigmoid(-zero_logit) + self._gamma(log_mean, log_shape).log_prob(positive)
        return torch.where(value > 0, gamma, F.logsigmoid(zero_logit))

    def cdf(self, value: Tensor) -> Tensor:
        log_mean, zero_logit, log_shape = self.parameters
        gamma = self._gamma(log_mean, log_shape).cdf(inside_positive(value))
        gamma = torch.where(value > 0, gamma, 0.0)
        return torch.where(value < 0, 0.0, torch.sigmoid(zero_logit) + torch.sigmoid(-zero_logit) * gamma)

    def sample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008
        with torch.no_grad():
            log_mean, zero_logit, log_shape = self.expanded_parameters(sample_shape)
            present = torch.bernoulli(torch.sigmoid(-zero_logit))
            return present * inside_positive(self._gamma(log_mean, log_shape).sample())
