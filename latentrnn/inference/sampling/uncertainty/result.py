"""What is known of quantities that follow from what was learned: values, standard deviations, intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from latentrnn.inference.sampling.uncertainty.directions import Direction
from latentrnn.inference.sampling.uncertainty.quantities import Entries, Layout
from latentrnn.support.arguments import check_number
from latentrnn.support.notebooks import ShownInNotebooks

if TYPE_CHECKING:
    import pandas

SHOWN = 3  # entries that a line shows


@dataclass(frozen=True)
class Remaining:
    """What kept the point at which a curvature was taken from being a mode.

    Attributes:
        steps: Newton steps from where the fit stopped.
        rise: of the log density on the way, nats.
        gain: what a further step would still gain, nats, by the expansion at the point.
        slope: length of the gradient, nats, each weight in the unit in which its own curvature is one.
        lowest: the smallest curvature of minus the log density as a share of the largest; negative where it is no mode.
        shift: the largest change of an entry of the quantity that the further step would make, in its standard
            deviations.
    """

    steps: int
    rise: float
    gain: float
    slope: float
    lowest: float
    shift: float


@dataclass(frozen=True, eq=False, repr=False)
class Uncertainty(ShownInNotebooks):
    """The uncertainty of a quantity that follows from what was learned, in the quantity's own units.

    `mean`, `sd` and `interval` have the form in which the quantity came: a tensor, or a dict of tensors.

    Attributes:
        how: "laplace", "bootstrap" or "ensemble".
        entries: the name of every number of the quantity, in order.
        units: of every entry, in words, where it is a parameter of the model with a unit; "" elsewhere.
        covariance: of all entries, (entry, entry).
        draws: the quantity of every refit or member, (draw, entry); None for "laplace".
        member_weights: of the draws, (draw,), adding up to one; None for "laplace".
        flat_directions: combinations of weights on which the density does not depend, by name; of many weights (see
            `uncertainty`) those along which the quantity moves.
        negative_directions: those along which it rises from where it was taken, which is then no mode.
        notes: of every entry, why it has no standard deviation, or "".
        remaining: what kept the point from being a mode; None but for "laplace".
        conditional_on: what the standard deviations take as known, in words; None where nothing is.
        seed: of whatever was drawn.
    """

    how: str
    entries: tuple[str, ...]
    units: tuple[str, ...]
    covariance: Tensor
    draws: Tensor | None
    member_weights: Tensor | None
    flat_directions: tuple[Direction, ...]
    negative_directions: tuple[Direction, ...]
    notes: tuple[str, ...]
    remaining: Remaining | None
    conditional_on: str | None
    seed: int
    _means: Tensor
    _support: Entries
    _layout: Layout

    @property
    def mean(self) -> Any:
        """The quantity at the mode ("laplace"), or its mean over refits or members."""
        return self._layout.given(self._means)

    @property
    def sd(self) -> Any:
        """Standard deviations: infinite where the data leave an entry open, NaN where the curvature says nothing."""
        return self._layout.given(self._sd)

    @property
    def _sd(self) -> Tensor:
        return self.covariance.diagonal().clone().clamp_min(0.0).sqrt()

    def interval(self, level: float = 0.9) -> tuple[Any, Any]:
        """Return lower and upper ends of central intervals, each in the form in which the quantity came.

        Of "laplace", by a Normal on the scale of `transform`: the logarithm for what is positive, the log-odds for what
        has two ends. Of "bootstrap", quantiles of the refits. Of "ensemble", where the fit of another seed would lie,
        by a t distribution on that scale.

        Args:
            level: probability inside, between 0 and 1.

        Raises:
            ValueError: a level out of range, or one for which there are too few refits.

        References:
            Efron, Tibshirani. An introduction to the bootstrap. 1993.
        """
        low, high = self._ends(check_number("interval", "level", level, above=0, below=1))
        return self._layout.given(low), self._layout.given(high)

    def _ends(self, level: float) -> tuple[Tensor, Tensor]:
        tail = (1 - level) / 2
        if self.how == "bootstrap":
            assert self.draws is not None
            needed = math.ceil(1 / tail - 1e-9)
            if len(self.draws) < needed:
                raise ValueError(
                    f"interval: at level {level:g} the bootstrap needs at least {needed} refits, one beyond each end; "
                    f"found {len(self.draws)}"
                )
            low, high = torch.quantile(self.draws, torch.tensor([tail, 1 - tail], dtype=self.draws.dtype), dim=0)
            is_open = self._sd.isinf()
            return torch.where(is_open, self._support.low, low), torch.where(is_open, self._support.high, high)
        factor = float(torch.special.ndtri(torch.tensor(1 - tail, dtype=torch.float64)))
        if self.how == "ensemble":
            from scipy.stats import t

            assert self.member_weights is not None
            members = 1 / float(self.member_weights.square().sum())
            factor = float(t.ppf(1 - tail, members - 1)) * (1 + 1 / members) ** 0.5 if members > 1 else torch.nan
        return normal_ends(self._means, self._sd, factor, self._support)

    def summary(self, level: float = 0.9) -> pandas.DataFrame:
        """Return a data frame with a row for each entry: mean, sd, the ends of an interval, unit and note.

        Args:
            level: of the interval.
        """
        from latentrnn.support.whole_table import WholeTable

        low, high = self._ends(check_number("summary", "level", level, above=0, below=1))
        columns = {
            "mean": self._means, "sd": self._sd, f"{100 * (1 - level) / 2:g}%": low, f"{50 + 50 * level:g}%": high
        }  # fmt: skip
        numbers = {name: value.numpy() for name, value in columns.items()}
        return WholeTable({**numbers, "unit": list(self.units), "note": list(self.notes)}, index=list(self.entries))

    def _shown(self) -> tuple[list[str], list[Any]]:
        return [repr(self)], [self.summary()]

    def __repr__(self) -> str:
        values = zip(self.entries, self._means.tolist(), self._sd.tolist(), self.units, strict=True)
        shown = [f"{name} {mean:.4g} +- {sd:.2g}{f' {unit}' if unit else ''}" for name, mean, sd, unit in values]
        more = f" and {len(shown) - SHOWN} more" if len(shown) > SHOWN else ""
        parts = [f"{self.how}: {', '.join(shown[:SHOWN])}{more}"]
        if self.draws is not None:
            parts.append(f"{len(self.draws)} {'refits' if self.how == 'bootstrap' else 'members'}")
        for directions, what in ((self.flat_directions, "flat"), (self.negative_directions, "negative")):
            if count := len(directions):
                parts.append(f"{count} {what} direction{'s' if count > 1 else ''}")
        if self.conditional_on:
            parts.append(f"conditional on {self.conditional_on}")
        return f"Uncertainty({'; '.join(parts)})"


def normal_ends(means: Tensor, sds: Tensor, factor: float, support: Entries) -> tuple[Tensor, Tensor]:
    """Return mean -+ factor * sd on the scale on which the support is the real line, (entry,).

    A value's sd there is, by the delta method, the sd over the derivative of the way back.
    """
    low, high = [], []
    ends = zip(means.tolist(), sds.tolist(), support.low.tolist(), support.high.tolist(), strict=True)
    for mean, sd, least, most in ends:
        found = _ends(mean, factor * sd, least, most)
        low.append(found[0])
        high.append(found[1])
    return torch.tensor(low, dtype=torch.float64), torch.tensor(high, dtype=torch.float64)


def _ends(mean: float, reach: float, least: float, most: float) -> tuple[float, float]:
    if reach != reach:  # NaN
        return reach, reach
    if reach == torch.inf:
        return least, most
    open_below, open_above = least == -torch.inf, most == torch.inf
    if open_below and open_above:
        return mean - reach, mean + reach
    value = torch.tensor(mean, dtype=torch.float64)
    if open_above:
        factor = torch.tensor(reach / (mean - least), dtype=torch.float64).exp()
        return _pair(least + (value - least) / factor, least + (value - least) * factor)
    if open_below:
        factor = torch.tensor(reach / (most - mean), dtype=torch.float64).exp()
        return _pair(most - (most - value) * factor, most - (most - value) / factor)
    share = (value - least) / (most - least)
    step = reach / ((most - least) * share * (1 - share))
    ends = [least + (most - least) * torch.sigmoid(torch.logit(share) + sign * step) for sign in (-1, 1)]
    return _pair(*ends)


def _pair(low: Tensor, high: Tensor) -> tuple[float, float]:
    return float(low), float(high)


def describe(directions: Sequence[Direction]) -> str:
    """Return directions in words, one after the other."""
    return "; ".join(map(str, directions))
