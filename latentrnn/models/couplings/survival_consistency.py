"""A hazard's survival, and the head that predicts survival directly."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from latentrnn.models.couplings.step_and_sequence import FLOOR, StepAndSequence, class_log_probs, jeffreys
from latentrnn.models.observations import Bernoulli, Categorical, DiscreteHazard, Observation
from latentrnn.models.rollout import Rollout


class SurvivalConsistency(StepAndSequence):
    """Jeffreys divergence between prod_t (1 - hazard_t) and the probability of the direct survival head.

    Args:
        steps: per-step Bernoulli or DiscreteHazard head, 1 where the event happens; the product runs over all steps of
            the sequence, whether they were watched or not.
        sequence: per-sequence Bernoulli head, 1 where the sequence survives to its end.
        weight, name: see `Coupling`.
    """

    families = (Bernoulli, Categorical, DiscreteHazard)

    def check(self, observations: Mapping[str, Observation]) -> None:
        super().check(observations)
        if not all(isinstance(observations[name], Bernoulli | DiscreteHazard) for name in (self.steps, self.sequence)):
            raise ValueError("SurvivalConsistency: both heads must be Bernoulli (the steps' may be DiscreteHazard)")

    def penalty(self, rollout: Rollout) -> Tensor:
        log_stay = class_log_probs(rollout, self.steps)[..., 0]
        clock = rollout.observations[self.steps].head.clock
        inside = torch.arange(log_stay.shape[-1], device=log_stay.device) < (rollout.data.lengths // clock)[:, None]
        survival = torch.where(inside, log_stay, 0.0).sum(-1).exp().clamp(FLOOR, 1 - FLOOR)
        return jeffreys(torch.stack([1 - survival, survival], -1).log(), class_log_probs(rollout, self.sequence))
