"""Forecasts that need no model, to hold others against."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from latentrnn.data import SequenceData
from latentrnn.inference.posterior.forecast import Forecast, axes_ahead
from latentrnn.support.arguments import check_kind_of, check_size


def persistence(data: SequenceData, horizon: int) -> Forecast:
    """Every channel stays at its last observed value: one sample, whose CRPS is the absolute error.

    Args:
        data: the recording, as given to the posterior.
        horizon: base steps.

    Raises:
        ValueError: a horizon below one.
    """
    return seasonal_naive(data, horizon, 1)


def seasonal_naive(data: SequenceData, horizon: int, period: int) -> Forecast:
    """Every channel repeats its last period: one sample; where an entry of it is missing, that of a period before.

    Args:
        data: the recording.
        horizon: base steps.
        period: frames after which the head repeats itself.

    Raises:
        ValueError: a horizon or period below one.
    """
    period = check_size("seasonal_naive", "period", period)

    def one(values: Tensor, frames: int) -> Tensor:
        rows: list[Tensor] = []
        for phase in range(period):
            past = values.flip(0)[(period - 1 - phase) :: period]  # the same phase of earlier periods, the last first
            first = (~past.isnan()).to(torch.uint8).argmax(0, keepdim=True) if len(past) else None
            nothing = values.new_full((1, values.shape[1]), torch.nan)
            rows.append(nothing if first is None else past.gather(0, first))
        cycle = torch.cat(rows)
        return cycle[torch.arange(frames) % period].unsqueeze(0)

    return _each(data, horizon, one)


def climatology(data: SequenceData, horizon: int, num_samples: int = 100) -> Forecast:
    """Every channel's own past, whatever the step: samples are its quantiles, so that nothing is random.

    Args:
        data: the recording.
        horizon: base steps.
        num_samples: number of samples.

    Raises:
        ValueError: a number below one.
    """
    num_samples = check_size("climatology", "num_samples", num_samples)
    place = (torch.arange(num_samples, dtype=torch.float64) + 0.5) / num_samples

    def one(values: Tensor, frames: int) -> Tensor:
        drawn = []
        for past in values.unbind(-1):
            seen = past[~past.isnan()].sort().values
            seen = seen if len(seen) else past.new_full((1,), torch.nan)
            drawn.append(seen[(place * len(seen)).long()])  # values that occurred: counts stay counts
        return torch.stack(drawn, -1)[:, None].expand(-1, frames, -1)

    return _each(data, horizon, one)


def _each(data: SequenceData, horizon: int, one: Callable[[Tensor, int], Tensor]) -> Forecast:
    """Forecast every sequence and head by `one`: past (frame, channel) and frames to (sample, frame, channel)."""
    check_kind_of("baseline", "data", data, SequenceData)
    horizon = check_size("baseline", "horizon", horizon)
    data = data.to("cpu")
    samples = {}
    for name, head in data.spec.heads.items():
        if not head.per_step:
            continue
        found = []
        seen = torch.where(data.masks[name], data.observations[name], torch.nan)
        last = [(length // head.clock, (length + horizon) // head.clock) for length in data.host_lengths.tolist()]
        most = max(end - first for first, end in last)
        for values, (first, end) in zip(seen, last, strict=True):
            path = one(values[:first], end - first)
            found.append(torch.nn.functional.pad(path, (0, 0, 0, most - (end - first)), value=torch.nan))
        samples[name] = torch.stack(found, 1)
    axes = None if data.times is not None else axes_ahead(data, horizon, samples, None)  # times to come are not known
    return Forecast(samples, data.names, data.spec.dt, axes=axes)
