"""One draw of the no-U-turn sampler: a trajectory that doubles until it turns back, and a point chosen from it."""

from __future__ import annotations

import math
from collections.abc import Generator
from typing import NamedTuple, TypeVar

import numpy as np

from latentrnn.inference.sampling.hamiltonian.metric import Metric

T = TypeVar("T")
Evaluated = tuple[float, np.ndarray]  # log density, nats, and its gradient, (dim,)
Evaluating = Generator[np.ndarray, Evaluated, T]  # yields positions, (dim,), and is sent what the density is there

DIVERGED = 1000.0  # nats that the energy may rise along a trajectory before it counts as lost


class Point(NamedTuple):
    """A point of a trajectory.

    Attributes:
        position: (dim,), unconstrained.
        log_density: log p there, nats; minus infinity where it or its gradient is not finite.
        gradient: of log p by position, (dim,).
        slope: the gradient in the coordinates of the metric, (dim,).
        momentum: in these coordinates, where its variance is one, (dim,).
    """

    position: np.ndarray
    log_density: float
    gradient: np.ndarray
    slope: np.ndarray
    momentum: np.ndarray

    @property
    def energy(self) -> float:
        """Kinetic and potential energy, nats."""
        return 0.5 * float(self.momentum @ self.momentum) - self.log_density


class Statistics(NamedTuple):
    """How a draw came about, by the names that ArviZ gives it; `latentrnn.Chains` says what each is."""

    lp: float
    energy: float
    energy_error: float
    acceptance_rate: float
    tree_depth: int
    n_steps: int
    step_size: float
    diverging: bool
    reached_max_treedepth: bool


class _Tree(NamedTuple):
    """A stretch of a trajectory.

    Attributes:
        left, right: its ends, in the order of time.
        momentum: summed over its points, (dim,).
        log_weight: log of the sum of exp(-energy), relative to where the trajectory began.
        chosen: one of its points, each as likely as its weight says.
        acceptance: sum of min(1, exp(-energy error)).
        n_steps: points.
        turning: whether it makes a U-turn.
        diverging: whether it was lost.
    """

    left: Point
    right: Point
    momentum: np.ndarray
    log_weight: float
    chosen: Point
    acceptance: float
    n_steps: int
    turning: bool = False
    diverging: bool = False


class Trajectories:
    """Trajectories of one step size and metric.

    Args:
        step_size: of the leapfrog integrator.
        metric: of the momenta.
        max_tree_depth: doublings at most.
        random: random numbers.

    References:
        Hoffman, Gelman. The No-U-turn sampler: adaptively setting path lengths in Hamiltonian Monte Carlo. 2014.
        Betancourt. A conceptual introduction to Hamiltonian Monte Carlo. 2017.
    """

    def __init__(self, step_size: float, metric: Metric, max_tree_depth: int, random: np.random.Generator) -> None:
        self.step_size, self.metric, self.max_tree_depth, self.random = step_size, metric, max_tree_depth, random
        self.energy = math.nan

    def draw(self, last: Point) -> Evaluating[tuple[Point, Statistics]]:
        """Draw the point that follows the last one of a chain.

        The trajectory goes on forwards or backwards in time, each time by as many steps as it has. Of its points,
        chosen by exp(-energy), those of the later half are preferred.
        """
        start = self.start(last)
        self.energy = start.energy
        tree = _Tree(start, start, start.momentum, 0.0, start, 0.0, 0)
        depth = 0
        while depth < self.max_tree_depth and not (tree.turning or tree.diverging):
            forwards = self.random.random() < 0.5
            grown = yield from self._grow(tree.right if forwards else tree.left, forwards, depth)
            depth += 1
            if grown.turning or grown.diverging:
                tree = grown._replace(
                    chosen=tree.chosen,
                    acceptance=tree.acceptance + grown.acceptance,
                    n_steps=tree.n_steps + grown.n_steps,
                )
            else:
                chosen = grown.chosen if self._accepts(grown.log_weight - tree.log_weight) else tree.chosen
                tree = _joined(tree, grown, chosen) if forwards else _joined(grown, tree, chosen)
        chosen = tree.chosen
        return chosen, Statistics(
            lp=chosen.log_density,
            energy=chosen.energy,
            energy_error=chosen.energy - self.energy,
            acceptance_rate=tree.acceptance / tree.n_steps,
            tree_depth=depth,
            n_steps=tree.n_steps,
            step_size=self.step_size,
            diverging=tree.diverging,
            reached_max_treedepth=not (tree.turning or tree.diverging),
        )

    def start(self, last: Point) -> Point:
        """Return a point with a new momentum, and its slope in the coordinates of this metric."""
        momentum = self.random.standard_normal(len(last.position))
        return last._replace(slope=self.metric.slope(last.gradient), momentum=momentum)

    def step(self, point: Point, step_size: float) -> Evaluating[Point]:
        """Take one leapfrog step, back in time where its size is negative."""
        momentum = point.momentum + 0.5 * step_size * point.slope
        position = point.position + step_size * self.metric.velocity(momentum)
        log_density, gradient = yield position
        if not is_finite(log_density, gradient):
            return Point(position, -math.inf, gradient, point.slope, momentum)
        slope = self.metric.slope(gradient)
        return Point(position, log_density, gradient, slope, momentum + 0.5 * step_size * slope)

    def _grow(self, end: Point, forwards: bool, depth: int) -> Evaluating[_Tree]:
        """Return the stretch of 2^depth points beyond an end, or what there is of it where the trajectory ends."""
        if depth == 0:
            return (yield from self._leaf(end, forwards))
        first = yield from self._grow(end, forwards, depth - 1)
        if first.turning or first.diverging:
            return first
        second = yield from self._grow(first.right if forwards else first.left, forwards, depth - 1)
        if second.turning or second.diverging:
            return second._replace(
                acceptance=first.acceptance + second.acceptance, n_steps=first.n_steps + second.n_steps
            )
        share = second.log_weight - np.logaddexp(first.log_weight, second.log_weight)
        chosen = second.chosen if self._accepts(share) else first.chosen
        return _joined(first, second, chosen) if forwards else _joined(second, first, chosen)

    def _leaf(self, end: Point, forwards: bool) -> Evaluating[_Tree]:
        point = yield from self.step(end, self.step_size if forwards else -self.step_size)
        error = point.energy - self.energy
        acceptance = math.exp(-max(error, 0.0))
        return _Tree(point, point, point.momentum, -error, point, acceptance, 1, False, error > DIVERGED)

    def _accepts(self, log_probability: float) -> bool:
        return math.log(1 - self.random.random()) < log_probability


def is_finite(log_density: float, gradient: np.ndarray) -> bool:
    """Whether a density and its gradient are finite."""
    return math.isfinite(log_density) and bool(np.isfinite(gradient).all())


def _joined(left: _Tree, right: _Tree, chosen: Point) -> _Tree:
    """Return two stretches as one; it turns where its whole, or a half with the next point, does."""
    momentum = left.momentum + right.momentum
    turning = (
        _turns(left.left, right.right, momentum)
        or _turns(left.left, right.left, left.momentum + right.left.momentum)
        or _turns(left.right, right.right, right.momentum + left.right.momentum)
    )
    return _Tree(
        left.left,
        right.right,
        momentum,
        float(np.logaddexp(left.log_weight, right.log_weight)),
        chosen,
        left.acceptance + right.acceptance,
        left.n_steps + right.n_steps,
        turning,
    )


def _turns(left: Point, right: Point, momentum: np.ndarray) -> bool:
    return float(left.momentum @ momentum) <= 0 or float(right.momentum @ momentum) <= 0
