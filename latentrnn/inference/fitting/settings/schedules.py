"""Schedules of the learning rate, described."""

from __future__ import annotations

import math
from dataclasses import dataclass

from latentrnn.support.arguments import check_integer, check_number, settle
from latentrnn.support.deprecations import former_arguments


@dataclass(frozen=True)
class Constant:
    """A learning rate that stays."""

    @former_arguments("Constant.factor")
    def factor(self, step: int, steps: int, evaluations_without_improvement: int) -> float:
        """Return the multiple of the largest learning rate at `step` of `steps`."""
        return 1.0


@dataclass(frozen=True)
class Cosine:
    """A learning rate that rises linearly and then falls along half a cosine.

    Args:
        rise: steps of linear rise.
        final: fraction of the largest rate at the end, in [0, 1].

    Raises:
        ValueError: a value out of range.
    """

    rise: int = 20
    final: float = 0.02

    def __post_init__(self) -> None:
        settle(
            self,
            rise=check_integer("Cosine", "rise", self.rise),
            final=check_number("Cosine", "final", self.final, least=0, most=1),
        )

    @former_arguments("Cosine.factor")
    def factor(self, step: int, steps: int, evaluations_without_improvement: int) -> float:
        """Return the multiple of the largest learning rate at `step` of `steps`."""
        if step < self.rise:
            return (step + 1) / self.rise
        progress = (step - self.rise) / max(steps - self.rise, 1)
        return self.final + (1 - self.final) * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))


@dataclass(frozen=True)
class Plateau:
    """A learning rate that falls by `factor_per_fall` after `patience` evaluations without a better validation ELBO.

    Args:
        patience: evaluations.
        factor_per_fall: of the learning rate, in (0, 1).

    Raises:
        ValueError: a value out of range.
    """

    patience: int = 4
    factor_per_fall: float = 0.5

    def __post_init__(self) -> None:
        settle(
            self,
            patience=check_integer("Plateau", "patience", self.patience, least=1),
            factor_per_fall=check_number("Plateau", "factor_per_fall", self.factor_per_fall, above=0, below=1),
        )

    @former_arguments("Plateau.factor")
    def factor(self, step: int, steps: int, evaluations_without_improvement: int) -> float:
        """Return the multiple of the largest learning rate at `step` of `steps`."""
        return self.factor_per_fall ** (evaluations_without_improvement // self.patience)
