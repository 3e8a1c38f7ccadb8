"""When a fit of no given number of steps ends: levels of the learning rate, gains worth waiting for, stop reasons."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from torch import Tensor

from latentrnn.inference.fitting.convergence import Gain, drift, grouped, remaining, standard_error
from latentrnn.inference.fitting.settings.optimizers import Staircase
from latentrnn.inference.fitting.settings.settings import Settings
from latentrnn.inference.fitting.state import ALL_STEPS, TrainingState

OF_THE_ERROR = 0.02  # of the standard error of a score over sequences
PER_NUMBER = 0.05  # nats of the whole data for each learned number: a third of a standard deviation, squared, over two
FEWEST = 8  # records of the second half of a fit, from which a rise can be told
SMALLEST = 1e-3  # nats per sequence, where a single validation sequence has no such error


class Level(NamedTuple):
    """Judges whether the present learning rate has more to give.

    Attributes:
        settings: of the fit.
        learned: how many numbers of the model are learned.
        sequences: of the training data.
        validated: whether it is validation sequences that are evaluated.
    """

    settings: Settings
    learned: int
    sequences: int
    validated: bool

    def worth(self, state: TrainingState) -> float:
        """Return the smallest gain worth waiting for, nats per sequence.

        Of validation sequences it is a small part of the error that a score has anyway, since sequences differ; of
        training sequences what moves each learned number by a third of its posterior standard deviation.
        """
        if not self.validated:
            return PER_NUMBER * self.learned / self.sequences
        return max(OF_THE_ERROR * standard_error(state.improvement.reference), SMALLEST)

    def see(self, state: TrainingState, bounds: Tensor, step: int) -> None:
        """Take in an evaluation after a step."""
        groups = grouped(bounds.numpy())
        if not all(map(math.isfinite, groups)):
            state.improvement.waited += 1
        elif self.settings.kl_weight(step) < 1:
            state.improvement.warm_up(groups)
        else:
            state.improvement.see(groups, self.worth(state), paired=self.validated)
        state.evaluations_without_improvement = state.improvement.waited

    def exhausted(self, state: TrainingState) -> bool:
        """Return whether it has nothing more to give."""
        patience = self.settings.stopping.patience
        return patience is not None and state.improvement.exhausted(patience, self.worth(state))

    def is_last(self, state: TrainingState) -> bool:
        """Return whether the fit ends with it: its fall brought nothing, or no fall is left."""
        schedule = self.settings.optimizer.schedule
        falls = schedule.falls if isinstance(schedule, Staircase) else 0
        improvement = state.improvement
        return improvement.falls >= falls or not improvement.level_gained(self.worth(state), paired=self.validated)

    def fall(self, state: TrainingState) -> None:
        """Begin the next one."""
        improvement = state.improvement
        improvement.fall(improvement.best if self.validated else improvement.latest)


def converged(settings: Settings, state: TrainingState, validated: bool) -> str:
    """Return the stop reason of a fit that has converged: evaluations waited, falls of the rate, nats that remain."""
    improvement = state.improvement
    kept = f"the weights of step {state.best_step} are" if validated else "the average of the last weights is"
    fell = ""
    if improvement.falls:
        fell = f", nor since the learning rate fell to {state.learning_rate_factor:.2g} of its height"
    what, waited = _what(settings, validated), improvement.waited
    return (
        f"converged: the {what} has not improved beyond its error for {waited} evaluations{fell}; {kept} "
        f"kept{_left(state)}"
    )


def limited(limit: str, settings: Settings, state: TrainingState) -> str:
    """Return the stop reason of a fit that a limit, in seconds or steps, ended before it had converged."""
    given = settings.stopping.max_time if limit == "max_time" else settings.most_steps
    unit = "seconds" if limit == "max_time" else "steps"
    own = ", the default," if limit == "max_steps" and settings.stopping.max_steps is None else ""
    assert given is not None
    return (
        f"{limit}: {given:,.12g} {unit}{own} were over before the fit had converged{_left(state)}; go on with "
        f"start_from=result, or with a checkpoint, resume=True and a larger {limit}"
    )


def all_steps(history: Mapping[str, Sequence[float]], objective: str) -> str:
    """Return the stop reason of a fit that took the steps that it was given: whether the bound still rose at the end.

    Of what was recorded, the last quarter is held against the quarter before; a rise is more than twice its error.

    Args:
        history: of the fit; the bound of validation sequences counts where there are any.
        objective: name of the bound.
    """
    validated = f"validation_{objective}" in history
    trace = history.get(f"validation_{objective}" if validated else objective, ())
    said = f"{ALL_STEPS}; the {'validation' if validated else 'training'} {objective.upper()}"
    trace = [value for value in trace[len(trace) // 2 :] if math.isfinite(value)]
    if len(trace) < FEWEST:
        return f"{said} was recorded too seldom to tell whether it was still rising"
    gain = drift(trace)
    if gain.value <= 2 * gain.error:
        return f"{said} no longer rose beyond its noise"
    return f"{said} was still rising, by {gain} nats per sequence over the last quarter: try increasing `steps`"


def _what(settings: Settings, validated: bool) -> str:
    monitor = settings.stopping.monitor
    judge = f"log-likelihood of {' and '.join(monitor)}" if monitor else settings.objective.name.upper()
    return f"{'validation' if validated else 'training'} {judge}"


def _left(state: TrainingState) -> str:
    left = left_to_gain(state)
    if left is None:
        return "; too few evaluations to tell what remains to be gained"
    return f"; about {left} nats per sequence remain to be gained"


def left_to_gain(state: TrainingState) -> Gain | None:
    """Return what the present learning rate will still bring, nats per sequence; None where too little was seen."""
    return remaining(state.improvement.trace)
