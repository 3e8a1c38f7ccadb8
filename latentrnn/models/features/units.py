"""The units of data: location and scale of every channel, which a fit takes from the data that it is trained on.

Parameters live in these units, so that starting values, steps of the optimizer and weight decay mean the same whatever
units the data came in; values are mapped to and from them where they enter a model and where they leave it.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

LARGEST_PART = 2**22  # numbers that are made at once on the way to a mean
UNITS = ("data", "scaled", "standard")  # as they are; divided by their size; centred and divided by their spread


def channel_units(values: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and spread of each channel over its observed entries, (channel,) each; the spread is positive.

    The spread is the standard deviation; of a channel that does not vary, its distance from zero; of one that is zero
    or never observed, one. Sums are taken in double precision: in single precision those of values far from zero, or
    of squares of very small or large values, would say nothing.

    Args:
        values: (..., channel).
        mask: True = observed, like `values`.
    """
    mean = _mean(values, mask, lambda part: part)
    deviation = _mean(values, mask, lambda part: (part - mean) ** 2).sqrt()
    # not by the deviation's size: that of a constant is its mean's rounding, and values far from zero differ by less
    spread = torch.where(_varies(values, mask) & (deviation > 0), deviation, mean.abs())
    return mean.to(values.dtype), _positive(spread, values.dtype)


def units_of_all(values: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Return `channel_units`, those of channels never observed the mean of the others'; zero and one without any."""
    mean, spread = channel_units(values, mask)
    return like_the_others(mean, mask), _positive(like_the_others(spread, mask), values.dtype)


def like_the_others(start: Tensor, mask: Tensor) -> Tensor:
    """Return starting values, (channel * outputs,), those of channels never observed the mean of the observed ones'.

    Where nothing at all was observed they are zero.

    Args:
        start: (channel * outputs,).
        mask: True = observed, (..., channel).
    """
    seen = mask.flatten(0, -2).any(0).unsqueeze(-1)
    by_channel = start.reshape(len(seen), -1)
    others = torch.where(seen, by_channel, 0.0).sum(0) / seen.sum().clamp_min(1)
    return torch.where(seen, by_channel, others).flatten()


def channel_size(values: Tensor, mask: Tensor) -> Tensor:
    """Return the root mean square of each channel over its observed entries, (channel,); one where that is zero."""
    return _positive(_mean(values, mask, lambda part: part**2).sqrt(), values.dtype)


def channel_means(values: Tensor, mask: Tensor) -> Tensor:
    """Return the mean of each channel over its observed entries, (channel,), in the precision of the values."""
    return _mean(values, mask, lambda part: part, None)


def channel_moments(values: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and variance of each channel over its observed entries, (channel,), in the values' precision."""
    mean = channel_means(values, mask)
    return mean, _mean(values, mask, lambda part: (part - mean) ** 2, None)


def _positive(scale: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.where(scale > 0, scale, 1.0).clamp_min(torch.finfo(dtype).tiny).to(dtype)


def _varies(values: Tensor, mask: Tensor) -> Tensor:
    """Return which channels have two observed entries that differ, booleans (channel,)."""
    flat, seen = values.flatten(0, -2), mask.expand_as(values).flatten(0, -2)
    if flat.numel() == 0:
        return seen.any(0)
    least, most = flat.new_full(flat.shape[-1:], torch.inf), flat.new_full(flat.shape[-1:], -torch.inf)
    rows = max(1, LARGEST_PART // max(flat.shape[-1], 1))
    for part, there in zip(flat.split(rows), seen.split(rows), strict=True):
        least = torch.minimum(least, torch.where(there, part, torch.inf).amin(0))
        most = torch.maximum(most, torch.where(there, part, -torch.inf).amax(0))
    return most > least


def _mean(
    values: Tensor, mask: Tensor, of: Callable[[Tensor], Tensor], dtype: torch.dtype | None = torch.float64
) -> Tensor:
    """Return means over observed entries, (channel,), in double precision or in another type (None: the values').

    Some rows are taken at a time, so that nothing as large as the values is made.
    """
    flat, seen = values.flatten(0, -2), mask.expand_as(values).flatten(0, -2)
    rows = max(1, LARGEST_PART // max(flat.shape[-1], 1))
    total = torch.zeros(flat.shape[-1], dtype=values.dtype if dtype is None else dtype, device=flat.device)
    count = torch.zeros(flat.shape[-1], dtype=torch.long, device=flat.device)
    for part, there in zip(flat.split(rows), seen.split(rows), strict=True):
        total = total + torch.where(there, of(part.to(total.dtype)), 0.0).sum(0)
        count = count + there.sum(0)  # a sum of booleans makes whole numbers of them first
    return total / count.clamp_min(1)
