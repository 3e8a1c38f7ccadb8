"""Positive observations with a Gamma distribution."""

from __future__ import annotations

from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from latentrnn.data import HeadSpec
from latentrnn.models.features.units import channel_units, units_of_all
from latentrnn.models.observations.entries import inside_positive
from latentrnn.models.observations.links import ExpLink, Link, PositiveLink, as_link, check_link
from latentrnn.models.observations.observation import Observation, refuse_outside
from latentrnn.models.parameters.parameter_spec import ParameterSpec


class GammaShaped(Observation):
    """A head whose positive values are Gamma, the shape alpha learned per channel and started at their moments.

    Their mean is mu = unit * link(eta). With the exponential link the unit is one, since the baseline can be any. With
    others a fit takes it from the training data, the mean of each channel's positive values, so that the link bends at
    the same place whatever the data's units; it stays one where parameters have priors, which are on eta as it is.
    """

    added_later = (*Observation.added_later, "unit")
    link: str | Link
    unit: Tensor

    declared: ClassVar = {
        "shape": ParameterSpec.positive("log_shape", dims=("channel",)),
    }

    def build_family(self, head: HeadSpec) -> None:
        super().build_family(head)
        self.log_shape = nn.Parameter(torch.zeros(head.channels))
        self.register_buffer("unit", torch.ones(head.channels))

    def reset_parameters(self) -> None:
        super().reset_parameters()
        with torch.no_grad():
            self.log_shape.zero_()

    @property
    def shape(self) -> Tensor:
        """alpha, (channel,): one over the squared coefficient of variation."""
        return self.log_shape.exp()

    def log_mean(self, eta: Tensor) -> Tensor:
        """Return log mu of eta, (..., channel)."""
        log = as_link(self.link).log(eta)
        return log if isinstance(as_link(self.link), ExpLink) else log + self.unit.log()

    def initialise(self, values: Tensor, mask: Tensor) -> None:
        if not isinstance(as_link(self.link), ExpLink) and not self.settled():
            mean, _ = units_of_all(values, mask & (values > 0))
            self.unit.copy_(torch.where(mean > 0, mean, 1.0))
        super().initialise(values, mask)
        mean, spread = channel_units(values, mask & (values > 0))
        with torch.no_grad():
            self.log_shape.copy_((torch.where(mean > 0, mean, spread) / spread).square().clamp(1e-2, 1e4).log())


class Gamma(GammaShaped):
    """y ~ Gamma(alpha, alpha / mu), mean mu = link(eta), variance mu^2 / alpha, the shape alpha learned per channel.

    Positive data are not standardised. With another link than "exp" mu = unit * link(eta), the unit taken from the
    training data; see `GammaShaped`.

    Args:
        link: "exp", "softplus" or a `PositiveLink`.
        **shared: see `Observation`.

    Raises:
        ValueError: an unknown link, or one that does not map onto the positive numbers.
    """

    def __init__(self, link: str | Link = "exp", **shared: Any) -> None:
        super().__init__(**shared)
        self.link = check_link("Gamma", link, PositiveLink)

    def family(self, eta: Tensor) -> dist.Distribution:
        rate = (self.log_shape - self.log_mean(eta)).exp()
        return GammaEntries(self.shape.expand_as(eta), rate, validate_args=False)

    def check(self, name: str, values: Tensor, mask: Tensor) -> None:
        refuse_outside(name, "Gamma", "positive numbers", mask & (values <= 0), values)

    def starting_baseline(self, values: Tensor, mask: Tensor) -> Tensor:
        mean, _ = channel_units(values, mask)
        return as_link(self.link).inverse(torch.where(mean > 0, mean / self.unit, 1.0))


class GammaEntries(dist.Gamma):
    """A Gamma distribution that takes the zeros that may stand under a mask."""

    def log_prob(self, value: Tensor) -> Tensor:
        return super().log_prob(inside_positive(value))
