"""The bound of validation sequences: which weights to keep, and when to stop."""

from __future__ import annotations

import torch
from torch import nn

from latentrnn.data import SequenceData, StoredSequences
from latentrnn.inference.fitting.distributed.processes import SingleProcess
from latentrnn.inference.fitting.loss import scored_steps
from latentrnn.inference.fitting.settings.settings import Settings
from latentrnn.inference.fitting.state import TrainingState
from latentrnn.inference.guides.windows import WindowPlan
from latentrnn.inference.objectives.objective import Evaluation, Objective
from latentrnn.support.isolation import random_state

VALIDATION_SEED = 20_231  # every evaluation uses the same random numbers, so that only the weights differ
EVALUATED_AT_ONCE = 256  # sequences; how many decides which random numbers each gets


class Validation:
    """Evaluates weights on validation sequences.

    Args:
        data: the sequences.
        settings: of the fit.
        windows: how long sequences are cut.
        processes: that share the evaluation.
    """

    def __init__(
        self,
        data: SequenceData | StoredSequences,
        settings: Settings,
        windows: WindowPlan | None,
        processes: SingleProcess,
    ) -> None:
        self.data, self.settings, self.windows, self.processes = data, settings, windows, processes
        self.scored_steps = scored_steps(data)

    def is_due(self, step: int) -> bool:
        """Return whether the weights that a step left are to be evaluated."""
        return (step + 1) % self.settings.stopping.every == 0 or step + 1 == self.settings.steps

    def bound(self, model: nn.Module, guide: nn.Module) -> float:
        """Return the bound, nats per sequence: given the parameters with priors, whose KL the training data paid."""
        objective = self.settings.objective
        several = objective.fewest_particles > 1  # a bound that depends on how many there are
        particles = objective.num_particles if several else self.settings.stopping.num_particles
        with torch.no_grad(), random_state(VALIDATION_SEED, self.data.device):
            return validation_bound(
                objective, model, guide, self.data, particles, self._at_once(), self.windows, self.processes
            )

    def judge(self, state: TrainingState, bound: float, step: int) -> bool:
        """Write a bound into the history, count evaluations without improvement, and return whether it is the best."""
        state.history.setdefault("validation_step", []).append(step)
        state.history.setdefault(f"validation_{self.settings.objective.name}", []).append(bound)
        best = bound > state.best_bound
        warming_up = self.settings.objective.kl.weight(step, self.settings.steps) < 1
        state.evaluations_without_improvement = 0 if best or warming_up else state.evaluations_without_improvement + 1
        return best

    def converged(self, state: TrainingState, step: int) -> bool:
        """Return whether the fit ends after this evaluation, and say so in the state."""
        patience, count = self.settings.stopping.patience, state.evaluations_without_improvement
        if step + 1 == self.settings.steps or patience is None or count < patience:
            return False
        state.stop_reason = (
            f"converged: the validation ELBO has not improved for {count} evaluations; the weights of step "
            f"{state.best_step} are kept"
        )
        return True

    def _at_once(self) -> int:
        """Return how many sequences: of what is large and not in memory, no more than a step takes."""
        large = isinstance(self.data, StoredSequences) and not self.data.small(EVALUATED_AT_ONCE)
        return self.settings.batch_size if large else EVALUATED_AT_ONCE


def validation_bound(
    objective: Objective,
    model: nn.Module,
    guide: nn.Module,
    data: SequenceData | StoredSequences,
    num_particles: int,
    batch_size: int = EVALUATED_AT_ONCE,
    windows: WindowPlan | None = None,
    processes: SingleProcess | None = None,
) -> float:
    """Return the objective's bound of all sequences, nats per sequence, the KL of parameters with priors left out.

    The caller sets the random state.
    """
    processes = processes or SingleProcess()
    total = torch.zeros((), device=data.device)
    if isinstance(data, StoredSequences) and windows is not None:
        data = data.in_windows()
    stored = isinstance(data, StoredSequences)
    for positions in torch.arange(len(data)).split(batch_size) if stored or len(data) > batch_size else [None]:
        batch = processes.share(data, positions)  # type: ignore[arg-type]
        share = processes.share_of(batch)
        # each batch's bound stands for the whole plate; averaged by the share of sequences they are its own. So does
        # each window's
        parts = [batch] if windows is None else windows.through(batch, enlarged=True)
        with processes.draws(batch, num_particles):
            steps = [objective.step(Evaluation(model, guide, part, num_particles)) for part in parts]
        bounds = [step.given_parameters for step in steps]
        bound = bounds[0] if len(bounds) == 1 else torch.stack(bounds).mean()
        total = total + (bound * share.weight * share.whole if share.weight else 0.0)
    return float(processes.add(total)) / len(data) / len(data)
