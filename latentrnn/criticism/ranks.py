"""Ranks of true values among posterior draws: uniform if the draws are right, with exact tests of that."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from latentrnn.data.ingest.plain_numbers import to_tensor
from latentrnn.plotting.simulation_based import coverage as draw_coverage
from latentrnn.plotting.simulation_based import rank_ecdf as draw_rank_ecdf
from latentrnn.support.arguments import check_number, check_seed
from latentrnn.support.isolation import generator as generator_of
from latentrnn.support.notebooks import ShownInNotebooks

if TYPE_CHECKING:
    import pandas
    from matplotlib.axes import Axes

LARGEST_GRID = 50  # points at which a distribution of ranks is compared with the uniform one
NEGLIGIBLE = 1e-9  # below it, rounding hides how far a probability is from one

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Coverage(ShownInNotebooks):
    """How often central intervals held the true value; one row per level, one column per quantity.

    Attributes:
        names: of the quantities.
        level: nominal probability, exact for the number of draws, (level,).
        covered: intervals that held the truth, (level, quantity).
        num_simulations: intervals in all.
        bounds: least and most that a right posterior leaves with probability 1 - `error`, (level, 2).
        error: probability with which a right posterior is outside, for one level and quantity.
    """

    names: tuple[str, ...]
    level: Tensor
    covered: Tensor
    num_simulations: int
    bounds: Tensor
    error: float

    @property
    def rate(self) -> Tensor:
        """Share of the intervals that held the truth, (level, quantity)."""
        return self.covered / self.num_simulations

    @property
    def within(self) -> Tensor:
        """Whether the count is inside the binomial bounds, (level, quantity)."""
        return (self.covered >= self.bounds[:, :1]) & (self.covered <= self.bounds[:, 1:])

    def to_dataframe(self) -> pandas.DataFrame:
        """A row for each quantity and level: its nominal probability, the share found, and the bounds of that share."""
        import pandas

        low, high = (self.bounds / self.num_simulations).T
        columns = {"level": self.level, "rate": None, "lower": low, "upper": high, "within": None}
        parts = []
        for column, name in enumerate(self.names):
            values = columns | {"rate": self.rate[:, column], "within": self.within[:, column]}
            frame = pandas.DataFrame({key: value.cpu().numpy() for key, value in values.items() if value is not None})
            frame.insert(0, "quantity", name)
            parts.append(frame)
        return pandas.concat(parts, ignore_index=True)

    def plot(self, *, ax: Axes | None = None) -> Axes:
        """Draw shares against nominal levels, see `latentrnn.plotting.coverage`."""
        return draw_coverage(self, ax=ax)

    def __repr__(self) -> str:
        wrong = int((~self.within).sum())
        return (
            f"Coverage({len(self.level)} levels of {len(self.names)} quantities, {self.num_simulations} intervals; "
            f"{wrong} outside their bounds)"
        )

    def __str__(self) -> str:
        lines = [f"coverage of {self.num_simulations} central intervals, bounds at error {self.error:.2g}"]
        for row, level in enumerate(self.level.tolist()):
            low, high = (self.bounds[row] / self.num_simulations).tolist()
            for column, name in enumerate(self.names):
                mark = "" if self.within[row, column] else "  <- outside"
                rate = float(self.rate[row, column])
                lines.append(f"{name:<28} nominal {level:.3f}  found {rate:.3f}  [{low:.3f}, {high:.3f}]{mark}")
        return "\n".join(lines)


@dataclass(frozen=True)
class Calibration(ShownInNotebooks):
    """Ranks of true values among posterior draws, one row per simulation and one column per quantity.

    With L draws every rank 0, ..., L has probability 1 / (L + 1) if the posterior is right. Ranks that pile up at both
    ends mean a posterior that is too narrow, in the middle one that is too wide, at one end a shifted one.

    Attributes:
        names: of the quantities.
        ranks: draws below the truth, ties broken at random, (simulation, quantity).
        num_draws: L.

    References:
        Talts, Betancourt, Simpson, Vehtari, Gelman. Validating Bayesian inference algorithms with simulation-based
        calibration. 2018.
        Säilynoja, Bürkner, Vehtari. Graphical test for discrete uniformity and its applications in goodness of fit
        evaluation and multiple sample comparison. 2022.
    """

    names: tuple[str, ...]
    ranks: Tensor
    num_draws: int

    def __repr__(self) -> str:
        count = len(self.names)
        return f"Calibration({self.num_simulations} simulations, {count} quantities, {self.num_draws} draws each)"

    @property
    def num_simulations(self) -> int:
        """Number of simulations, each of which gives one rank per quantity."""
        return len(self.ranks)

    @cached_property
    def p_value(self) -> Tensor:
        """Exact p-values of uniform ranks, (quantity,).

        The statistic is the smallest two-sided binomial tail probability of the empirical distribution over a grid,
        as in the simultaneous bands of Säilynoja et al.; its distribution comes from a recursion over the grid.
        """
        grid, counts = self._counts()
        return torch.tensor([_p_value(self.num_simulations, grid, tuple(column)) for column in counts.T.tolist()])

    @cached_property
    def chi2_p_value(self) -> Tensor:
        """P-values of Pearson's chi-squared over bins of equal width with 5 or more ranks expected, (quantity,)."""
        from scipy.stats import chi2

        bins = max(2, min(20, self.num_draws + 1, self.num_simulations // 5))
        edges = np.linspace(0, self.num_draws + 1, bins + 1).round()
        expected = np.diff(edges) / (self.num_draws + 1) * self.num_simulations
        found = np.stack([np.histogram(column, edges - 0.5)[0] for column in self.ranks.T.numpy()])
        statistic = ((found - expected) ** 2 / expected).sum(1)
        return torch.as_tensor(chi2.sf(statistic, bins - 1))

    @property
    def global_p_value(self) -> float:
        """Probability bound, were all posteriors right, of a quantity as improbable as the worst (Bonferroni)."""
        return min(1.0, len(self.names) * float(self.p_value.min()))

    def bands(self, level: float = 0.95) -> tuple[Tensor, Tensor, Tensor]:
        """Return grid, lower and upper bound of the whole empirical distribution of a right posterior's ranks.

        Args:
            level: probability with which all of it lies inside.
        """
        level = check_number("bands", "level", level, above=0, below=1)
        grid, _ = self._counts()
        low, high = _band_counts(self.num_simulations, grid, _critical(self.num_simulations, grid, level))
        low, high = low / self.num_simulations, high / self.num_simulations
        return torch.tensor(grid, dtype=torch.float64), torch.as_tensor(low), torch.as_tensor(high)

    def empirical(self) -> Tensor:
        """Return the empirical distribution of the ranks at the points of `bands`, (point, quantity)."""
        return torch.as_tensor(self._counts()[1] / self.num_simulations)

    def coverage(self, levels: Sequence[float] = (0.5, 0.8, 0.9, 0.95), *, error: float = 0.05) -> Coverage:
        """Return how often central intervals held the truth, with exact binomial bounds.

        An interval leaves out k draws at either end, so that its level is (L + 1 - 2 k) / (L + 1), exactly: the level
        that is reported is the nearest one to what was asked for.

        Args:
            levels: nominal probabilities.
            error: probability that a right posterior is outside the bounds at one level of one quantity.

        Raises:
            ValueError: a level or error that is not a probability.
        """
        from scipy.stats import binom

        error = check_number("coverage", "error", error, above=0, below=1)
        wanted = to_tensor("coverage: levels", levels).double()
        if wanted.dim() != 1 or not wanted.numel() or not bool(((wanted > 0) & (wanted < 1)).all()):
            raise ValueError(f"coverage: levels must be numbers between 0 and 1; found {wanted.tolist()}")
        total = self.num_draws + 1
        spare = [min(round(total * (1 - level) / 2), (total - 1) // 2) for level in wanted.tolist()]
        nominal = [(total - 2 * k) / total for k in spare]
        covered = torch.stack([((self.ranks >= k) & (self.ranks <= self.num_draws - k)).sum(0) for k in spare])
        bounds = np.array([binom.ppf([error / 2, 1 - error / 2], self.num_simulations, p) for p in nominal])
        return Coverage(
            self.names, torch.tensor(nominal), covered, self.num_simulations, torch.as_tensor(bounds).long(), error
        )

    def plot(self, *, ax: Axes | None = None, level: float = 0.95) -> Axes:
        """Draw the empirical distributions of ranks within their bands, see `latentrnn.plotting.rank_ecdf`."""
        return draw_rank_ecdf(self, level=level, ax=ax)

    def __str__(self) -> str:
        lines = [
            f"calibration, {self.num_simulations} simulations, ranks among {self.num_draws} draws",
            f"{'quantity':<28} {'mean rank':>9} {'spread':>7} {'p':>9} {'p chi2':>9}",
        ]
        scaled = (self.ranks + 0.5) / (self.num_draws + 1)
        # of a uniform distribution the mean is 0.5 and the standard deviation 12^-1/2, shown as 1
        spread = scaled.std(0) * 12**0.5
        for column, name in enumerate(self.names):
            lines.append(
                f"{name:<28} {float(scaled[:, column].mean()):>9.3f} {float(spread[column]):>7.3f} "
                f"{float(self.p_value[column]):>9.2g} {float(self.chi2_p_value[column]):>9.2g}"
            )
        return "\n".join([*lines, f"global p-value {self.global_p_value:.2g}"])

    def _counts(self) -> tuple[tuple[float, ...], NDArray[np.int64]]:
        """Return the grid of probabilities, and how many ranks lie below each point, (point, quantity)."""
        points = np.unique(np.linspace(1, self.num_draws, min(LARGEST_GRID, self.num_draws)).round().astype(int))
        below = (self.ranks.numpy()[None] < points[:, None, None]).sum(1)
        return tuple((points / (self.num_draws + 1)).tolist()), below


def rank_calibration(truth: Mapping[str, Tensor], draws: Mapping[str, Tensor], *, seed: int = 0) -> Calibration:
    """Return the ranks of true values among independent posterior draws of them.

    Args:
        truth: per quantity, (simulation,).
        draws: per quantity, (draw, simulation).
        seed: of the order of ties.

    Raises:
        ValueError: other quantities or shapes in the one than in the other, or a value that is not a number.
    """
    for argument, given in (("truth", truth), ("draws", draws)):
        if not isinstance(given, Mapping):
            found = type(given).__name__
            raise TypeError(f"rank_calibration: {argument} must be a dict of quantity to values; found {found}")
    seed = check_seed("rank_calibration", seed)
    if not truth or set(truth) != set(draws):
        raise ValueError(f"rank_calibration: expected draws of {list(truth)}; found {list(draws)}")
    generator = generator_of(seed)
    columns = []
    for name, value in truth.items():
        where = f"rank_calibration: {name!r}"
        value, drawn = (to_tensor(where, part).double() for part in (value, draws[name]))
        if value.dim() != 1 or drawn.dim() != 2 or drawn.shape[1:] != value.shape or not drawn.numel():
            raise ValueError(
                f"rank_calibration: {name!r} must be (simulation,) with draws (draw, simulation); "
                f"found {tuple(value.shape)} and {tuple(drawn.shape)}"
            )
        if bool(value.isnan().any() | drawn.isnan().any()):
            raise ValueError(f"rank_calibration: {name!r} holds values that are not numbers")
        ties = (drawn == value).sum(0)
        order = (torch.rand(value.shape, generator=generator, dtype=torch.float64) * (ties + 1)).long()
        columns.append((drawn < value).sum(0) + order)
    lengths = {len(to_tensor(name, draws[name])) for name in truth}
    if len(lengths) > 1 or len({len(column) for column in columns}) > 1:
        raise ValueError("rank_calibration: all quantities need the same number of draws and of simulations")
    return Calibration(tuple(truth), torch.stack(columns, 1), lengths.pop())


# -- the exact distribution of an empirical distribution within bounds ---------------------------------------------


def _tails(number: int, grid: tuple[float, ...], counts: Array) -> Array:
    """Two-sided binomial tail probabilities of counts, (point, ...)."""
    from scipy.stats import binom

    points = np.array(grid).reshape(-1, *[1] * (counts.ndim - 1))
    return np.minimum(1.0, 2 * np.minimum(binom.cdf(counts, number, points), binom.sf(counts - 1, number, points)))


def _p_value(number: int, grid: tuple[float, ...], counts: tuple[int, ...]) -> float:
    smallest = float(_tails(number, grid, np.array(counts)).min())
    bound = len(grid) * smallest
    if bound < NEGLIGIBLE:
        return bound
    # the statistic is discrete: as extreme as observed, or more
    return min(1.0, max(1 - _inside(number, grid, *_band_counts(number, grid, smallest * (1 + 1e-9))), smallest))


def _band_counts(number: int, grid: tuple[float, ...], tail: float) -> tuple[Array, Array]:
    """Least and most counts at every point whose tail probability is `tail` or more (above it, for an observed one)."""
    tails = _tails(number, grid, np.arange(number + 1.0)[None].repeat(len(grid), 0)) >= tail
    return tails.argmax(1), number - tails[:, ::-1].argmax(1)


@lru_cache(maxsize=64)
def _critical(number: int, grid: tuple[float, ...], level: float) -> float:
    """The pointwise tail probability at which the whole distribution is inside with probability `level`."""
    low, high = math.log((1 - level) / len(grid) / 2), math.log(1 - level)
    for _ in range(30):
        middle = (low + high) / 2
        if _inside(number, grid, *_band_counts(number, grid, math.exp(middle))) >= level:
            low = middle
        else:
            high = middle
    return math.exp(low)


def _inside(number: int, grid: tuple[float, ...], low: Array, high: Array) -> float:
    """Probability that counts of `number` uniform values below every point of the grid are within bounds."""
    factorial = np.concatenate([[0.0], np.log(np.arange(1, number + 1)).cumsum()])
    probability, counts, before = np.ones(1), np.zeros(1, dtype=int), 0.0
    for point, least, most in zip(grid, low.astype(int), high.astype(int), strict=True):
        if most < least:
            return 0.0
        share = (point - before) / (1 - before)
        after = np.arange(least, most + 1)
        left, more = number - counts[:, None], after[None] - counts[:, None]
        rest = left - more
        possible = more >= 0
        more, rest = np.where(possible, more, 0), np.where(possible, rest, 0)
        log_pmf = factorial[left] - factorial[more] - factorial[rest]
        log_pmf = log_pmf + more * math.log(share) + rest * math.log1p(-share)
        probability = probability @ np.exp(np.where(possible, log_pmf, -np.inf))
        counts, before = after, point
    return float(probability.sum())
