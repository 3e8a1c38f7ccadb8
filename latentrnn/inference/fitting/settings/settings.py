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
from latentrnn.support.arguments import LARGEST_COUNT, check_size, settle

MAX_STEPS = 50_000  # of a fit that goes on until it has converged, where no other limit is given
WARM_UP_OF = 1000  # steps, of which the KL term's warm-up is a share where nobody knows how many there will be


LIMITS = ("max_steps", "max_time")  # of `EarlyStopping`


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

    def __post_init__(self) -> None:
        counts = ("batch_size", *(() if self.steps is None else ("steps",)))
        sizes = {name: check_size("fit", name, getattr(self, name), most=LARGEST_COUNT) for name in counts}
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
        steps, most = sizes.get("steps"), self.stopping.max_steps
        if steps is not None and most is not None:
            raise ValueError(
                f"fit: steps={steps} is how many are taken, EarlyStopping(max_steps={most}) the limit of a fit that "
                "ends when it has converged; give one of them"
            )
        settle(self, **sizes, optimizer=self.optimizer.resolved(steps))

    @property
    def warm_up_of(self) -> int:
        """The steps of which the KL term's warm-up is a share."""
        return WARM_UP_OF if self.steps is None else self.steps

    @property
    def most_steps(self) -> float:
        """The steps after which the fit ends in any case."""
        if self.steps is not None:
            return self.steps
        if self.stopping.max_steps is not None:
            return self.stopping.max_steps
        return MAX_STEPS if self.stopping.max_time is None else math.inf

    def kl_weight(self, step: int) -> float:
        """Return the weight of the KL term at a step."""
        return self.objective.kl.weight(step, self.warm_up_of)

    def described(self, *, continued: bool) -> dict[str, Any]:
        """Return what decides a fit's course, in JSON form, by the names that saved fits and checkpoints have for it.

        Args:
            continued: whether the fit goes on from another's weights.
        """
        objective, optimizer, stopping = _named(self.objective), _named(self.optimizer), _named(self.stopping)
        if monitor := stopping.pop("monitor"):  # else described as before heads could be named: what began then goes on
            stopping["monitor"] = list(monitor)
        found = {
            "steps": self.steps,
            "batch_size": self.batch_size,
            "num_particles": objective.pop("num_particles"),
            "coordinated_dropout": objective.pop("coordinated_dropout"),
            "head_weights": objective.pop("head_weights", None) or {},
            "kl": _named(self.objective.kl),
            "learning_rate_schedule": _named(self.optimizer.schedule),
            "rollback": _named(self.optimizer.rollback),
            "stopping": {name: value for name, value in stopping.items() if name not in LIMITS},
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
        return {name: value for name in LIMITS if (value := getattr(self.stopping, name)) is not None}


def _named(part: Any) -> dict[str, Any]:
    return {"class": type(part).__name__, **asdict(part)}
