"""Positive observations whose logarithm is normal."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.distributions import constraints

from latentrnn.data import HeadSpec
from latentrnn.models.features.units import channel_moments
from latentrnn.models.observations.entries import Entries, inside_positive
from latentrnn.models.observations.observation import Observation, refuse_outside
from latentrnn.models.parameters.parameter_spec import ParameterSpec


class LogNormal(Observation):
    """log y ~ Normal(eta, sigma^2): the median is exp(eta), the mean exp(eta + sigma^2 / 2), sigma learned per channel.

    Always in the data's own units: positive data are not standardised. Arguments: see `Observation`.
    """

    declared: ClassVar = {
        "scale": ParameterSpec.positive("log_noise_scale", dims=("channel",)),
    }

    def __init__(self, **shared: Any) -> None:
        super().__init__(**shared)

    def build_family(self, head: HeadSpec) -> None:
        self.log_noise_scale = nn.Parameter(torch.zeros(head.channels))

    def reset_parameters(self) -> None:
        super().reset_parameters()
        with torch.no_grad():
            self.log_noise_scale.zero_()

    @property
    def noise_scale(self) -> Tensor:
        """sigma, the standard deviation of log y, (channel,)."""
        return self.log_noise_scale.exp()

    def family(self, eta: Tensor) -> dist.Distribution:
        return LogNormalEntries(eta, self.noise_scale)

    def check(self, name: str, values: Tensor, mask: Tensor) -> None:
        refuse_outside(name, "LogNormal", "positive numbers", mask & (values <= 0), values)

    def starting_baseline(self, values: Tensor, mask: Tensor) -> Tensor:
        return channel_moments(inside_positive(values).log(), mask)[0]

    def initialise(self, values: Tensor, mask: Tensor) -> None:
        super().initialise(values, mask)
        variance = channel_moments(inside_positive(values).log(), mask)[1]
        with torch.no_grad():
            self.log_noise_scale.copy_(0.5 * torch.where(variance > 0, variance, 1.0).log())


class LogNormalEntries(Entries):
    """exp of Normal(loc, scale), which takes the zeros that may stand under a mask."""

    support = constraints.positive
    has_rsample = True

    @property
    def mean(self) -> Tensor:
        """exp(loc + scale^2 / 2)."""
        loc, scale = self.parameters
        return (loc + 0.5 * scale**2).exp()

    @property
    def variance(self) -> Tensor:
        """(exp(scale^2) - 1) times the squared mean."""
        return torch.expm1(self.parameters[1] ** 2) * self.mean**2

    def log_prob(self, value: Tensor) -> Tensor:
        loc, scale = self.parameters
        log = inside_positive(value).log()
        return -0.5 * ((log - loc) / scale) ** 2 - scale.log() - log - 0.5 * math.log(2 * math.pi)

    def cdf(self, value: Tensor) -> Tensor:
        loc, scale = self.parameters
        return torch.special.ndtr((inside_positive(value).log() - loc) / scale)

    def rsample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008
        loc, scale = self.expanded_parameters(sample_shape)
        return (loc + scale * torch.randn_like(loc)).exp()
