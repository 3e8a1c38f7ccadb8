"""A recording as an online filter is told of it, step by step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from latentrnn.data import SequenceData


def steps_of(data: SequenceData, heads: Sequence[str], *, many: bool) -> Iterator[dict[str, Any]]:
    """Yield the arguments of `OnlineFilter.update` for every step of a recording.

    Args:
        data: the recording.
        heads: that are followed.
        many: whether its sequences are streams; otherwise there is one.
    """
    data = data.to("cpu")
    last = data.lengths - 1
    rows = torch.arange(len(data))
    for step in range(data.num_steps):
        observation, totals = {}, {}
        for name in heads:
            clock = data.spec.heads[name].clock
            if (step + 1) % clock:
                continue
            frame = (step + 1) // clock - 1
            values, mask = data.observations[name][:, frame], data.masks[name][:, frame]
            observation[name] = torch.where(mask, values, torch.nan)
            if name in data.totals:
                totals[name] = torch.where((data.lengths > step), data.totals[name][:, frame], torch.nan)
        # a sequence that has ended goes on with its last covariates
        at = last.clamp(max=step)
        covariates = {name: values[rows, at] for name, values in data.covariates.items()}
        told: dict[str, Any] = {"observation": observation, "covariates": covariates}
        if data.totals:
            told["totals"] = totals
        if not many:
            told = {key: {name: value[0] for name, value in part.items()} for key, part in told.items()}
        if data.times is not None:
            ahead = (step - last).clamp_min(0)
            times = data.times[rows, at] + ahead  # what it sees from there on does not count
            told["time"] = times if many else float(times[0])
        yield told
