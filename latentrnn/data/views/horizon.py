"""Sequences that go on after the recording: what is known of the future, and nothing observed in it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from latentrnn.data.ingest.arrays import read_steps, read_vectors
from latentrnn.data.ingest.axes import by_name
from latentrnn.data.ingest.names import check_mapping
from latentrnn.data.ingest.padding import fill
from latentrnn.data.ingest.seconds import read_seconds
from latentrnn.data.record import Record, SequenceRecord


def extend(
    data: Record,
    steps: int,
    *,
    covariates: Mapping[str, Any] | None = None,
    times: Any = None,
    totals: Mapping[str, Any] | None = None,
) -> Record:
    """Every sequence with `steps` more base steps after its own end, of which nothing is observed.

    What was recorded becomes context: it informs and is not scored. A covariate that is not given is zero there.

    Args:
        data: the recording.
        steps: how many.
        covariates: per covariate (sequence, steps, feature).
        times: seconds of the new steps, (sequence, steps), where steps are irregular.
        totals: per head (sequence, frame), or as many of them as sequences have new frames.

    Raises:
        TypeError: when values are not numbers.
        ValueError: when a name is unknown, a shape differs, or times do not go on from the recording's.
    """
    inputs = check_mapping("covariates", covariates, data.spec.covariates, "a covariate")
    per_step = [name for name, head in data.spec.heads.items() if head.per_step]
    sums = check_mapping("totals", totals, per_step, "a per-step head")
    num_steps = max(int(data.host_lengths.max()) + steps, data.spec.slowest)

    def go_on(recorded: Tensor, future: Tensor, clock: int = 1) -> Tensor:
        """(sequence, frame, ...) of what was recorded, then of the future, then zeros."""
        frames = num_steps // clock
        ahead = torch.arange(frames, device=data.device) - (data.lengths // clock)[:, None]
        rows = torch.arange(len(data), device=data.device)[:, None]
        later = future.to(recorded)[rows, ahead.clamp(0, future.shape[1] - 1)]
        later = torch.where(_like(ahead < future.shape[1], later), later, torch.zeros_like(later))
        return torch.where(_like(ahead < 0, later), _resized(recorded, frames), later)

    fields: dict[str, Any] = {"observations": {}, "masks": {}, "covariates": {}, "totals": {}}
    heads = dict(data.spec.heads)
    for name, head in heads.items():
        fields["observations"][name], fields["masks"][name] = data.observations[name], data.masks[name]
        if head.per_step:
            mask = _resized(data.masks[name], num_steps // head.clock)
            fields["masks"][name] = mask
            fields["observations"][name] = fill(_resized(data.observations[name], num_steps // head.clock), mask)
            heads[name] = dataclasses.replace(head, missing=True)
        if name in data.totals or name in sums:
            recorded = data.totals.get(name, torch.full_like(data.observations[name][..., 0], torch.nan))
            future = torch.full((len(data), 1), torch.nan, device="cpu")
            if name in sums:
                future = _read_totals(name, sums[name], len(data))
            fields["totals"][name] = go_on(recorded, future, head.clock)
    for name, spec in data.spec.covariates.items():
        future = torch.zeros(len(data), 1, spec.features, device="cpu")
        if name in inputs:
            future = _read_covariate(name, inputs[name], (len(data), steps, spec.features))
        fields["covariates"][name] = go_on(data.covariates[name], future)
    lengths = data.host_lengths + steps
    stamps = None
    if data.times is not None:
        stamps = go_on(data.times, _read_times(data, times, steps))
        beyond = torch.arange(num_steps, device=data.device) - (data.lengths + steps - 1)[:, None]
        last = stamps.gather(1, (data.lengths + steps - 1)[:, None])
        stamps = torch.where(beyond > 0, last + beyond, stamps)  # in padding they go on, so that they increase
    return dataclasses.replace(
        data,
        **fields,
        spec=dataclasses.replace(data.spec, heads=heads),
        lengths=data.lengths + steps,
        context=data.lengths,
        times=stamps,
        num_steps=num_steps,
        host_lengths=lengths,
        host_context=data.host_lengths,
    )


def _like(mask: Tensor, values: Tensor) -> Tensor:
    return mask.reshape(*mask.shape, *[1] * (values.dim() - 2))


def _resized(values: Tensor, frames: int) -> Tensor:
    values = values[:, :frames]
    return F.pad(values, [*[0, 0] * (values.dim() - 2), 0, frames - values.shape[1]])


def _read_covariate(name: str, value: Any, shape: tuple[int, int, int]) -> Tensor:
    where = f"covariates[{name!r}]"
    arrays = read_steps(where, by_name(where, name, value, ("sequence", "time", "channel")).values, "feature")
    found = (len(arrays), len(arrays[0]), arrays[0].shape[1])
    if any(len(array) != shape[1] for array in arrays) or found != shape:
        lengths = sorted({len(array) for array in arrays})
        raise ValueError(
            f"{where}: expected (sequence, step, feature) = {shape}, one row for every step of the future; found "
            f"{len(arrays)} sequences of {lengths} steps with {arrays[0].shape[1]} features"
        )
    values = torch.from_numpy(np.stack(arrays).astype(np.float64))
    if not bool(values.isfinite().all()):
        raise ValueError(f"{where}: expected numbers at every step of the future, found NaN or infinity")
    return values


def _read_totals(name: str, value: Any, sequences: int) -> Tensor:
    arrays = read_vectors(f"totals[{name!r}]", by_name(f"totals[{name!r}]", name, value, ("sequence", "time")).values)
    if len(arrays) != sequences or len({len(array) for array in arrays}) > 1:
        raise ValueError(f"totals[{name!r}]: expected ({sequences}, frame), found {[len(array) for array in arrays]}")
    return torch.from_numpy(np.stack(arrays).astype(np.float64))


def _read_times(data: SequenceRecord, value: Any, steps: int) -> Tensor:
    if value is None:
        raise ValueError(
            f"times: the steps are irregular; expected the future's, (sequence, step) = {len(data), steps}"
        )
    arrays = read_seconds("times", by_name("times", "", value, ("sequence", "time")).values)
    if len(arrays) != len(data) or any(len(array) != steps for array in arrays):
        raise ValueError(f"times: expected shape {(len(data), steps)}, found {[len(array) for array in arrays]}")
    found = torch.from_numpy(np.stack(arrays).astype(np.float64))
    assert data.times is not None
    last = data.times.gather(1, (data.lengths - 1).clamp_min(0)[:, None]).to(found)
    if not bool((torch.cat([last, found], 1).diff(dim=1) > 0).all()):
        raise ValueError("times: expected to increase from the recording's last step on")
    return found
