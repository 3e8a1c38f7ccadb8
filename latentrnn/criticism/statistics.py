"""Field statistics of recordings: what a replicate must reproduce to be taken for the data.

Every function takes values with axes `(*sample, sequence, time, channel)` and a boolean mask that
broadcasts to them (True = counts), works on all samples at once, and returns `(*sample, ...)` in
float64. Where a statistic is undefined (no interval, no observed entry, no variance) it is NaN.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from latentrnn.support.clock import step_length

Kind = Literal["count", "continuous", "categorical"]
KINDS: tuple[Kind, ...] = ("count", "continuous", "categorical")
StatisticFunction = Callable[[Tensor, Tensor], Tensor]

NAN = float("nan")
CELLS = tuple(f"{now} after {before}" for now in ("low", "middle", "high") for before in ("low", "middle", "high"))


@dataclass(frozen=True)
class Statistic:
    """A named statistic `function(values, mask)` and the kinds of observation that it describes.

    Args:
        name: what the table calls it.
        function: `(*sample, sequence, time, channel)` and a mask to `(*sample, ...)`.
        applies_to: kinds for which it is a default.
        labels: names along the last axis of the result; without them channel names, or positions.
    """

    name: str
    function: StatisticFunction
    applies_to: frozenset[Kind] = frozenset({"count", "continuous", "categorical"})
    labels: tuple[str, ...] = ()

    def __call__(self, values: Tensor, mask: Tensor) -> Tensor:
        return self.function(values, mask)


def observation_kind(values: Tensor, mask: Tensor) -> Kind:
    """Tell counts from continuous values by looking at the observed entries.

    Non-negative whole numbers are counts (0/1 events included), everything else is continuous.
    Class labels look like counts: say `kinds={"head": "categorical"}` where that matters.

    >>> observation_kind(torch.tensor([[[0.], [2.]]]), torch.ones(1, 2, 1, dtype=torch.bool))
    'count'
    """
    seen = values[mask.expand_as(values)]
    whole = bool(((seen >= 0) & (seen == seen.round())).all()) if seen.numel() else False
    return "count" if whole else "continuous"


def default_statistics(
    values: Tensor, mask: Tensor, *, kind: Kind | None = None, dt: float | None = None
) -> tuple[Statistic, ...]:
    """Choose the statistics for one head from what was observed.

    Counts: mean rate, zero fraction, Fano factor, mean and coefficient of variation of the inter-event
    intervals, autocorrelation, channel correlation. Continuous: mean, standard deviation, minimum,
    maximum, autocorrelation, channel correlation. Categorical: the share of each class.
    The Fano window holds about five events per channel, and leaves at least ten windows.

    Args:
        values: observations `(sequence, time, channel)`, user units.
        mask: entries that count, same shape.
        kind: overrides `observation_kind`.
        dt: seconds per step; None leaves rates per step and intervals in steps.
    """
    kind = observation_kind(values, mask) if kind is None else kind
    num_steps, num_channels = values.shape[-2:]
    chosen: list[Statistic] = []
    if kind == "count":
        unit = "per step" if dt is None else "Hz"
        window = _fano_window(values, mask)
        chosen += [
            Statistic(f"mean rate ({unit})", partial(mean_rate, dt=dt)),
            Statistic("zero fraction", zero_fraction),
            Statistic(f"Fano factor ({window} steps)", partial(fano_factor, window=window)),
        ]
        if num_steps > 1:
            unit = "steps" if dt is None else "s"
            chosen += [
                Statistic(f"mean interval ({unit})", partial(interval_mean, dt=dt)),
                Statistic("interval CV", interval_cv),
            ]
    elif kind == "continuous":
        chosen += [
            Statistic("mean", mean),
            Statistic("standard deviation", standard_deviation),
            Statistic("minimum", minimum),
            Statistic("maximum", maximum),
        ]
    elif kind == "categorical":
        classes = tuple(int(label) for label in values[mask.expand_as(values)].unique())
        names = tuple(f"class {label}" for label in classes)
        return (Statistic("class share", partial(class_share, classes=classes), labels=names),)
    else:
        raise ValueError(f"kind: expected 'count', 'continuous' or 'categorical', got {kind!r}")
    lags = tuple(lag for lag in (1, 2, 5, 10) if lag < num_steps)
    if lags:
        names = tuple(f"lag {lag}" for lag in lags)
        chosen.append(Statistic("autocorrelation", partial(autocorrelation, lags=lags), labels=names))
    if 1 < num_channels <= 10:
        pairs = tuple(f"{i}-{j}" for i in range(num_channels) for j in range(i + 1, num_channels))
        chosen.append(Statistic("channel correlation", channel_correlation, labels=pairs))
    elif num_channels > 10:
        chosen.append(Statistic("population coupling", population_coupling))
    return tuple(chosen)


def mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean over sequences and time, `(*sample, channel)`, in the values' own units.

    Args:
        values: `(*sample, sequence, time, channel)`.
        mask: True where an entry counts, broadcastable to `values`; NaN for a channel of which none does.
    """
    values, weight = _prepare(values, mask)
    return _ratio((values * weight).sum((-3, -2)), weight.sum((-3, -2)))


