"""Every step predicts the outcome of its sequence."""

from __future__ import annotations

import torch
from torch import Tensor

from latentrnn.models.couplings.step_and_sequence import StepAndSequence, class_log_probs
from latentrnn.models.rollout import Rollout


class OutcomeCalibration(StepAndSequence):
    """-mean_t log p_t(outcome): every step's head is to predict the final outcome, a proper score.

    Sequences whose outcome was not observed do not count.

    Args:
        steps, sequence: a per-step and a per-sequence head of the same classes (Bernoulli or Categorical).
        weight, name: see `Coupling`.

    References:
        Lipton, Kale, Elkan, Wetzel. Learning to diagnose with LSTM recurrent neural networks (target
        replication). 2016.
    """

    def penalty(self, rollout: Rollout) -> Tensor:
        outcome, seen = (part[self.sequence][:, 0] for part in (rollout.data.observations, rollout.data.masks))
        average = self.average(class_log_probs(rollout, self.steps), rollout)
        chosen = average.gather(-1, outcome.long().unsqueeze(-1).expand(*average.shape[:-1], 1)).squeeze(-1)
        return torch.where(seen, -chosen, 0.0)
