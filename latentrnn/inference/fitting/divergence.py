"""When a fit has gone wrong: a term that is no longer a number, or a loss far above what it was."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

WINDOW = 10  # steps that are judged together, so that one odd batch is no divergence
PAST = 200  # steps with which they are compared
LEAST_SPREAD = 0.1  # nats per scored step: a loss that hardly moves must not turn a ripple into an explosion


class Divergence(NamedTuple):
    """What went wrong.

    Attributes:
        step: where it was first seen.
        kind: "non-finite" or "exploding".
        sites: the terms that it was seen in.
        message: the same in words.
    """

    step: int
    kind: str
    sites: list[str]
    message: str


class DivergenceMonitor:
    """Compares the terms of the loss with those before.

    A term that is not finite is a divergence at once. A loss explodes when the median of the last `WINDOW` steps is
    above what was high among the `PAST` steps before (their 95% quantile, so that a rare kind of batch is no explosion)
    by more than `tolerance` times their spread (1.4826 median absolute deviations, at least `LEAST_SPREAD`). All
    are taken at the present weight of the KL term, so that its warm-up, which raises the loss, is none either. Where
    another bound than the ELBO is maximised, which its terms do not add up to, it is the loss.

    Args:
        tolerance: in spreads; infinity looks for non-finite terms alone.
        scored_steps: what terms are divided by, so that they are nats per scored step.
        head_weights: of the log-likelihoods of the named heads in the loss; one where a head is not named.

    References:
        Hampel. The influence curve and its role in robust estimation. 1974 (median and median absolute deviation).
    """

    def __init__(self, tolerance: float, scored_steps: int, head_weights: Mapping[str, float] | None = None) -> None:
        self.tolerance, self.scored_steps, self.head_weights = tolerance, scored_steps, head_weights or {}
        self.names: list[str] = []
        self.past: deque[list[float]] = deque(maxlen=PAST)
        self.fresh: list[list[float]] = []

    @property
    def all_sound(self) -> bool:
        """Whether everything seen so far was judged, and found sound."""
        return not self.fresh

    def check(
        self, steps: Sequence[int], names: list[str], rows: list[list[float]], kl_weight: float
    ) -> Divergence | None:
        """Take in the terms of some steps, and return their divergence, if there is one.

        Args:
            steps: their numbers.
            names: of the terms.
            rows: per step the terms, nats for the whole plate.
            kl_weight: the present one.
        """
        for step, row in zip(steps, rows, strict=True):
            bad = [name for name, value in zip(names, row, strict=True) if not math.isfinite(value)]
            if bad:
                return Divergence(step, "non-finite", bad, f"non-finite {', '.join(bad)}")
        if names != self.names:  # the terms of another kind of batch cannot be compared
            self.names, self.fresh = names, []
            self.past.clear()
        self.fresh += rows
        if len(self.fresh) < WINDOW:
            return None
        divergence = self._explosion(steps[-1], kl_weight) if len(self.past) >= WINDOW else None
        if divergence is None:
            self.past.extend(self.fresh)
            self.fresh = []
        return divergence

    def forget(self) -> None:
        """Leave out what was not found sound, after going back."""
        self.fresh = []

    def begin_again(self) -> None:
        """Forget all that was seen, where weights have been changed otherwise than by a step."""
        self.names, self.fresh = [], []
        self.past.clear()

    def state(self) -> dict[str, Any]:
        """Return what `restore` needs, in JSON form."""
        return {"names": self.names, "past": list(self.past), "fresh": self.fresh}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from where another monitor was."""
        self.names, self.fresh = state["names"], state["fresh"]
        self.past.clear()
        self.past.extend(state["past"])

    def _explosion(self, step: int, kl_weight: float) -> Divergence | None:
        before, now = self._costs(list(self.past), kl_weight), self._costs(self.fresh, kl_weight)
        losses, loss = self._losses(list(self.past), before), float(np.median(self._losses(self.fresh, now)))
        reference = float(np.median(losses))
        spread = max(1.4826 * float(np.median(np.abs(losses - reference))), LEAST_SPREAD)
        if not loss > float(np.quantile(losses, 0.95)) + self.tolerance * spread:
            return None
        worst = self.names[int(np.argmax(np.median(now, 0) - np.median(before, 0)))]
        message = f"exploding loss, {loss:.4g} nats per scored step after {reference:.4g}, most of it {worst}"
        return Divergence(step, "exploding", [worst], message)

    def _losses(self, rows: list[list[float]], costs: NDArray[np.float64]) -> NDArray[np.float64]:
        """The loss of each step, nats per scored step."""
        bounds = [i for i, name in enumerate(self.names) if "/" not in name and name != "gradient"]
        return -np.array(rows)[:, bounds[0]] / self.scored_steps if bounds else costs.sum(1)

    def _costs(self, rows: list[list[float]], kl_weight: float) -> NDArray[np.float64]:
        """What each term adds to the loss, (step, term), nats per scored step."""
        weights = {"log_likelihood": -1.0, "kl": kl_weight}
        parts = [name.partition("/") for name in self.names]
        factors = [weights.get(kind, 0.0) * self.head_weights.get(name, 1.0) for kind, _, name in parts]
        return np.array(rows) * np.array(factors) / self.scored_steps
