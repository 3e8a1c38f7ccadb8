"""The settings of one fit, together."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from latentrnn.inference.fitting.settings.compute import Compute
from latentrnn.inference.fitting.settings.optimizers import AdamW
from latentrnn.inference.fitting.settings.reporting import Reporting
from latentrnn.inference.fitting.settings.stopping import EarlyStopping
from latentrnn.inference.objectives.objective import Objective
from latentrnn.support.arguments import LARGEST_COUNT, check_number, check_size, settle

MAX_STEPS = 50_000  # of a fit that goes on until it has converged, where no other limit is given
WARM_UP_OF = 1000  # steps, of which the KL term's warm-up is a share where nobody knows how many there will be


@dataclass(frozen=True)
class Settings:
    """The settings of one fit; see `fit`."""

    steps: int | None
    batch_size: int
    objective: Objective
    optimizer: AdamW
    stopping: EarlyStopping
    compute: Compute
    reporting: Reporting
    max_steps: int | None = None
    max_time: float | None = None

    def __post_init__(self) -> None:
        given = [name for name in ("steps", "max_steps") if getattr(self, name) is not None]
        counts = ("batch_size", *given)
        settle(self, **{name: check_size("fit", name, getattr(self, name), most=LARGEST_COUNT) for name in counts})
        if len(given) == 2:
            raise ValueError(
                f"fit: steps={self.steps} is how many are taken, max_steps={self.max_steps} the limit of a fit that "
                "ends when it has converged; give one of them"
            )
        if self.max_time is not None:
            settle(self, max_time=check_number("fit", "max_time", self.max_time, above=0, finite=False))
        kinds: dict[str, type] = {
            "objective": Objective,
            "optimizer": AdamW,
            "stopping": EarlyStopping,
            "compute": Compute,
            "reporting": Reporting,
        }
        for name, kind in kinds.items():
            if not isinstance(getattr(self, name), kind):
                raise TypeError(f"fit: {name} must be {kind.__name__}; found {type(getattr(self, name)).__name__}")
        settle(self, optimizer=self.optimizer.resolved(self.steps))

    @property
    def warm_up_of(self) -> int:
        """The steps of which the KL term's warm-up is a share."""
        return WARM_UP_OF if self.steps is None else self.steps

    @property
    def most_steps(self) -> float:
        """The steps after which the fit ends in any case."""
        if self.steps is not None:
            return self.steps
        if self.max_steps is not None:
            return self.max_steps
        return MAX_STEPS if self.max_time is None else math.inf

    def kl_weight(self, step: int) -> float:
        """Return the weight of the KL term at a step."""
        return self.objective.kl.weight(step, self.warm_up_of)

    def described(self, *, continued: bool) -> dict[str, Any]:
        """Return what decides a fit's course, in JSON form, by the names that saved fits and checkpoints have for it.

        Args:
            continued: whether the fit goes on from another's weights.
        """
        objective, optimizer = _named(self.objective), _named(self.optimizer)
        found = {
            "steps": self.steps,
            "batch_size": self.batch_size,
            "num_particles": objective.pop("num_particles"),
            "coordinated_dropout": objective.pop("coordinated_dropout"),
            "head_weights": objective.pop("head_weights", None) or {},
            "kl": _named(self.objective.kl),
            "learning_rate_schedule": _named(self.optimizer.schedule),
            "rollback": _named(self.optimizer.rollback),
            "stopping": _named(self.stopping),
            "continued": continued,
        }
        found["objective"] = {name: value for name, value in objective.items() if name != "kl"}
        found["optimiser"] = {k: value for k, value in optimizer.items() if k not in ("schedule", "rollback")}
        if self.compute.window is not None:
            found["window"] = asdict(self.compute.window)
        if self.compute.matmul_precision is not None:
            found["matmul_precision"] = self.compute.matmul_precision
        return found

    @property
    def limits(self) -> dict[str, Any]:
        """What ends a fit but decides nothing about its course, in JSON form; one can go on under others."""
        given = {"max_steps": self.max_steps, "max_time": self.max_time}
        return {name: value for name, value in given.items() if value is not None}


def _named(part: Any) -> dict[str, Any]:
    return {"class": type(part).__name__, **asdict(part)}
