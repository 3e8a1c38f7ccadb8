"""Counts that share a known total at every step and vary more than multinomial ones."""

from __future__ import annotations

from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor, nn
from torch.distributions import constraints

from latentrnn.data import HeadSpec
from latentrnn.models.observations.multinomial import SharedTotal, draw_multinomial, rest_of_total
from latentrnn.models.observations.observation import HeadInputs


class DirichletMultinomial(SharedTotal):
    """y_t ~ Multinomial(n_t, q_t), q_t ~ Dirichlet(phi softmax(eta_t)), the concentration phi learned for the head.

    Totals come from `SequenceData.from_arrays(totals=...)`; without them n_t is the sum of what was observed at t.
    Missing categories are integrated out: given how many fell into the observed ones, these are Dirichlet-multinomial
    with their own concentrations. phi -> infinity is the multinomial. Arguments: see `Observation`.

    References:
        Mosimann. On the compound multinomial distribution, the multivariate beta-distribution, and correlations
        among proportions. 1962.
    """

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
        return DirichletMultinomialCounts(alpha, inputs.totals, inputs.mask)


class DirichletMultinomialCounts(TorchDistribution):
    """Dirichlet-multinomial counts at every step, each step with its own total.

        log p(y | n) = log n! - sum_c log y_c! + log G(A) - log G(A + n) + sum_c [log G(y_c + a_c) - log G(a_c)],

    A = sum_c a_c, the sums over observed categories.

    Args:
        alpha: concentrations a, (..., time, channel).
        totals: n_t, (sequence, time); used for sampling. The density conditions on the sum of the value itself over
            observed channels.
        mask: True = observed, (sequence, time, channel), or None.
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}
    support = constraints.independent(constraints.nonnegative_integer, 2)

    def __init__(self, alpha: Tensor, totals: Tensor, mask: Tensor | None) -> None:
        self.alpha, self.totals, self.mask = alpha, totals, mask
        super().__init__(alpha.shape[:-2], alpha.shape[-2:], validate_args=False)

    @property
    def mean(self) -> Tensor:
        """n_t a_t / A_t, (..., time, channel)."""
        return self.totals.unsqueeze(-1) * self.alpha / self.alpha.sum(-1, keepdim=True)

    def expand(self, batch_shape: torch.Size, _instance: None = None) -> DirichletMultinomialCounts:
        alpha = self.alpha.expand(torch.Size(batch_shape) + self.event_shape)
        return DirichletMultinomialCounts(alpha, self.totals, self.mask)

    def step_log_prob(self, value: Tensor) -> Tensor:
        """Return log-probabilities per step, nats, (..., time), zero where nothing is observed."""
        alpha = self.alpha
        if self.mask is not None:
            value = torch.where(self.mask, value, 0.0)
        terms = torch.lgamma(value + alpha) - torch.lgamma(alpha) - torch.lgamma(value + 1)
        if self.mask is not None:
            terms = torch.where(self.mask, terms, 0.0)
            # an entirely masked step keeps a total of one, whose terms cancel
            nothing = ~self.mask.any(-1, keepdim=True)
            alpha = torch.where(self.mask, alpha, 0.0) + nothing.to(alpha.dtype)
        total, count = alpha.sum(-1), value.sum(-1)
        return torch.lgamma(count + 1) + torch.lgamma(total) - torch.lgamma(total + count) + terms.sum(-1)

    def log_prob(self, value: Tensor) -> Tensor:
        return self.step_log_prob(value).sum(-1)

    def sample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008
        with torch.no_grad():
            alpha = self.alpha.expand(torch.Size(sample_shape) + self.alpha.shape)
            weight = dist.Gamma(alpha, 1.0, validate_args=False).sample()
            return draw_multinomial(self.totals, weight / weight.sum(-1, keepdim=True))

    def completed(self, value: Tensor, mask: Tensor) -> Tensor:
        """Return a draw given the observed counts; shares of the other categories are Dirichlet whatever these are."""
        with torch.no_grad():
            weight = dist.Gamma(self.alpha, 1.0, validate_args=False).sample()
            return rest_of_total(self.totals, weight, value, mask)
