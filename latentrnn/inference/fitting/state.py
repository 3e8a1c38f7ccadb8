"""Where a fit is: a record from which it goes on."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from latentrnn.inference.fitting.convergence import Improvement
from latentrnn.inference.fitting.snapshots import Snapshot

ALL_STEPS = "steps: all steps were taken"


@dataclass
class TrainingState:
    """Where a fit is.

    Attributes:
        best: weights of model and guide at the best evaluation, or at the start.
        sound: snapshots at which the loss was sound, the last two; the older one is far enough from where a divergence
            is noticed.
        step: the next step.
        evaluations_without_improvement: in a row, once the KL term has its full weight.
        unevaluated_step: the step that was taken last, while its weights are still to be evaluated.
        rollbacks: so far.
        learning_rate_factor: what they left of the learning rate.
        first_step_after_rollback: the first step after the last one.
        best_step, best_bound: of `best`.
        improvement: whether the bound still improves, of a fit that goes on until it has converged.
        seconds: that steps have taken so far.
        unreported: of the last step before a limit, what would stand in the history had the fit ended there.
        history, events, stop_reason: as of `FitResult`.
        finished: whether no step is left to take.
    """

    best: tuple[Mapping[str, Tensor], Mapping[str, Tensor]]
    sound: list[Snapshot]
    step: int = 0
    evaluations_without_improvement: int = 0
    unevaluated_step: int | None = None
    rollbacks: int = 0
    learning_rate_factor: float = 1.0
    first_step_after_rollback: int = 0
    best_step: int = 0
    best_bound: float = -math.inf
    improvement: Improvement = field(default_factory=Improvement)
    seconds: float = 0.0
    unreported: dict[str, float] = field(default_factory=dict)
    history: dict[str, list[float]] = field(default_factory=dict)
    events: list[str] = field(default_factory=list)
    stop_reason: str = ALL_STEPS
    finished: bool = False

    def log(self, event: str) -> None:
        """Note what happened at this step."""
        self.events.append(f"step {self.step}: {event}")

    def to_json(self) -> dict[str, Any]:
        """Return all but the tensors, by the names that checkpoints have for it."""
        return {
            "step": self.step,
            "stale": self.evaluations_without_improvement,
            "unjudged": self.unevaluated_step,
            "rollbacks": self.rollbacks,
            "shrink": self.learning_rate_factor,
            "restart": self.first_step_after_rollback,
            "best_step": self.best_step,
            "best_bound": self.best_bound,
            "improvement": self.improvement.to_json(),
            "seconds": self.seconds,
            "unreported": self.unreported,
            "history": self.history,
            "events": self.events,
            "stop_reason": self.stop_reason,
            "finished": self.finished,
            "good": [snapshot.step for snapshot in self.sound],
        }

    @classmethod
    def from_json(
        cls,
        values: Mapping[str, Any],
        best: tuple[Mapping[str, Tensor], Mapping[str, Tensor]],
        sound: Sequence[Mapping[str, Tensor]],
    ) -> TrainingState:
        """Return the state that `to_json` described.

        Args:
            values: what `to_json` returned.
            best: of the state.
            sound: tensors of its snapshots.
        """
        return cls(
            best=best,
            sound=[Snapshot(step, dict(tensors)) for step, tensors in zip(values["good"], sound, strict=True)],
            step=values["step"],
            evaluations_without_improvement=values["stale"],
            unevaluated_step=values["unjudged"],
            rollbacks=values["rollbacks"],
            learning_rate_factor=values["shrink"],
            first_step_after_rollback=values["restart"],
            best_step=values["best_step"],
            best_bound=values["best_bound"],
            improvement=Improvement.from_json(values["improvement"]),
            seconds=values["seconds"],
            unreported=values["unreported"],
            history=values["history"],
            events=values["events"],
            stop_reason=values["stop_reason"],
            finished=values["finished"],
        )
