"""The settings of one fit, together."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from latentrnn.inference.fitting.settings.compute import Compute
from latentrnn.inference.fitting.settings.optimizers import AdamW
from latentrnn.inference.fitting.settings.reporting import Reporting
from latentrnn.inference.fitting.settings.stopping import EarlyStopping
from latentrnn.inference.objectives.objective import Objective
from latentrnn.support.arguments import LARGEST_COUNT, check_size, settle


@dataclass(frozen=True)
class Settings:
    """The settings of one fit; see `fit`."""

    steps: int
    batch_size: int
    objective: Objective
    optimizer: AdamW
    stopping: EarlyStopping
    compute: Compute
    reporting: Reporting

    def __post_init__(self) -> None:
        counts = ("steps", "batch_size")
        settle(self, **{name: check_size("fit", name, getattr(self, name), most=LARGEST_COUNT) for name in counts})
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


def _named(part: Any) -> dict[str, Any]:
    return {"class": type(part).__name__, **asdict(part)}
