"""Binary observations."""

from __future__ import annotations

from typing import Any

import pyro.distributions as dist
from torch import Tensor

from latentrnn.models.features.units import channel_means
from latentrnn.models.observations.links import Link, UnitLink, as_link, check_link
from latentrnn.models.observations.observation import Observation, refuse_outside


class Bernoulli(Observation):
    """y ~ Bernoulli(p), p = link(eta), y in {0, 1}.

    Args:
        link: "sigmoid", "probit", "cloglog" or a `UnitLink`.
        **shared: see `Observation`.

    Raises:
        ValueError: an unknown link, or one that does not map onto (0, 1).
    """

    discrete = True
    counts_events = True

    def __init__(self, link: str | Link = "sigmoid", **shared: Any) -> None:
        super().__init__(**shared)
        self.link = check_link("Bernoulli", link, UnitLink)

    def family(self, eta: Tensor) -> dist.Distribution:
        return dist.Bernoulli(logits=as_link(self.link).logit(eta), validate_args=False)

    def check(self, name: str, values: Tensor, mask: Tensor) -> None:
        refuse_outside(name, "Bernoulli", "zeros and ones", mask & (values != 0) & (values != 1), values)

    def starting_baseline(self, values: Tensor, mask: Tensor) -> Tensor:
        return as_link(self.link).inverse(channel_means(values, mask).clamp(1e-3, 1 - 1e-3))
