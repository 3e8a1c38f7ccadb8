"""What is learnt before draws are kept: the step size, and when the metric."""

from __future__ import annotations

import math

SHORTEST, LAST = 10, 50  # draws before the metric is first learnt, and at most after it is last
EARLY, GROWTH = 0.3, 1.5  # share of the warm-up in which windows stay short, and by how much they grow after it


class StepSize:
    """A step size whose acceptance rate comes to be the one that is wanted, by dual averaging.

    Args:
        start: the first step size.
        target: acceptance rate.

    References:
        Hoffman, Gelman. The No-U-turn sampler: adaptively setting path lengths in Hamiltonian Monte Carlo. 2014.
    """

    SHRINKAGE, DELAY, FORGETTING = 0.05, 10.0, 0.75  # gamma, t_0 and kappa of the reference

    def __init__(self, start: float, target: float) -> None:
        self.current, self.target = start, target
        self.centre = math.log(10 * start)
        self.count, self.error, self.log_average = 0, 0.0, math.log(start)

    def update(self, acceptance_rate: float) -> None:
        """Learn from the acceptance rate of one draw."""
        self.count += 1
        self.error += (self.target - acceptance_rate - self.error) / (self.count + self.DELAY)
        log_step = self.centre - math.sqrt(self.count) / self.SHRINKAGE * self.error
        self.log_average += self.count**-self.FORGETTING * (log_step - self.log_average)
        self.current = math.exp(log_step)

    @property
    def averaged(self) -> float:
        """The step size to go on with."""
        return math.exp(self.log_average)


def window_ends(warmup: int) -> list[int]:
    """Return after how many draws the metric is learnt.

    Windows are short at first, while the way to the bulk of the density is soon out of date, then grow, and the last
    draws are the step size's alone.

    Example:
        >>> window_ends(150)
        [10, 20, 30, 40, 50, 65, 113]
    """
    last = warmup - min(LAST, max(1, warmup // 4))
    ends: list[int] = []
    length = float(SHORTEST)
    while (end := sum(ends[-1:]) + int(length)) <= last:
        ends.append(end)
        length *= GROWTH if end > EARLY * warmup else 1.0
    if ends:  # what is left makes the last window longer
        ends[-1] = last
    return ends
