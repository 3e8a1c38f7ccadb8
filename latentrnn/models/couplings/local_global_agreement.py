"""The sequence's class, and the classes of its steps taken together."""

from __future__ import annotations

from torch import Tensor

from latentrnn.models.couplings.step_and_sequence import StepAndSequence, class_log_probs, jeffreys
from latentrnn.models.rollout import Rollout


class LocalGlobalAgreement(StepAndSequence):
    """Jeffreys divergence between the sequence's class and softmax of the steps' average log-probabilities.

    Each step contributes to the decision in log-odds, and the contributions add up to it.

    Args:
        steps, sequence: a per-step and a per-sequence head of the same classes (Bernoulli or Categorical).
        weight, name: see `Coupling`.
    """

    def penalty(self, rollout: Rollout) -> Tensor:
        pooled = self.average(class_log_probs(rollout, self.steps), rollout).log_softmax(-1)
        return jeffreys(pooled, class_log_probs(rollout, self.sequence))