def mean_rate(values: Tensor, mask: Tensor, *, dt: float | None = None) -> Tensor:
    """Mean count per step, or per second when `dt` (seconds) is given, `(*sample, channel)`."""
    return mean(values, mask) / step_length(dt)


def zero_fraction(values: Tensor, mask: Tensor) -> Tensor:
    """Share of counted entries that are exactly zero, `(*sample, channel)`."""
    return mean(values == 0, mask)


def class_share(values: Tensor, mask: Tensor, *, classes: Sequence[int]) -> Tensor:
    """Share of each class label, `(*sample, channel, class)`.

    Args:
        values: codes, `(*sample, sequence, time, channel)`.
        mask: True where an entry counts, broadcastable to `values`.
        classes: the labels, in the order of the last axis.
    """
    return torch.stack([mean(values == label, mask) for label in classes], -1)


def standard_deviation(values: Tensor, mask: Tensor) -> Tensor:
    """Standard deviation over sequences and time (divisor n), `(*sample, channel)`."""
    centred, weight = _centred(values, mask)
    return _ratio(centred.square().sum((-3, -2)), weight.sum((-3, -2))).sqrt()


def minimum(values: Tensor, mask: Tensor) -> Tensor:
    """Smallest counted value, `(*sample, channel)`, arguments as of `mean`; NaN where none counts."""
    return -maximum(-values, mask)


def maximum(values: Tensor, mask: Tensor) -> Tensor:
    """Largest counted value, `(*sample, channel)`, arguments as of `mean`; NaN where none counts."""
    values, weight = _prepare(values, mask)
    largest = values.masked_fill(weight == 0, -math.inf).amax((-3, -2))
    return largest.masked_fill(largest == -math.inf, NAN)


def fano_factor(values: Tensor, mask: Tensor, *, window: int = 1) -> Tensor:
    """Variance over mean of the counts in consecutive windows, `(*sample, channel)`.

        F_c = Var[N_c(w)] / Mean[N_c(w)],   w over all whole windows of all sequences

    Windows tile each sequence from its start; a window with any entry that does not count is left out.
    Slow changes of the rate across windows and sequences raise F: it is not a within-condition Fano factor.

    Args:
        window: steps per window.

    References:
        U. Fano (1947), Ionization yield of radiations II, Physical Review.
    """
    values, weight = _prepare(values, mask)
    whole = values.shape[-2] // window
    if whole == 0:
        raise ValueError(f"window: {window} steps do not fit into {values.shape[-2]}")
    split = (*values.shape[:-2], whole, window, values.shape[-1])
    counts = (values * weight)[..., : whole * window, :].reshape(split).sum(-2)
    complete = weight[..., : whole * window, :].expand_as(values[..., : whole * window, :]).reshape(split).amin(-2)
    centred, complete = _centred(counts, complete)
    number = complete.sum((-3, -2))
    variance = _ratio(centred.square().sum((-3, -2)), (number - 1).clamp(min=0))
    return _ratio(variance, mean(counts, complete))


