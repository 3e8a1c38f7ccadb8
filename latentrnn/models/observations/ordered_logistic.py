"""Ordered grades."""

from __future__ import annotations

from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from latentrnn.data import HeadSpec
from latentrnn.models.observations.categorical import Codes
from latentrnn.models.observations.entries import unmasked_entries
from latentrnn.models.observations.observation import Observation, refuse_outside
from latentrnn.models.parameters.parameter_spec import ParameterSpec
from latentrnn.support.arguments import check_size


class OrderedLogistic(Observation):
    """p(y <= k) = sigmoid(c_k - eta), grades 0 to K - 1, cutpoints c_0 = 0 < c_1 < ... < c_{K-2} learned per channel.

    The first cutpoint is fixed at zero, since the readout's baseline moves all of them together. One unit of eta
    multiplies the odds of being above any cutpoint by e. The mean is the expected grade.

    Args:
        levels: K, the number of grades, at least 3 (for two, use `Bernoulli`).
        **shared: see `Observation`.

    Raises:
        ValueError: fewer than three levels.

    References:
        McCullagh. Regression models for ordinal data. 1980.
    """

    declared: ClassVar = {
        "gaps": ParameterSpec.positive("log_gaps", dims=("channel", "gap")),
    }

    discrete = True

    def __init__(self, levels: int, **shared: Any) -> None:
        super().__init__(**shared)
        self.levels = check_size("OrderedLogistic", "levels", levels)
        if levels < 3:
            raise ValueError(f"OrderedLogistic: levels must be at least 3 (for two, use Bernoulli); found {levels}")

    def build_family(self, head: HeadSpec) -> None:
        self.log_gaps = nn.Parameter(torch.zeros(head.channels, self.levels - 2))

    def reset_parameters(self) -> None:
        super().reset_parameters()
        with torch.no_grad():
            self.log_gaps.zero_()

    @property
    def cutpoints(self) -> Tensor:
        """c, (channel, levels - 1)."""
        return F.pad(self.log_gaps.exp().cumsum(-1), (1, 0))

    def family(self, eta: Tensor) -> dist.Distribution:
        below = self.cutpoints - eta.unsqueeze(-1)  # (..., channel, levels - 1)
        # sigmoid(a) - sigmoid(b) = sigmoid(a) sigmoid(-b) (1 - exp(b - a)), and a - b is the gap whatever eta is
        upper, lower = F.pad(F.logsigmoid(below), (0, 1)), F.pad(F.logsigmoid(-below), (1, 0))
        inside = F.pad(torch.log(-torch.expm1(-self.log_gaps.exp())), (1, 1))
        return Grades(logits=upper + lower + inside, validate_args=False)

    def probabilities(self, distribution: dist.Distribution) -> Tensor:
        """Return the probability of every grade, (..., channel, level), of a distribution of this head."""
        return unmasked_entries(distribution).probs

    def check(self, name: str, values: Tensor, mask: Tensor) -> None:
        bad = mask & ((values < 0) | (values >= self.levels) | (values != values.floor()))
        refuse_outside(name, "OrderedLogistic", f"integer grades from 0 to {self.levels - 1}", bad, values)

    def _above(self, values: Tensor, mask: Tensor) -> Tensor:
        """Return log-odds of being above each cutpoint in the training data, (channel, levels - 1), decreasing."""
        seen = F.one_hot(values.long().clamp(0, self.levels - 1), self.levels) * mask.unsqueeze(-1)
        frequency = (seen.flatten(0, -3).sum(0) + 0.5).to(values.dtype)
        below = (frequency / frequency.sum(-1, keepdim=True)).cumsum(-1)[..., :-1]
        return -torch.logit(below)

    def starting_baseline(self, values: Tensor, mask: Tensor) -> Tensor:
        return self._above(values, mask)[..., 0]

    def initialise(self, values: Tensor, mask: Tensor) -> None:
        super().initialise(values, mask)
        with torch.no_grad():
            self.log_gaps.copy_((-self._above(values, mask).diff(dim=-1)).log())


class Grades(Codes):
    """Codes whose order means something, and so have a mean."""

    @property
    def mean(self) -> Tensor:
        """The expected grade."""
        return (self.probs * torch.arange(self.probs.shape[-1], dtype=self.probs.dtype, device=self.probs.device)).sum(
            -1
        )

    @property
    def variance(self) -> Tensor:
        """Variance of the grade."""
        grades = torch.arange(self.probs.shape[-1], dtype=self.probs.dtype, device=self.probs.device)
        return (self.probs * (grades - self.mean.unsqueeze(-1)) ** 2).sum(-1)
