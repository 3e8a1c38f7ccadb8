"""Scores of predictions that are given as samples: proper scores and the coverage of their intervals."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from latentrnn.data.ingest.plain_numbers import to_tensor
from latentrnn.support.arguments import check_flag, check_number


def crps(samples: Any, observed: Any, mask: Any = None, *, fair: bool = True) -> Tensor:
    """Continuous ranked probability score of every entry, in the data's units; smaller is better.

        CRPS = mean_i |x_i - y| - 1/2 mean_{i,j} |x_i - x_j|

    Of a single sample it is the absolute error. The fair version leaves the pairs i = j out of the second mean, so
    that its expectation does not depend on the number of samples.

    Args:
        samples: (sample, sequence, time, channel).
        observed: (sequence, time, channel); NaN is missing.
        mask: booleans in the shape of `observed`, True where there is something to score.
        fair: whether the estimate is unbiased.

    Returns:
        (sequence, time, channel), NaN where nothing was observed or predicted; `.nanmean()` is the score.

    Raises:
        ValueError: shapes that differ.

    References:
        Gneiting, Raftery. Strictly proper scoring rules, prediction, and estimation. 2007.
        Ferro. Fair scores for ensemble forecasts. 2014.

    >>> crps(torch.tensor([0.0, 1.0]).reshape(2, 1, 1, 1), torch.tensor([[[0.5]]])).item()
    0.0
    >>> crps(torch.tensor([3.0]).reshape(1, 1, 1, 1), torch.tensor([[[0.5]]])).item()
    2.5
    """
    fair = check_flag("crps", "fair", fair)
    drawn, values = aligned_samples(samples, observed, mask)
    count = len(drawn)
    error = (drawn - values).abs().mean(0)
    if count == 1:
        return error
    # sum over pairs of |x_i - x_j| = 2 sum_i (2 i - count - 1) x_(i), the samples in order, i = 1..count
    ordered = drawn.sort(0).values
    weight = 2 * torch.arange(1, count + 1, dtype=drawn.dtype) - count - 1
    pairs = 2 * torch.einsum("s,s...->...", weight, ordered)
    return error - 0.5 * pairs / (count * (count - 1 if fair else count))


def coverage(samples: Any, observed: Any, mask: Any = None, *, level: float = 0.9) -> Tensor:
    """Whether every entry lies in the central interval of its samples; `.nanmean()` should be `level`.

    Of S samples the interval from the k-th to the k-th last holds a new value with probability (S + 1 - 2 k) / (S + 1),
    exactly, whatever the distribution. Where `level` lies between two of these, what is interpolated is membership, not
    the end of the interval: an entry that lies in the wider one alone counts with the share that makes the average
    `level` for any number of samples (beyond the outermost samples it has that of the whole line). Ends interpolated
    between samples would cover too little: 0.81 of nominal 0.9 at 20 samples. The ends belong to the interval, so that
    of counts it covers at least as much.

    Args:
        samples: (sample, sequence, time, channel).
        observed: (sequence, time, channel); NaN is missing.
        mask: booleans in the shape of `observed`, True where there is something to score.
        level: probability of the interval.

    Returns:
        (sequence, time, channel), 1.0 inside, 0.0 outside, between the two where an end lies between samples, NaN where
        nothing was observed or predicted.

    Raises:
        ValueError: shapes that differ, or a level outside (0, 1).

    References:
        Hyndman, Fan. Sample quantiles in statistical packages. 1996.
    """
    level = check_number("coverage", "level", level, above=0, below=1)
    drawn, values = aligned_samples(samples, observed, mask)
    count = len(drawn)
    spare = (count + 1) * (1 - level) / 2  # order statistics to be left out at either end
    wider = min(math.floor(spare), count // 2)
    narrower = wider + 1
    ordered = drawn.sort(0).values

    def inside(k: int) -> Tensor:
        if k == 0:
            return torch.ones_like(values)
        if 2 * k > count + 1:  # fewer samples than it would leave out
            return torch.zeros_like(values)
        return ((values >= ordered[k - 1]) & (values <= ordered[count - k])).to(values.dtype)

    outer, inner = ((count + 1 - 2 * k) / (count + 1) if 2 * k <= count + 1 else 0.0 for k in (wider, narrower))
    share = min(max((level - inner) / (outer - inner), 0.0), 1.0)
    found = share * inside(wider) + (1 - share) * inside(narrower)
    return torch.where(values.isnan() | ordered[0].isnan() | ordered[-1].isnan(), torch.nan, found)


def quantiles(samples: Tensor, probabilities: Any) -> Tensor:
    """Return quantiles of samples, (quantile, ...); `samples` is (sample, ...).

    That of probability p is the order statistic p (S + 1), linear between two: a new value lies below the k-th of S
    samples with probability k / (S + 1), so that an interval between two quantiles covers what it says. Beyond the
    outermost samples it is the outermost: fewer than 19 samples cannot give an interval of 90%, nor 39 one of 95%.

    References:
        Hyndman, Fan. Sample quantiles in statistical packages. 1996 (type 6).
    """
    p = to_tensor("quantiles: probabilities", probabilities).double().reshape(-1)
    if not bool(((p >= 0) & (p <= 1)).all()):
        raise ValueError(f"quantiles: probabilities must lie in [0, 1]; found {p.tolist()}")
    ordered = samples.sort(0).values  # torch.quantile takes no more than 2^24 entries
    place = (p * (len(samples) + 1) - 1).clamp(0, len(samples) - 1)
    below = place.floor().long()
    share = (place - below).to(samples.dtype).reshape(-1, *[1] * (samples.dim() - 1))
    low, high = ordered[below], ordered[(below + 1).clamp(max=len(samples) - 1)]
    # what lies between a number and infinity is infinite; computed it would be NaN
    infinite = torch.where(low.isinf(), low, high)
    between = torch.where(low.isinf() | high.isinf(), infinite, torch.lerp(low, high, share))
    return torch.where((share == 0) | (low == high), low, between)


def interval(samples: Tensor) -> list[float]:
    """Return ends and middle of the central 90% of those samples (sample,) that are defined; NaN if none is."""
    defined = samples[~samples.isnan()]
    return quantiles(defined, [0.05, 0.5, 0.95]).tolist() if defined.numel() else [math.nan] * 3


def aligned_samples(samples: Any, observed: Any, mask: Any) -> tuple[Tensor, Tensor]:
    """Return float64 samples (sample, ...) and observations (...), NaN where nothing is to be scored."""
    drawn, values = (to_tensor(*part).double() for part in (("samples", samples), ("observed", observed)))
    if drawn.dim() != values.dim() + 1 or drawn.shape[1:] != values.shape or not len(drawn):
        raise ValueError(
            f"observed: expected (sequence, time, channel) as in the samples, {tuple(drawn.shape[1:])}; found "
            f"{tuple(values.shape)}"
        )
    if mask is not None:
        seen = to_tensor("mask", mask)
        if seen.dtype != torch.bool or seen.shape != values.shape:
            raise ValueError(f"mask: expected booleans {tuple(values.shape)}; found {seen.dtype} {tuple(seen.shape)}")
        values = values.masked_fill(~seen, torch.nan)
    return drawn, values
