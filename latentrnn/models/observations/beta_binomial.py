"""Successes among a known number of trials that vary more than binomial ones."""

from __future__ import annotations

from typing import ClassVar

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from latentrnn.data import HeadSpec
from latentrnn.models.features.units import channel_moments
from latentrnn.models.observations.binomial import Trials
from latentrnn.models.observations.entries import draw_log_gamma
from latentrnn.models.observations.links import as_link
from latentrnn.models.parameters.parameter_spec import ParameterSpec


class BetaBinomial(Trials):
    """y ~ Binomial(n, q), q ~ Beta(p phi, (1 - p) phi), p = link(eta), phi learned per channel.

    The variance is n p (1 - p) (1 + (n - 1) / (phi + 1)); phi -> infinity is the binomial. Arguments: see `Trials`.

    References:
        Williams. The analysis of binary responses from toxicological experiments involving reproduction and
        teratogenicity. 1975.
    """

    declared: ClassVar = {
        "concentration": ParameterSpec.positive("log_concentration", dims=("channel",)),
    }

    def build_family(self, head: HeadSpec) -> None:
        super().build_family(head)
        self.log_concentration = nn.Parameter(torch.full((head.channels,), 2.0))

    def reset_parameters(self) -> None:
        super().reset_parameters()
        with torch.no_grad():
            self.log_concentration.fill_(2.0)

    @property
    def concentration(self) -> Tensor:
        """phi, (channel,): the intra-class correlation is 1 / (phi + 1)."""
        return self.log_concentration.exp()

    def family(self, eta: Tensor) -> dist.Distribution:
        p = as_link(self.link)(eta).clamp(1e-6, 1 - 1e-6)
        phi = self.concentration
        return BetaBinomialCounts(p * phi, (1 - p) * phi, self.totals.expand_as(eta), validate_args=False)

    def initialise(self, values: Tensor, mask: Tensor) -> None:
        super().initialise(values, mask)
        mean, variance = channel_moments(values, mask)
        p = (mean / self.totals).clamp(1e-3, 1 - 1e-3)
        # with one trial there is nothing to tell phi by
        correlation = (variance / (self.totals * p * (1 - p)) - 1) / (self.totals - 1).clamp_min(1.0)
        with torch.no_grad():
            self.log_concentration.copy_((1 / correlation.clamp(1e-2, 0.9) - 1).log())


class BetaBinomialCounts(dist.BetaBinomial):
    """A beta-binomial whose draws are right for concentrations of any size."""

    def sample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008
        with torch.no_grad():
            shape = torch.Size(sample_shape) + self.batch_shape
            # the odds of a beta variable are those of two gamma ones, of which small ones are no number
            log_odds = draw_log_gamma(self.concentration1.expand(shape)) - draw_log_gamma(
                self.concentration0.expand(shape)
            )
            return torch.binomial(self.total_count.expand(shape).contiguous(), log_odds.sigmoid())
