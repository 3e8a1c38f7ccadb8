"""Renyi's variational bound."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch

from latentrnn.inference.objectives.objective import Evaluation, Objective, Step
from latentrnn.inference.objectives.weighted_draws import WeightedDraws
from latentrnn.support.arguments import check_number, settle


@dataclass(frozen=True)
class Renyi(Objective):
    """log((1/K) sum_k w_k^(1 - alpha)) / (1 - alpha) per sequence: between the IWAE bound (0) and the ELBO (towards 1).

    Args:
        alpha: order of the divergence, not 1. Below 0 it is no lower bound.
        num_particles, kl, coordinated_dropout: see `Objective`.

    Raises:
        ValueError: alpha is 1 (that is the ELBO), or no finite number.

    References:
        Li, Turner. Rényi divergence variational inference. 2016.
    """

    alpha: float = 0.5
    num_particles: int = field(default=8, kw_only=True)
    fewest_particles = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        settle(self, alpha=check_number("Renyi", "alpha", self.alpha))
        if self.alpha == 1:
            raise ValueError("Renyi: alpha=1 is the ELBO; use ELBO()")

    def step(self, at: Evaluation) -> Step:
        draws = WeightedDraws(at, detached=False)
        log_weights = (1 - self.alpha) * draws.log_weights()
        bound = (torch.logsumexp(log_weights, 0) - math.log(len(log_weights))) / (1 - self.alpha)
        terms = draws.terms._replace(by_sequence=bound.detach())
        return Step(draws.total(bound), draws.total(bound).detach(), terms)
