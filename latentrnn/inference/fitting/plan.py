"""The settings of a fit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from latentrnn.inference.fitting.schedules import AdamW, Constant, Cosine, EarlyStopping, KLWarmUp, Plateau, Rollback
from latentrnn.inference.guides.windows import Window
from latentrnn.inference.objectives.objectives import Objective
from latentrnn.support.arguments import LARGEST_COUNT, check_flag, check_number, check_size, settle


@dataclass(frozen=True)
class Plan:
    """The settings of one fit; see `fit`."""

    steps: int
    batch_size: int
    num_particles: int
    objective: Objective
    optimiser: AdamW
    learning_rate_schedule: Constant | Cosine | Plateau
    kl: KLWarmUp
    stopping: EarlyStopping
    rollback: Rollback
    coordinated_dropout: float
    head_weights: Mapping[str, float]
    progress: bool
    report_every: int
    window: Window | None = None

    def __post_init__(self) -> None:
        counts = ("steps", "batch_size", "report_every")
        settle(self, **{name: check_size("fit", name, getattr(self, name), most=LARGEST_COUNT) for name in counts})
        settle(
            self,
            num_particles=check_size("fit", "num_particles", self.num_particles),
            coordinated_dropout=check_number("fit", "coordinated_dropout", self.coordinated_dropout, least=0, below=1),
            progress=check_flag("fit", "progress", self.progress),
        )
        kinds: dict[str, tuple[type, ...]] = {
            "objective": (Objective,),
            "optimiser": (AdamW,),
            "learning_rate_schedule": (Constant, Cosine, Plateau),
            "kl": (KLWarmUp,),
            "stopping": (EarlyStopping,),
            "rollback": (Rollback,),
        }
        for name, kind in kinds.items():
            if not isinstance(getattr(self, name), kind):
                expected = " or ".join(each.__name__ for each in kind)
                raise TypeError(f"fit: {name} must be {expected}; found {type(getattr(self, name)).__name__}")
        if self.num_particles < self.objective.fewest_particles:
            raise ValueError(
                f"fit: {type(self.objective).__name__} needs num_particles of at least "
                f"{self.objective.fewest_particles}; found {self.num_particles}"
            )

    def described(self) -> dict[str, Any]:
        """Return the settings in JSON form."""
        plain = {name: getattr(self, name) for name in ("steps", "batch_size", "num_particles", "coordinated_dropout")}
        objects = ("objective", "optimiser", "learning_rate_schedule", "kl", "stopping", "rollback")
        plain["head_weights"] = {name: float(value) for name, value in self.head_weights.items()}
        if self.window is not None:
            plain["window"] = asdict(self.window)
        return plain | {n: {"class": type(getattr(self, n)).__name__, **asdict(getattr(self, n))} for n in objects}