def inter_event_intervals(values: Tensor, mask: Tensor, *, dt: float | None = None) -> tuple[Tensor, Tensor]:
    """Mean and coefficient of variation of the intervals between successive bins with an event.

    An event is a positive value; several events in one bin count once, so that no interval is zero.
    Intervals that span an entry that does not count are left out.

    Args:
        dt: seconds per step; None leaves the mean in steps.

    Returns:
        `(mean, cv)`, both `(*sample, channel)`; NaN with fewer than one, respectively two, intervals.
    """
    num_sequences, num_steps, num_channels = values.shape[-3:]
    counted = mask.to(torch.bool).expand(values.shape[-3:])
    # only events are looked at, in order of (sample, sequence, channel) and time: recordings are mostly empty
    row, step = ((values > 0) & counted).mT.reshape(-1, num_steps).nonzero().unbind(-1)
    uncounted = (~counted).mT.cumsum(-1).reshape(-1, num_steps)[row % (num_sequences * num_channels), step]
    valid = (row[1:] == row[:-1]) & (uncounted[1:] == uncounted[:-1])
    intervals = (step[1:] - step[:-1])[valid].to(torch.float64) * step_length(dt)
    row = row[1:][valid]
    group = row // (num_sequences * num_channels) * num_channels + row % num_channels
    size = values.shape[:-3].numel() * num_channels
    number = torch.bincount(group, minlength=size)
    average = _ratio(torch.bincount(group, intervals, size), number)
    squares = torch.bincount(group, (intervals - average[group]).square(), size)
    deviation = _ratio(squares, (number - 1).clamp(min=0)).sqrt()
    shape = (*values.shape[:-3], num_channels)
    return average.reshape(shape), _ratio(deviation, average).reshape(shape)


def interval_mean(values: Tensor, mask: Tensor, *, dt: float | None = None) -> Tensor:
    """Mean inter-event interval (seconds with `dt`, else steps), `(*sample, channel)`."""
    return inter_event_intervals(values, mask, dt=dt)[0]


def interval_cv(values: Tensor, mask: Tensor) -> Tensor:
    """Coefficient of variation of the inter-event intervals (1 for a Poisson process), `(*sample, channel)`."""
    return inter_event_intervals(values, mask)[1]


def autocorrelation(values: Tensor, mask: Tensor, *, lags: Sequence[int] = (1, 2, 5, 10)) -> Tensor:
    """Autocorrelation at the given lags (steps), `(*sample, channel, lag)`.

        rho_k = mean_{s,t}[(y_t - ybar)(y_{t+k} - ybar)] / mean_{s,t}[(y_t - ybar)^2]

    The mean `ybar` is the channel's over all sequences; pairs count when both ends do.
    """
    centred, weight = _centred(values, mask)
    variance = _ratio(centred.square().sum((-3, -2)), weight.sum((-3, -2)))
    num_steps = values.shape[-2]
    results = []
    for lag in lags:
        if not 0 < lag < num_steps:
            raise ValueError(f"lags: expected between 1 and {num_steps - 1} steps, got {lag}")
        product = centred[..., :-lag, :] * centred[..., lag:, :]
        number = (weight[..., :-lag, :] * weight[..., lag:, :]).sum((-3, -2))
        results.append(_ratio(_ratio(product.sum((-3, -2)), number), variance))
    return torch.stack(results, -1)


def channel_covariance(values: Tensor, mask: Tensor) -> Tensor:
    """Covariance between channels over sequences and time, `(*sample, channel, channel)`.

    Each channel is centred on its own mean; a pair counts where both channels do (divisor n).
    """
    centred, weight = _centred(values, mask)
    weight = weight.expand(torch.broadcast_shapes(weight.shape, centred.shape[-3:])).flatten(-3, -2)
    centred = centred.flatten(-3, -2)
    return _ratio(centred.mT @ centred, weight.mT @ weight)


