"""Discrepancies: one statistic of the data set against the same statistic of the replicates."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from latentrnn.criticism.statistics import Statistic
from latentrnn.inference.posterior.sample_scores import interval

# what a replicate that left the numbers is counted as: large, and its squares and their sums still finite
EXPLODED = 1e30
# float64 entries handled at once while statistics of replicates are computed (about 160 MB an array)
CHUNK = 20_000_000

Row = dict[str, Any]


@dataclass(frozen=True)
class Discrepancy:
    """One statistic of one head: `observed` and `p_value` (*entry,), `replicated` (sample, *entry)."""

    head: str
    statistic: str
    labels: tuple[str, ...]
    observed: Tensor
    replicated: Tensor
    p_value: Tensor


def discrepancy(
    head: str, statistic: Statistic, observed: Tensor, replicated: Tensor, mask: Tensor, channels: tuple[str, ...]
) -> Discrepancy:
    """Evaluate one statistic on the data and on the replicates, and rank the former among the latter.

    Args:
        observed: `(sequence, time, channel)`, user units.
        replicated: `(sample, sequence, time, channel)`.
        mask: entries that count, shape of `observed`.
        channels: channel names.

    Raises:
        ValueError: if the statistic does not keep the sample axis in front.
    """
    value = _evaluated(statistic, observed, mask)
    step = max(1, CHUNK // max(1, observed.numel()))
    parts = [_evaluated(statistic, part, mask) for part in replicated.split(step)]
    for part, given in zip(parts, replicated.split(step), strict=True):
        if part.shape != (given.shape[0], *value.shape):
            raise ValueError(
                f"statistics[{statistic.name!r}]: expected (*sample, ...) from (*sample, sequence, time, channel), "
                f"i.e. {(given.shape[0], *value.shape)} for the replicates, got {tuple(part.shape)}"
            )
    samples = torch.cat(parts)
    above = (_order(samples) >= _order(value)).sum(0) + 1.0
    below = (_order(samples) <= _order(value)).sum(0) + 1.0
    p_value = (2 * torch.minimum(above, below) / (samples.shape[0] + 1)).clamp(max=1.0)
    labels = _entry_names(tuple(value.shape), channels, statistic.labels)
    return Discrepancy(head, statistic.name, labels, value, samples, p_value)


def global_p_value(discrepancies: Sequence[Discrepancy]) -> float:
    """Rank of the data among the replicates by two summaries of the whole table, Bonferroni over the two.

    Data and replicates are treated alike, so the ranks are exact if they are exchangeable. The sum of
    squared normal scores sees many rows that are off; the largest standardised deviation sees one row
    that is far off.
    """
    pooled = torch.cat([_columns(torch.cat([d.observed[None], d.replicated])) for d in discrepancies], 1)
    number = pooled.shape[0]
    queries = _order(pooled).T.contiguous()  # (entry, data and replicates)
    sorted_columns = queries.sort(-1).values
    low = torch.searchsorted(sorted_columns, queries, side="left")
    high = torch.searchsorted(sorted_columns, queries, side="right")
    scores = torch.special.ndtri((low + high + 1.0) / 2 / (number + 1))
    finite = torch.isfinite(queries)
    count = finite.sum(-1, keepdim=True).clamp(min=1)
    filled = queries.masked_fill(~finite, 0.0)
    centred = (filled - filled.sum(-1, keepdim=True) / count).masked_fill(~finite, 0.0)
    scale = (centred.square().sum(-1, keepdim=True) / count).sqrt()
    deviations = (centred / torch.where(scale > 0, scale, 1.0)).abs()
    ranks = [
        float((summary[1:] >= summary[0] * (1 - 1e-9)).sum() + 1) / number
        for summary in (scores.square().sum(0), deviations.amax(0))
    ]
    return min(1.0, 2 * min(ranks))


def rows(item: Discrepancy, improbable: bool, level: float) -> list[Row]:
    """Table rows of one discrepancy; entries undefined in data and replicates alike are left out."""
    replicated = _columns(item.replicated)
    table: list[Row] = []
    for index, label in enumerate(item.labels):
        observed, samples = item.observed.flatten()[index], replicated[:, index]
        defined = samples[~samples.isnan()]
        if observed.isnan() and not defined.numel():
            continue  # undefined everywhere: a channel without a scored entry
        ends = interval(samples)[::2]
        p_value = float(item.p_value.flatten()[index])
        table.append(
            {
                "head": item.head,
                "statistic": item.statistic,
                "entry": label,
                "observed": float(observed),
                "replicate_mean": float(defined.mean()) if defined.numel() else math.nan,
                "lower": ends[0],
                "upper": ends[1],
                "undefined": 1 - defined.numel() / samples.numel(),
                "p_value": p_value,
                "flagged": improbable and p_value < level,
            }
        )
    return table


def _evaluated(statistic: Statistic, values: Tensor, mask: Tensor) -> Tensor:
    found = statistic(_tame(values), mask)
    if not isinstance(found, Tensor):
        raise TypeError(f"statistics[{statistic.name!r}]: expected a tensor back; found {type(found).__name__}")
    return found.to(torch.float64)


def _columns(samples: Tensor) -> Tensor:
    return samples.reshape(samples.shape[0], -1)


def _order(values: Tensor) -> Tensor:
    """What is ranked: undefined comes above every number, in the data as in the replicates."""
    return torch.where(values.isnan(), math.inf, values)


def _tame(values: Tensor) -> Tensor:
    """Float64 values whose squares and sums stay finite: what exploded is large, not undefined."""
    numbers = values.to(torch.float64).nan_to_num(nan=EXPLODED, posinf=EXPLODED, neginf=-EXPLODED)
    return numbers.clamp(-EXPLODED, EXPLODED)


def _entry_names(shape: tuple[int, ...], channels: tuple[str, ...], last: tuple[str, ...]) -> tuple[str, ...]:
    """Names of the entries: `last` along the last axis, channels along the first if its size fits, else positions."""
    if not shape:
        return ("all",)
    axes = [tuple(str(i) for i in range(size)) for size in shape]
    if shape[0] == len(channels):
        axes[0] = channels
    if shape[-1] == len(last):
        axes[-1] = last
    return tuple(", ".join(names) for names in itertools.product(*axes))
