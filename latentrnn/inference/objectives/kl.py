"""The weight of the KL term during a fit."""

from __future__ import annotations

from dataclasses import dataclass

from latentrnn.support.arguments import check_number, is_number, settle


@dataclass(frozen=True)
class KLWarmUp:
    """Weight of the KL term: linear from `start` to one over the first `fraction` of the steps, and one from then on.

    Args:
        fraction: part of the steps, in [0, 1); 0 switches the warm-up off.
        start: weight at step 0, in [0, 1].

    Raises:
        ValueError: a fraction that would leave no step at the true ELBO, or a weight out of range.

    References:
        Bowman, Vilnis, Vinyals, Dai, Jozefowicz, Bengio. Generating sentences from a continuous space. 2016.
    """

    fraction: float = 0.2
    start: float = 0.01

    def __post_init__(self) -> None:
        if not is_number(self.fraction) or not 0 <= self.fraction < 1:
            raise ValueError(
                f"KLWarmUp: fraction must be in [0, 1), so that the fit ends at the ELBO; found {self.fraction!r}"
            )
        settle(
            self,
            fraction=float(self.fraction),
            start=check_number("KLWarmUp", "start", self.start, least=0, most=1),
        )

    def weight(self, step: int, steps: int) -> float:
        """Return the weight at `step` of `steps`."""
        last = self.fraction * steps
        return 1.0 if step >= last else self.start + (1 - self.start) * step / last
