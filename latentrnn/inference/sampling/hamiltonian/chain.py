"""A Markov chain that yields the positions at which it needs the density, so that several are evaluated at once."""

from __future__ import annotations

import math

import numpy as np

from latentrnn.inference.sampling.hamiltonian.metric import Metric
from latentrnn.inference.sampling.hamiltonian.trajectory import Evaluated, Evaluating, Point, Statistics, Trajectories
from latentrnn.inference.sampling.hamiltonian.warmup import StepSize, window_ends

EARLY_DEPTH = 6  # of trees, until the last time that the metric is learnt
FIRST_SLOPES = 1e-10, 1e10  # gradients at the start that are taken to tell of a scale, the smallest and the largest


class Chain:
    """A chain of draws of one density.

    Args:
        start: its first position, (dim,).
        num_samples: draws to keep.
        warmup: draws before them.
        target_acceptance: acceptance rate to which the step size is adapted.
        max_tree_depth: doublings of a trajectory at most.
        random: its own random numbers.

    Attributes:
        positions: of the draws that are kept, (draw, dim).
        statistics: of each of them.
        count: of all draws so far.
    """

    def __init__(
        self,
        start: np.ndarray,
        *,
        num_samples: int,
        warmup: int,
        target_acceptance: float,
        max_tree_depth: int,
        random: np.random.Generator,
    ) -> None:
        self.start, self.num_samples, self.warmup = start, num_samples, warmup
        self.target_acceptance, self.max_tree_depth, self.random = target_acceptance, max_tree_depth, random
        self.positions = np.empty((num_samples, len(start)))
        self.statistics: list[Statistics] = []
        self.count = 0
        self.step_size = 1.0
        self.metric = Metric.diagonal(np.ones_like(start))

    def run(self) -> Evaluating[None]:
        """Run the chain; it is sent the density at every position that it yields."""
        evaluated: Evaluated = yield self.start
        point = yield from self._adapt(Point(self.start, *evaluated, self.start, self.start))
        trajectories = self._trajectories(self.step_size)
        for number in range(self.num_samples):
            point, statistics = yield from trajectories.draw(point)
            self.positions[number] = point.position
            self.statistics.append(statistics)
            self.count += 1

    def _trajectories(self, step_size: float, max_tree_depth: int | None = None) -> Trajectories:
        return Trajectories(step_size, self.metric, max_tree_depth or self.max_tree_depth, self.random)

    def _adapt(self, point: Point) -> Evaluating[Point]:
        """Learn step size and metric, and return the last point on the way.

        The metric begins with what the gradient tells of scales. It is learnt anew from the points of ever longer
        windows, after each of which the step size is too; until the last of these trajectories are short, since under
        a poor metric those that turn are long.
        """
        scales = np.abs(point.gradient).clip(*FIRST_SLOPES) ** -0.5
        self.metric = Metric.diagonal(scales)
        learner = StepSize((yield from self._reasonable_step(point, 1.0)), self.target_acceptance)
        begin, ends = 0, window_ends(self.warmup)
        for number, end in enumerate(ends):
            depth = self.max_tree_depth if end == ends[-1] else min(EARLY_DEPTH, self.max_tree_depth)
            points = yield from self._explore(point, learner, end - begin, depth)
            point, begin = points[-1], end
            # the first ones are on the way from the start
            self.metric = _estimated(points if number else points[len(points) // 2 :])
            learner = StepSize((yield from self._reasonable_step(point, learner.averaged)), self.target_acceptance)
        points = yield from self._explore(point, learner, self.warmup - begin, self.max_tree_depth)
        self.step_size = learner.averaged
        return points[-1]

    def _explore(self, point: Point, learner: StepSize, count: int, max_tree_depth: int) -> Evaluating[list[Point]]:
        """Return the points of further draws, from which the step size is learnt."""
        points = []
        for _ in range(count):
            point, statistics = yield from self._trajectories(learner.current, max_tree_depth).draw(point)
            learner.update(statistics.acceptance_rate)
            points.append(point)
            self.count += 1
        return points

    def _reasonable_step(self, point: Point, size: float) -> Evaluating[float]:
        """Return a step size, a power of two times the given one, at which a step is about to be accepted, or not.

        References:
            Hoffman, Gelman. The No-U-turn sampler, algorithm 4. 2014.
        """
        trajectories = self._trajectories(size)
        factor = 0.0
        while True:
            start = trajectories.start(point)
            end = yield from trajectories.step(start, size)
            direction = 2.0 if end.energy - start.energy < -math.log(self.target_acceptance) else 0.5
            if factor not in (0.0, direction) or not 1e-12 < size < 1e12:
                return size
            factor, size = direction, size * direction


def _estimated(points: list[Point]) -> Metric:
    return Metric.estimated(np.stack([p.position for p in points]), np.stack([p.gradient for p in points]))
