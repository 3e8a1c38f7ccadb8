"""Simple statistics of a head, and whether those of the data lie orders of magnitude beyond those of draws."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

EXPLODED = 1e30  # what leaves the range of numbers counts as this
BEYOND = 10.0  # how far data are larger than all draws, as a ratio
BELOW = 100.0  # or smaller: priors that are too wide do little harm
WIDTHS = 10.0  # and of a mean that may have either sign, in widths of their range
SPREADS = 3.0  # and in standard deviations of data and draws


class Reach(NamedTuple):
    """One statistic of one head: of the data, and of draws of data.

    Attributes:
        statistic: its name.
        observed: of the data.
        drawn: of every draw, (sample,).
        place: the same on the scale on which they are compared, the data's first, (1 + sample,).
        above, below: how far above and below all draws, on that scale, is far; infinite for never.
        widths: how far beyond them in widths of their range is far.
        near: draws that are not far all the same, (sample,).
    """

    statistic: str
    observed: float
    drawn: Tensor
    place: Tensor
    above: float = math.log(BEYOND)
    below: float = math.log(BELOW)
    widths: float = 1.0
    near: Tensor | None = None

    def distance(self, count: int | None = None) -> float:
        """Return how far the data lie beyond the first draws (all by default); 0 where that is not far."""
        value, draws = float(self.place[0]), self.place[1:][:count]
        low, high = float(draws.min()), float(draws.max())
        gap, least = (value - high, self.above) if value > high else (low - value, self.below)
        near = self.near is not None and bool(self.near[:count].any())
        return gap if not near and gap > max(least, self.widths * (high - low)) else 0.0

    def from_middle(self, first: int) -> float:
        """Return how far the data lie from the middle one of the draws from `first` on."""
        return float((self.place[0] - self.place[1 + first :].median()).abs())


def reaches(observed: Tensor, drawn: Tensor, mask: Tensor, *, whole: bool) -> list[Reach]:
    """Return the statistics of a head: mean, standard deviation, largest absolute value and share of zeros.

    Args:
        observed: (*layout, channel).
        drawn: (sample, *layout, channel).
        mask: which entries count, like `observed`; at least one.
        whole: whether values are whole numbers, of which a finite sample may show none.
    """
    both = torch.cat([observed.unsqueeze(0).to(drawn), drawn]).double()
    both = both.nan_to_num(nan=EXPLODED, posinf=EXPLODED, neginf=-EXPLODED).clamp(-EXPLODED, EXPLODED)
    both, weight = both.flatten(1, -2), mask.flatten(0, -2).double()
    both = both * weight
    exploded = both.abs().amax((1, 2)) >= EXPLODED  # draws that left the range of numbers, and vary as widely
    count = float(weight.sum())
    total = both.sum((1, 2))
    mean = total / count
    spread = (((both - mean[:, None, None]) ** 2 * weight).sum((1, 2)) / count).sqrt()
    level = (both.sum(1) / weight.sum(0).clamp_min(1.0)).unsqueeze(1)
    within = ((both - level) ** 2 * weight).sum((1, 2)) / count
    within = torch.where(exploded, EXPLODED**2, within)
    largest = both.abs().amax((1, 2))
    zeros = ((both == 0) & (weight > 0)).double().sum((1, 2))
    unseen = 0.5 if whole else 0.0
    found = []
    if bool((both >= 0).all()):
        found.append(_on_logs("mean", mean, (total + unseen) / count))
    else:
        apart = (mean[1:] - mean[0]).abs() / torch.maximum(spread[1:], spread[0]).clamp_min(1e-300)
        found.append(Reach("mean", float(mean[0]), mean[1:], mean, 0.0, 0.0, WIDTHS, (apart <= SPREADS) | exploded[1:]))
    if whole or float(within[0]) > 0:
        found.append(_on_logs("standard deviation", within.sqrt(), (within + unseen / count).sqrt()))
        found.append(_on_logs("largest absolute value", largest, largest + unseen)._replace(below=math.inf))
    if bool((zeros > 0).any()):
        odds = (zeros + 0.5) / (count - zeros + 0.5)
        few, many = math.log(BEYOND), math.log(BELOW)  # few zeros are large data
        found.append(_on_logs("share of zeros", zeros / count, odds)._replace(above=many, below=few))
    return found


def _on_logs(name: str, values: Tensor, positive: Tensor) -> Reach:
    return Reach(name, float(values[0]), values[1:], positive.clamp_min(1e-300).log())
