"""When a fit ends early."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from latentrnn.support.arguments import check_number, check_size, is_integer, settle


@dataclass(frozen=True)
class EarlyStopping:
    """Stop once the validation ELBO has not improved for `patience` evaluations in a row; keep the best weights.

    Args:
        every: steps between evaluations.
        patience: evaluations; None never stops early (the best weights are kept all the same).
        num_particles: draws per evaluation.

    Raises:
        ValueError: a value below one.
    """

    every: int = 25
    patience: int | None = 12
    num_particles: int = 4

    def __post_init__(self) -> None:
        if self.patience is not None and (not is_integer(self.patience) or self.patience < 1):
            raise ValueError(f"EarlyStopping: patience must be at least 1 or None, and whole; found {self.patience!r}")
        settle(
            self,
            every=_count("EarlyStopping", "every", self.every),
            patience=None if self.patience is None else int(self.patience),
            num_particles=_count("EarlyStopping", "num_particles", self.num_particles),
        )


def _count(owner: str, name: str, value: Any) -> int:
    check_number(owner, name, value, above=0)
    return check_size(owner, name, value)
