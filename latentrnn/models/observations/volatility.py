"""Returns whose size, not sign, the state predicts."""

from __future__ import annotations

from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from latentrnn.data import HeadSpec
from latentrnn.models.features.units import channel_moments
from latentrnn.models.observations.observation import Observation
from latentrnn.models.parameters.parameter_spec import ParameterSpec
from latentrnn.support.arguments import check_choice


class Volatility(Observation):
    """y ~ Normal(0, scale^2 exp(eta)): zero mean, eta the log-variance in units of the channel's scale.

    With tails="student", y ~ StudentT(nu) scaled to the same variance, nu = 2 + exp(a) learned per channel. The scale
    is the spec's where the head is standardised (nothing is subtracted: zero stays zero). Otherwise a fit takes it from
    the training data, unless the head has priors, and it is one before; `coefficients()` and sites add up to the
    log-variance in the data's own units then, to which the scale adds 2 log(scale).

    Args:
        tails: "gaussian" or "student".
        **shared: see `Observation`.

    Raises:
        ValueError: unknown tails.

    References:
        Taylor. Modelling financial time series. 1986.
        Harvey, Ruiz, Shephard. Multivariate stochastic variance models. 1994.
    """

    declared: ClassVar = {
        "df": ParameterSpec.positive("log_excess", least=2.0, dims=("channel",)),
    }

    in_units = True

    def __init__(self, tails: str = "gaussian", **shared: Any) -> None:
        super().__init__(**shared)
        self.tails = check_choice("Volatility", "tails", tails, ("gaussian", "student"))

    def build_family(self, head: HeadSpec) -> None:
        if self.tails == "student":
            self.log_excess = nn.Parameter(torch.full((head.channels,), 2.0))

    def reset_parameters(self) -> None:
        super().reset_parameters()
        if self.tails == "student":
            with torch.no_grad():
                self.log_excess.fill_(2.0)

    @property
    def degrees_of_freedom(self) -> Tensor:
        """nu, (channel,); tails="student" only."""
        return 2 + self.log_excess.exp()

    def family(self, eta: Tensor) -> dist.Distribution:
        deviation, zero = self.scale * (0.5 * eta).exp(), torch.zeros_like(eta)
        if self.tails == "gaussian":
            return dist.Normal(zero, deviation, validate_args=False)
        nu = self.degrees_of_freedom
        return dist.StudentT(nu, zero, deviation * ((nu - 2) / nu).sqrt(), validate_args=False)

    def _output_units(self) -> tuple[Tensor, Tensor]:
        """Return shift and factor of eta: other units of the data shift a logarithm, and stretch nothing."""
        _, given = self._given_units()
        return 2 * (self.scale / given).log(), torch.ones_like(self.scale)

    def starting_baseline(self, values: Tensor, mask: Tensor) -> Tensor:
        mean, variance = channel_moments(values, mask)
        square = variance + mean**2
        return torch.where(square > 0, square / self.scale**2, 1.0).log()
