"""The time between one step and the next, where steps have times of their own."""

from __future__ import annotations

import torch
from torch import Tensor

from latentrnn.data import DataSpec, SequenceData
from latentrnn.models.features.feature import Feature
from latentrnn.models.features.units import channel_size, channel_units
from latentrnn.support.clock import step_length

LEAST_SPREAD = 0.01  # of log gaps: of clocks that jitter by less nothing is to be told


class Gap(Feature):
    """x_t = (log gap_t - m) / s, gap_t the time since the step before: for data with irregular times.

    m and s are mean and standard deviation of log gaps in the training data. At a sequence's first step, before which
    there is no other, x_t = 0, the average. With `LatentRNN(inputs=["stimulus", lr.Gap()])` a transition that counts
    steps (`GRU`, `LSTM`, `Linear`, ...) is told how much time each took; `Decay` makes its state fade meanwhile.

    Raises:
        ValueError: when a model is put together, data on a regular clock.

    References:
        Lipton, Kale, Wetzel. Directly modeling missing data in sequences with RNNs: improved classification of
        clinical time series. 2016.
    """

    size = 1
    memory = 1  # the step before, whose time it needs
    location: Tensor
    scale: Tensor

    def __init__(self) -> None:
        super().__init__()

    def build(self, owner: str, spec: DataSpec) -> None:
        if not spec.irregular:
            raise ValueError(f"{owner}: Gap needs data with times of their own (from_arrays(times=...)); found a clock")
        self.register_buffer("location", torch.zeros(1))
        self.register_buffer("scale", torch.ones(1))

    def take_units(self, data: SequenceData, units: str) -> None:
        log, there = self._log(data)
        location, _ = channel_units(log.double(), there)
        self.location.copy_(location)
        self.scale.copy_(channel_size(log.double() - location, there).clamp_min(LEAST_SPREAD))

    def forward(self, data: SequenceData) -> Tensor:
        log, there = self._log(data)
        return torch.where(there, (log - self.location) / self.scale, 0.0)

    def _log(self, data: SequenceData) -> tuple[Tensor, Tensor]:
        """Return log gaps, (sequence, time, 1), and where there is one."""
        gap = gaps(data)
        assert gap is not None
        there = (gap > 0) & data.valid
        return torch.where(there, gap, 1.0).log().to(data.dtype).unsqueeze(-1), there.unsqueeze(-1)


def gaps(data: SequenceData) -> Tensor | None:
    """Return the seconds since the step before, (sequence, time), where the clock is irregular; the first is zero."""
    if data.times is None:
        return None
    if data.around is not None:
        before = data.around.before
        return gaps(data.around.whole)[:, before : before + data.num_steps]  # type: ignore[index]
    return torch.diff(data.times, dim=-1, prepend=data.times[:, :1])


def elapsed(data: SequenceData) -> Tensor:
    """Return the time since the step before, (sequence, time), in seconds or unit steps, zero in padding.

    On a regular clock every step, the first one too, takes `dt`; on an irregular one the first takes no time.
    """
    gap = gaps(data)
    if gap is None:
        gap = torch.tensor(step_length(data.spec.dt), dtype=torch.float64, device=data.device)
    return torch.where(data.valid, gap, 0.0).to(data.dtype)


def median_gap(data: SequenceData) -> float | None:
    """Return the median time between steps that follow each other; None on a regular clock, or without such steps."""
    if data.times is None:
        return None
    found = torch.diff(data.times, dim=-1)[data.valid[:, 1:]]
    found = found[found > 0]
    return float(found.median()) if len(found) else None
