"""What a fit does when its loss diverges."""

from __future__ import annotations

from dataclasses import dataclass

from latentrnn.support.arguments import check_number, is_integer, is_number, settle


@dataclass(frozen=True)
class Rollback:
    """What a fit does when its loss is no longer a number, or explodes: go back, and on with smaller steps.

    Weights, the optimizer's moments and the average go back by at least ten steps; batches, random numbers and
    schedules go on, so that the number of steps is what it was. Every time is in `FitResult.events`.

    Args:
        times: how often in one fit; after that it stops, and keeps what was learnt. 0 stops at the first sight.
        factor: of the learning rate, from then on.
        tolerance: the loss explodes when the median of ten steps exceeds the 95% quantile of the 200 steps before by
            this many times their spread (the scaled median absolute deviation, at least 0.1 nats per scored step);
            infinity looks for non-finite losses alone.

    Raises:
        ValueError: a value out of range.
    """

    times: int = 3
    factor: float = 0.5
    tolerance: float = 20.0

    def __post_init__(self) -> None:
        if not is_integer(self.times) or self.times < 0:
            raise ValueError(f"Rollback: times must be a whole number, at least 0; found {self.times!r}")
        if not is_number(self.factor) or not 0 < self.factor < 1:
            raise ValueError(f"Rollback: factor must be between 0 and 1; found {self.factor!r}")
        settle(
            self,
            times=int(self.times),
            factor=float(self.factor),
            tolerance=check_number("Rollback", "tolerance", self.tolerance, above=0, finite=False),
        )
