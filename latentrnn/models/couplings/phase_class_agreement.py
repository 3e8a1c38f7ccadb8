"""The sequence's class, and the mixture of its steps' classes."""

from __future__ import annotations

from torch import Tensor

from latentrnn.models.couplings.step_and_sequence import FLOOR, StepAndSequence, class_log_probs
from latentrnn.models.rollout import Rollout


class PhaseClassAgreement(StepAndSequence):
    """KL(average of the steps' class probabilities || the sequence's class).

    Args:
        steps, sequence: a per-step and a per-sequence head of the same classes (Bernoulli or Categorical).
        weight, name: see `Coupling`.
    """

    def penalty(self, rollout: Rollout) -> Tensor:
        pooled = self.average(class_log_probs(rollout, self.steps).exp(), rollout).clamp_min(FLOOR).log()
        return (pooled.exp() * (pooled - class_log_probs(rollout, self.sequence))).sum(-1)
