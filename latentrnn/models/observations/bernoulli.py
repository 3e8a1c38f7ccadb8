"""Binary observations."""

from __future__ import annotations

import pyro.distributions as dist
import torch
from torch import Tensor

from latentrnn.models.observations.observation import Observation, channel_means, refuse_outside


class Bernoulli(Observation):
    """y ~ Bernoulli(sigmoid(eta)), y in {0, 1}. Arguments: see `Observation`."""

    discrete = True

    def family(self, eta: Tensor) -> dist.Distribution:
        return dist.Bernoulli(logits=eta, validate_args=False)

    def check(self, name: str, values: Tensor, mask: Tensor) -> None:
        refuse_outside(name, "Bernoulli", "zeros and ones", mask & (values != 0) & (values != 1), values)

    def starting_baseline(self, values: Tensor, mask: Tensor) -> Tensor:
        return torch.logit(channel_means(values, mask), eps=1e-3)
