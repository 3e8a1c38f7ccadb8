"""The loss of a batch: minus the bound per scored step, with what is added to it in training alone."""

from __future__ import annotations

import torch
from torch import Tensor

from latentrnn.data import SequenceData, StoredSequences
from latentrnn.data.views.windows import of_whole
from latentrnn.inference.guides.guide import Guide
from latentrnn.inference.objectives.coordinated_dropout import coordinated_dropout
from latentrnn.inference.objectives.objective import Evaluation, Objective
from latentrnn.inference.objectives.terms import Terms
from latentrnn.models.rollout import Rollout
from latentrnn.models.state_space import LatentRNN


class TrainingLoss:
    """The loss of a batch as a function of the weights.

    Args:
        model, guide: that are fitted.
        objective: the bound.
        scored_steps: of all training data.
    """

    def __init__(self, model: LatentRNN, guide: Guide, objective: Objective, scored_steps: int) -> None:
        self.model, self.guide, self.objective = model, guide, objective
        self.likelihood_weights, self.scored_steps = objective.likelihood_weights, scored_steps

    def __call__(self, batch: SequenceData, kl_weight: float) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss of a batch, and its terms in nats for the whole plate."""
        objective = self.objective
        shown, scored, reweighted = self._split(batch)
        program = _Recorded(self.model)
        at = Evaluation(program, self.guide, scored, objective.num_particles, shown, kl_weight, reweighted)
        surrogate, bound, terms = objective.step(at)
        # couplings are no part of the program, so that nothing but this loss ever sees them
        penalties = {c: c.penalty(program.rollouts[-1]).mean() * batch.total for c in self.model.couplings}
        coupled = sum((c.weight * value for c, value in penalties.items()), torch.zeros(()))
        # what a weight adds to the bound is in the loss alone, so that the report stays true
        weights = self.likelihood_weights.items()
        added = sum(((w - 1) * terms.log_likelihood[name] for name, w in weights), torch.zeros(()))
        loss = (coupled - surrogate - added) / self.scored_steps
        reported = {f"coupling/{c.label}": value.detach() for c, value in penalties.items()}
        if objective.name != "elbo":  # which the terms add up to
            reported[objective.name] = bound
        return loss, _detached(terms) | reported

    def _split(self, batch: SequenceData) -> tuple[SequenceData, SequenceData, dict[str, float]]:
        """Return what the encoder is shown, what is scored, and the weights of heads' log-likelihoods then."""
        if not self.objective.coordinated_dropout or self.guide.encoder is None:
            return batch, batch, {}
        heads, visible = self.model.observations, self.guide.encoder.visible
        # a window sees what is around it, which is split with it
        shown, scored, reweighted = coordinated_dropout(
            batch if batch.around is None else batch.around.whole,
            self.objective.coordinated_dropout,
            visible,
            joint=[name for name, head in heads.items() if head.joint],
            centres={name: heads[name].history_centre for name in visible},
            symbols=[name for name in visible if heads[name].encoder_input.symbols is not None],
        )
        if batch.around is not None:
            shown, scored = of_whole(batch, shown), of_whole(batch, scored)
        return shown, scored, reweighted


class _Recorded:
    """The model's program, which keeps the rollouts that it made."""

    def __init__(self, model: LatentRNN) -> None:
        self.model, self.rollouts = model, list[Rollout]()

    def __call__(self, data: SequenceData) -> dict[str, Tensor]:
        values, rollout = self.model.trace(data)
        self.rollouts.append(rollout)
        return values

    def unroll(self, data: SequenceData) -> Rollout:
        return self.model.unroll(data)


def scored_steps(data: SequenceData | StoredSequences) -> int:
    """Return the base steps that are scored, in the whole plate: in this unit losses of different data compare."""
    return max(int((data.host_lengths - data.host_context).clip(0).sum()), 1)


def _detached(terms: Terms) -> dict[str, Tensor]:
    named = {f"log_likelihood/{k}": v.detach() for k, v in terms.log_likelihood.items()}
    return named | {f"kl/{k}": v.detach() for k, v in terms.kl.items()}
