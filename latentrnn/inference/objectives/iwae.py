"""The importance-weighted bound."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch

from latentrnn.inference.objectives.objective import Evaluation, Objective, Step
from latentrnn.inference.objectives.weighted_draws import WeightedDraws
from latentrnn.support.arguments import check_flag, settle


@dataclass(frozen=True)
class IWAE(Objective):
    """log (1/K) sum_k w_k per sequence, K = `num_particles`: tighter than the ELBO, the more so the larger K.

    Args:
        doubly_reparameterised: an estimator of the guide's gradient whose signal does not fade as K grows; else the
            plain one.
        num_particles, kl, coordinated_dropout: see `Objective`.

    References:
        Burda, Grosse, Salakhutdinov. Importance weighted autoencoders. 2016.
        Tucker, Lawson, Gu, Maddison. Doubly reparameterized gradient estimators for Monte Carlo objectives. 2019.
    """

    doubly_reparameterised: bool = True
    num_particles: int = field(default=8, kw_only=True)
    fewest_particles = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        settle(self, doubly_reparameterised=check_flag("IWAE", "doubly_reparameterised", self.doubly_reparameterised))

    def step(self, at: Evaluation) -> Step:
        draws = WeightedDraws(at, detached=self.doubly_reparameterised)
        log_weights = draws.log_weights()
        bound = torch.logsumexp(log_weights, 0) - math.log(len(log_weights))
        terms = draws.terms._replace(by_sequence=bound.detach())
        if not self.doubly_reparameterised:
            return Step(draws.total(bound), draws.total(bound).detach(), terms)
        share = log_weights.detach().softmax(0)
        draws.scale_gradients(share)
        return Step(draws.total((share * log_weights).sum(0)), draws.total(bound).detach(), terms)
