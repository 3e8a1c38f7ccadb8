"""Whether a bound still improves, and what remains to be gained, from evaluations in a row."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

GROUPS = 64  # of sequences, whose averages are what is compared
REMEMBERED = 64  # evaluations of a level from which noise and drift are estimated
FEWEST = 6  # evaluations from which anything is
RISING = 0.9  # largest ratio of successive gains that is extrapolated
STATIONARY = 1.1  # split R-hat up to which iterates are taken to have come to rest
LONGEST = 4.0  # times the patience, where evaluations are noisy


class Gain(NamedTuple):
    """How much a bound has gained or may still gain, nats per sequence, and the standard error of that."""

    value: float
    error: float

    def __str__(self) -> str:
        digits = 1 - math.floor(math.log10(self.error)) if self.error > 0 and math.isfinite(self.error) else 2
        places = min(max(digits, 0), 4)
        return f"{self.value:.{places}f} +- {self.error:.{places}f}"


def grouped(bounds: ArrayLike) -> list[float]:
    """Return averages over at most `GROUPS` groups of sequences whose sizes differ by one at most."""
    values = np.asarray(bounds, dtype=np.float64)
    return [float(part.mean()) for part in np.array_split(values, min(len(values), GROUPS))]


def standard_error(values: ArrayLike) -> float:
    """Return that of the average of independent values; zero for a single one."""
    found = np.asarray(values, dtype=np.float64)
    return float(found.std(ddof=1) / len(found) ** 0.5) if len(found) > 1 else 0.0


def paired_gain(later: Sequence[float], earlier: Sequence[float]) -> Gain:
    """Return by how much later bounds of the same sequences, with the same draws, exceed earlier ones.

    The error is that of the average difference, so that what all evaluations have in common drops out.
    """
    difference = np.asarray(later, dtype=np.float64) - np.asarray(earlier, dtype=np.float64)
    return Gain(float(difference.mean()), standard_error(difference))


def jitter(trace: Sequence[float]) -> float:
    """Return the standard deviation of evaluations around where they are heading, from the median second difference.

    Of a straight line, with a bend or two, it is zero, however steep; of white noise its standard deviation.
    """
    if len(trace) < 3:
        return 0.0
    second = np.diff(np.asarray(trace, dtype=np.float64), 2)
    return float(1.4826 * np.median(np.abs(second)) / 6**0.5)


def effective_size(trace: Sequence[float]) -> float:
    """Return how many independent values a stationary trace is worth, by Geyer's initial positive sequence.

    References:
        Geyer. Practical Markov chain Monte Carlo. 1992.
    """
    values = np.asarray(trace, dtype=np.float64)
    values, count = values - values.mean(), len(trace)
    variance = float(values @ values) / count
    if variance == 0:
        return float(count)
    correlation = [float(values[lag:] @ values[: count - lag]) / count / variance for lag in range(count)]
    total = 0.0
    for even in range(0, count - 1, 2):
        pair = correlation[even] + correlation[even + 1]
        if pair <= 0:
            break
        total += pair
    return min(count / max(2 * total - 1, 1e-12), float(count))


def split_r_hat(trace: Sequence[float]) -> float:
    """Return how much the spread of a trace exceeds that within its halves; one where it is stationary.

    References:
        Gelman, Carlin, Stern, Dunson, Vehtari, Rubin. Bayesian data analysis. 2013.
        Dhaka, Catalina, Andersen, Magnusson, Huggins, Vehtari. Robust, accurate stochastic optimization for variational
        inference. 2020 (of iterates).
    """
    half = len(trace) // 2
    first, second = np.asarray(trace[-2 * half : -half]), np.asarray(trace[-half:])
    within = (first.var(ddof=1) + second.var(ddof=1)) / 2
    between = half * np.var([first.mean(), second.mean()], ddof=1)
    if within == 0:
        return 1.0 if between == 0 else math.inf
    return float(np.sqrt((half - 1) / half + between / half / within))


def drift(trace: Sequence[float]) -> Gain:
    """Return by how much the second half of a trace lies above the first; the error counts effective evaluations."""
    half = len(trace) // 2
    first, second = np.asarray(trace[-2 * half : -half]), np.asarray(trace[-half:])
    detrended = [part - np.polyval(np.polyfit(np.arange(half), part, 1), np.arange(half)) for part in (first, second)]
    errors = [float(part.std() / effective_size(part.tolist()) ** 0.5) for part in detrended]
    return Gain(float(second.mean() - first.mean()), math.hypot(*errors))


def remaining(trace: Sequence[float]) -> Gain | None:
    """Return what a trace of bounds will still gain if its gains go on shrinking as they have; None for a short trace.

    Averages of its thirds rise by d_1 and then d_2; a geometric series from there adds up to d_2 r / (1 - r) beyond the
    last third, r = d_2 / d_1 at most `RISING`. Where they fall, nothing remains. The error is that of the averages, as
    it comes through this formula; where the ratio had to be held down, no trace tells how far a rise goes on, and what
    was extrapolated is its own error as well.
    """
    third = len(trace) // 3
    if not third:
        return None
    values = np.asarray(trace[-3 * third :], dtype=np.float64).reshape(3, third)
    first, second = np.diff(values.mean(1)).tolist()
    error = drift(trace[-2 * third :]).error if third > 2 else jitter(trace)
    if second <= 0:
        return Gain(0.0, error)
    held = first <= 0 or second / first > RISING
    ratio = RISING if held else second / first
    left = second * ratio / (1 - ratio)
    # slopes of the formula in d_2 and d_1, which share the average of the middle third
    by_second = ratio / (1 - ratio) if held else ratio * (2 - ratio) / (1 - ratio) ** 2
    by_first = 0.0 if held else -((ratio / (1 - ratio)) ** 2)
    slopes = (-by_first, by_first - by_second, by_second)
    spread = error / math.sqrt(2) * math.hypot(*slopes)
    return Gain(left, max(error, math.hypot(spread, left if held else 0.0)))


@dataclass
class Improvement:
    """Whether a bound still improves at a learning rate: a record of evaluations in a row.

    An evaluation counts as an improvement where it exceeds the last one that counted by more than the error of the
    difference, and by more than is worth waiting for. A level is exhausted after `patience` evaluations without one,
    more of them the noisier they are, up to `LONGEST` times as many.

    Attributes:
        reference: groups of the evaluation that counted last.
        best, latest: groups of the best evaluation, and of the last one.
        trace: bounds of this level, the newest last, nats per sequence.
        waited: evaluations since.
        began: groups of the reference at which this level began; none at the first.
        falls: of the learning rate before this level.
    """

    reference: list[float] = field(default_factory=list)
    best: list[float] = field(default_factory=list)
    latest: list[float] = field(default_factory=list)
    trace: list[float] = field(default_factory=list)
    waited: int = 0
    began: list[float] = field(default_factory=list)
    falls: int = 0

    def see(self, groups: Sequence[float], worth: float, *, paired: bool = True) -> bool:
        """Take in an evaluation, and return whether it counts as an improvement.

        Args:
            groups: average bounds of groups of sequences, the same groups every time.
            worth: smallest gain worth waiting for, nats per sequence.
            paired: whether sequences stand for others like them, so that gains that differ by sequence are uncertain.
        """
        self.latest = list(groups)
        self.trace = [*self.trace, float(np.mean(groups))][-REMEMBERED:]
        if not self.reference:
            self.reference, self.best = list(groups), list(groups)
            return True
        self.keep_best(groups)
        gain = paired_gain(groups, self.reference)
        error = math.hypot(gain.error if paired else 0.0, math.sqrt(2) * jitter(self.trace))
        improved = gain.value > max(error, worth)
        self.waited = 0 if improved else self.waited + 1
        if improved:
            self.reference = list(groups)
        return improved

    def keep_best(self, groups: Sequence[float]) -> None:
        """Take in an evaluation that is not judged, but may be the best so far."""
        if not self.best or np.mean(groups) > np.mean(self.best):
            self.best = list(groups)

    def warm_up(self, groups: Sequence[float]) -> None:
        """Take in an evaluation of the KL term's warm-up, during which nothing is waited for."""
        self.keep_best(groups)
        self.latest, self.reference = list(groups), list(self.best)

    def patience(self, evaluations: int, worth: float) -> int:
        """Return how many evaluations to wait for an improvement: more the more single ones scatter.

        Not where they fall, below the last one that counted: then more of them would not tell more.
        """
        noise, recent = jitter(self.trace), self.trace[-evaluations:]
        if len(recent) >= FEWEST and np.mean(recent) < np.mean(self.reference) - 2 * noise:
            moved = drift(recent)
            if moved.value < -max(2 * moved.error, worth):
                return evaluations
        stretch = 1 + noise / worth if worth > 0 else LONGEST
        return math.ceil(evaluations * min(stretch, LONGEST))

    def exhausted(self, patience: int, worth: float) -> bool:
        """Return whether this level has nothing more to give: nothing has counted, and there is no drift upwards."""
        wait = self.patience(patience, worth)
        if self.waited < wait:
            return False
        recent = self.trace[-max(wait, FEWEST) :]
        if len(recent) < FEWEST or self.waited >= LONGEST * patience:
            return True
        moved = drift(recent)
        return not (moved.value > max(moved.error, worth) and split_r_hat(recent) > STATIONARY)

    def level_gained(self, worth: float, *, paired: bool = True) -> bool:
        """Return whether this level, after a fall of the rate, brought an improvement that counts."""
        if not self.began:
            return True
        gain = paired_gain(self.reference, self.began)
        return gain.value > max(gain.error if paired else 0.0, worth)

    def fall(self, groups: Sequence[float]) -> None:
        """Begin the next level at weights whose evaluation is given."""
        self.reference, self.began = list(groups), list(groups)
        self.trace, self.waited = [], 0
        self.falls += 1

    def to_json(self) -> dict[str, Any]:
        """Return all of it in JSON form."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Improvement:
        """Return what `to_json` described."""
        return cls(**values)