def channel_correlation(values: Tensor, mask: Tensor) -> Tensor:
    """Correlation of each pair of channels i < j, `(*sample, pair)`."""
    covariance = channel_covariance(values, mask)
    deviation = covariance.diagonal(dim1=-2, dim2=-1).sqrt()
    correlation = _ratio(covariance, deviation[..., :, None] * deviation[..., None, :])
    i, j = torch.triu_indices(values.shape[-1], values.shape[-1], 1)
    return correlation[..., i, j]


def response(values: Tensor, mask: Tensor, *, cells: Tensor) -> Tensor:
    """Mean over the entries of each cell of what was given, `(*sample, channel, cell)`; NaN where a cell has none.

    Args:
        values: `(*sample, sequence, time, channel)`.
        mask: True where an entry counts, broadcastable to `values`.
        cells: which cell each step belongs to, 0 to 8, `(sequence, time)`; as of `response_cells`.
    """
    of_cells = [mean(values, mask & (cells == cell).unsqueeze(-1)) for cell in range(len(CELLS))]
    return torch.stack(of_cells, -1)


def response_cells(covariate: Tensor, valid: Tensor, *, steps: int = 10) -> Tensor:
    """Sort steps by thirds of a covariate, and by thirds of its mean over the steps before, `(sequence, time)`.

    What answers to a covariate in proportion differs among the former; what adapts, or lets it in at times, differs
    among the latter, the covariate being equal.

    Args:
        covariate: one feature, `(sequence, time)`.
        valid: steps that are no padding, `(sequence, time)`.
        steps: how many before; the covariate is zero before the start.
    """
    level = covariate.to(torch.float64).masked_fill(~valid, 0.0)
    sums = torch.cat([level.new_zeros(len(level), 1), level.cumsum(-1)], -1)[:, :-1]  # of all steps before
    earlier = torch.cat([sums.new_zeros(len(sums), steps), sums[:, :-steps]], -1)[:, : sums.shape[1]]
    return 3 * _thirds(level, valid) + _thirds((sums - earlier) / steps, valid)


def _thirds(values: Tensor, valid: Tensor) -> Tensor:
    seen = values[valid].sort().values
    low, high = seen[max(len(seen) // 3 - 1, 0)], seen[2 * len(seen) // 3]
    return (values > low).long() + (values >= high).long()


def population_coupling(values: Tensor, mask: Tensor) -> Tensor:
    """Correlation of each channel with the sum of the others, `(*sample, channel)`.

    References:
        M. Okun et al. (2015), Diverse coupling of neurons to populations in sensory cortex, Nature.
    """
    covariance = channel_covariance(values, mask)
    own = covariance.diagonal(dim1=-2, dim2=-1)
    with_rest = covariance.sum(-1) - own
    rest = covariance.sum((-2, -1))[..., None] - 2 * with_rest - own
    return _ratio(with_rest, (own * rest.clamp(min=0)).sqrt())


def _fano_window(values: Tensor, mask: Tensor) -> int:
    """About five events a window, at least ten windows, no longer than a sequence."""
    rate = float(mean(values, mask).nanmean()) if bool(mask.any()) else 0.0
    wanted = math.ceil(5 / rate) if rate > 0 else values.shape[-2]
    most = max(1, int(mask.sum()) // values.shape[-1] // 10)
    return max(1, min(wanted, most, values.shape[-2]))


def _prepare(values: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Float64 values with zeros where the mask is False (fillers never enter a sum), and float64 weights."""
    mask = mask.to(torch.bool)
    return values.to(torch.float64).masked_fill(~mask, 0.0), mask.to(torch.float64)


def _centred(values: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    prepared, weight = _prepare(values, mask)
    return (prepared - mean(values, mask)[..., None, None, :]).masked_fill(weight == 0, 0.0), weight


def _ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    """Division whose zero denominators give NaN, never infinity."""
    return numerator / torch.where(denominator > 0, denominator, NAN)
