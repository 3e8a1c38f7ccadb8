"""Counts that share a known total at every step and vary more than multinomial ones."""

from __future__ import annotations

from typing import ClassVar

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from latentrnn.data import HeadSpec
from latentrnn.models.observations.entries import draw_log_gamma
from latentrnn.models.observations.head_inputs import HeadInputs
from latentrnn.models.observations.multinomial import SharedTotal, SharedTotalCounts
from latentrnn.models.parameters.parameter_spec import ParameterSpec


class DirichletMultinomial(SharedTotal):
    """y_t ~ Multinomial(n_t, q_t), q_t ~ Dirichlet(phi softmax(eta_t)), the concentration phi learned for the head.

    phi -> infinity is the multinomial. Totals and missing categories: see `SharedTotal`. Arguments: see `Observation`.

    References:
        Mosimann. On the compound multinomial distribution, the multivariate beta-distribution, and correlations
        among proportions. 1962.
    """

    declared: ClassVar = {
        "concentration": ParameterSpec.positive("log_concentration"),
    }

    def build_family(self, head: HeadSpec) -> None:
        super().build_family(head)
        self.log_concentration = nn.Parameter(torch.full((1,), 3.0))

    def reset_parameters(self) -> None:
        super().reset_parameters()
        with torch.no_grad():
            self.log_concentration.fill_(3.0)

    @property
    def concentration(self) -> Tensor:
        """phi, (1,): two units of one step fall into the same category with correlation 1 / (phi + 1)."""
        return self.log_concentration.exp()

    def distribution(self, eta: Tensor, inputs: HeadInputs) -> dist.Distribution:
        alpha = (self.log_concentration + eta.log_softmax(-1)).clamp_min(-25.0).exp()
        return DirichletMultinomialCounts(alpha, inputs.totals, inputs.mask, inputs.counted)


class DirichletMultinomialCounts(SharedTotalCounts):
    """Dirichlet-multinomial counts at every step, by concentrations a.

        log p(y | n) = log n! - sum_c log y_c! + log G(A) - log G(A + n) + sum_c [log G(y_c + a_c) - log G(a_c)],

    A = sum_c a_c, one of the c being all hidden categories together, whose concentrations add up.
    """

    def shares(self) -> Tensor:
        return self.by_category / self._total().unsqueeze(-1)

    def draw_log_shares(self, sample_shape: torch.Size) -> Tensor:
        alpha = self.by_category.expand(sample_shape + self.by_category.shape)
        return draw_log_gamma(alpha)

    def step_log_prob(self, value: Tensor) -> Tensor:
        if self.mask is None:
            terms = _rising(self.by_category, value).sum(-1)
            return terms - _rising(self.by_category.sum(-1), value.sum(-1))
        value, hidden = torch.where(self.mask, value, 0.0), self.hidden(self.mask)
        rest = self.rest(value, hidden)
        terms = torch.where(self.mask, _rising(self.by_category, value), 0.0).sum(-1)
        terms = terms + _rising(concentration(self.by_category, hidden), rest)
        return terms - _rising(self._total(), value.sum(-1) + rest)

    def _total(self) -> Tensor:
        return self.by_category.sum(-1) if self.counted is None else concentration(self.by_category, self.counted)


def _rising(a: Tensor, n: Tensor) -> Tensor:
    """Return log [a (a + 1) ... (a + n - 1) / n!]."""
    return torch.lgamma(n + a) - torch.lgamma(a) - torch.lgamma(n + 1)


def concentration(alpha: Tensor, chosen: Tensor) -> Tensor:
    """Return the sum over the chosen categories, (...); where there are none one, whose terms cancel."""
    return torch.where(chosen, alpha, 0.0).sum(-1) + (~chosen.any(-1)).to(alpha.dtype)
