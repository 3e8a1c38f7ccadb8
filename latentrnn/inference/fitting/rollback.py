"""What happens when the loss diverges: back to sound weights, and on with smaller steps, or an end."""

from __future__ import annotations

from typing import NamedTuple

from latentrnn.inference.fitting.divergence import Divergence
from latentrnn.inference.fitting.settings.rollback import Rollback
from latentrnn.inference.fitting.snapshots import Snapshot
from latentrnn.inference.fitting.state import TrainingState


class RollbackPolicy(NamedTuple):
    """Decides what a divergence leads to.

    Attributes:
        settings: how often to go back.
        steps: of the fit; None where it goes on until it has converged.
    """

    settings: Rollback
    steps: int | None

    def goes_back(self, state: TrainingState, divergence: Divergence) -> bool:
        """Return whether to go back and on.

        At the weights that one would go back to smaller steps make no difference, and after the last step none follow.
        """
        last = state.step + 1 == self.steps
        at_the_start_of_it = divergence.step == max(state.sound[0].step, state.first_step_after_rollback)
        return not (last or state.rollbacks == self.settings.times or at_the_start_of_it)

    def begin(self, state: TrainingState) -> Snapshot:
        """Count a rollback in the state, and return the snapshot to go back to."""
        older = state.sound[0]
        state.rollbacks += 1
        state.learning_rate_factor *= self.settings.factor
        state.log(
            f"rolled back to the weights of step {older.step}, with {state.learning_rate_factor:.3g} times the "
            f"learning rate from here on ({state.rollbacks} of {self.settings.times})"
        )
        state.sound, state.first_step_after_rollback = [older], state.step + 1
        return older


def described(divergence: Divergence, state: TrainingState) -> str:
    """Return what diverged, and where, as a sentence of a result's `stop_reason`.

    Args:
        divergence: kind, step, and the sites whose terms were not finite.
        state: of the fit, which knows how often it went back before.
    """
    # the bound and the gradient stand for all sites
    names = [name.partition("/")[2] for name in divergence.sites if "/" in name] or divergence.sites
    tried = f", after {state.rollbacks} rollback{'s' if state.rollbacks > 1 else ''}" if state.rollbacks else ""
    return f"{divergence.kind} loss at step {divergence.step}, at site {', '.join(map(repr, names))}{tried}"
