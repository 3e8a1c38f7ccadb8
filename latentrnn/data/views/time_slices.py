"""Cutting sequences in time: slices, windows, and contiguous stretches for training and testing."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from latentrnn.data.metadata import taken
from latentrnn.data.record import Record, SequenceRecord
from latentrnn.data.spec import DataSpec, SequenceKey
from latentrnn.data.views.splits import PARTS, Fractions
from latentrnn.support.arguments import is_integer


@dataclass
class _Piece:
    """Base steps `begin` to `stop - 1` of the sequence at `row`, of which those from `start` on are scored."""

    row: int
    begin: int
    start: int
    stop: int


def time_slice(data: Record, start: int, stop: int) -> Record:
    """Base steps `start` to `stop - 1` of every sequence, without copying and without waiting for the device.

    Raises:
        ValueError: a stretch without steps, or a start at which not all clocks tick.
    """
    stop = min(stop, data.num_steps)
    check_clocks(data.spec, start)

    def cut(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        out = {}
        for name, tensor in tensors.items():
            head = data.spec.heads.get(name)
            clock = 1 if head is None else head.clock
            out[name] = tensor if head and not head.per_step else tensor[:, start // clock : stop // clock]
        return out

    keys = []
    for key, context in zip(data.keys, data.host_context.tolist(), strict=True):
        origin = key.start - context
        first = max(key.start, origin + start)
        keys.append(SequenceKey(key.key, first, max(first, min(key.stop, origin + stop))))
    masks = cut(data.masks)
    return dataclasses.replace(
        data,
        observations=cut(data.observations),
        masks=masks,
        covariates=cut(data.covariates),
        totals=cut(data.totals),
        lengths=(data.lengths - start).clamp(0, stop - start),
        context=(data.context - start).clamp(0, stop - start),
        times=None if data.times is None else data.times[:, start:stop],
        keys=tuple(keys),
        num_steps=stop - start,
        calendar=None if data.calendar is None else data.calendar.later(start),
        host_lengths=(data.host_lengths - start).clip(0, stop - start),
        host_context=(data.host_context - start).clip(0, stop - start),
        around=None,
        gapless=data.inherited(masks),
    )


def check_clocks(spec: DataSpec, start: int) -> None:
    """Raise unless a frame of every head begins at a base step, from which time can then be cut.

    Args:
        spec: of the data, with the clocks of its heads, base steps per frame.
        start: the base step.

    Raises:
        ValueError: naming the first head whose frame would be cut in two.
    """
    for head in spec.heads.values():
        if start % head.clock:
            raise ValueError(f"start: expected a multiple of {head.clock}, the clock of {head.name!r}, found {start}")


def check_stretch(start: Any, stop: Any, num_steps: int) -> tuple[int, int]:
    """Return the ends of a stretch of so many steps, which are counted from the first step of every sequence.

    Raises:
        TypeError: an end is no whole number.
        ValueError: it is negative, or there is no step in between.
    """
    for name, value in (("start", start), ("stop", stop)):
        if not is_integer(value):
            raise TypeError(f"time_slice: expected a whole number of base steps as {name}, found {value!r}")
        if value < 0:
            raise ValueError(
                f"time_slice: expected {name} of at least 0, found {value}: sequences end at different steps, so that "
                "none is counted from the end"
            )
    if start >= min(stop, num_steps):
        raise ValueError(
            f"time_slice: expected start < stop, and start < {num_steps}, the steps of the longest sequence, found "
            f"({start}, {stop})"
        )
    return int(start), int(stop)


def windows(data: Record, length: int, context: int) -> Record:
    """Consecutive windows of `length` scored steps, each preceded by up to `context` steps."""
    _check_steps(data, "length", length, 1)
    _check_steps(data, "context", context, 0)
    pieces = [
        _Piece(row, max(0, start - context), start, min(start + length, int(stop)))
        for row, (stop, first) in enumerate(zip(data.host_lengths, data.host_context, strict=True))
        for start in range(int(first), int(stop), length)
    ]
    names = []
    for piece in pieces:
        offset = data.keys[piece.row].start - int(data.host_context[piece.row])
        names.append(f"{data.names[piece.row]}[{offset + piece.start}:{offset + piece.stop}]")
    return _gather(data, pieces, names)


def stretches(data: Record, fractions: Fractions, context: int) -> tuple[Record, Record, Record]:
    """Every sequence cut at the fractions (rounded down) of its scored steps."""
    _check_steps(data, "context", context, 0)
    unit = _unit(data)
    parts: tuple[list[_Piece], list[_Piece], list[_Piece]] = ([], [], [])
    for row, (stop, first) in enumerate(zip(data.host_lengths.tolist(), data.host_context.tolist(), strict=True)):
        cuts = [first, *(first + _floor(share * (stop - first), unit) for share in np.cumsum(fractions)[:2]), stop]
        for part, (name, start, end) in enumerate(zip(PARTS, cuts, cuts[1:], strict=False)):
            if end - start < unit:
                raise ValueError(
                    f"{name}: expected at least {unit} step{'s' * (unit > 1)} of every sequence, found {end - start} "
                    f"of the {stop - first} scored steps of sequence {row} ({data.names[row]!r})"
                )
            begin = 0 if part == 0 else max(0, start - context)
            parts[part].append(_Piece(row, begin, start, end))
    train, valid, test = (_gather(data, pieces, list(data.names)) for pieces in parts)
    return train, valid, test


def _gather(data: Record, pieces: list[_Piece], names: list[str]) -> Record:
    for head in data.spec.heads.values():
        if not head.per_step:
            raise ValueError(
                f"observations[{head.name!r}]: expected a value per step, found one value per sequence, which "
                "cannot be cut in time; leave the head out with data.select(heads=...)"
            )
    lengths = np.array([piece.stop - piece.begin for piece in pieces], dtype=np.int64)
    context = np.array([piece.start - piece.begin for piece in pieces], dtype=np.int64)
    num_steps = max(int(lengths.max()), data.spec.slowest)
    rows = torch.tensor([piece.row for piece in pieces], device=data.device)[:, None]
    begins = torch.tensor([piece.begin for piece in pieces], device=data.device)[:, None]
    on_device = torch.from_numpy(lengths).to(data.device)
    owners = np.array([piece.row for piece in pieces], dtype=np.int64)
    firsts = np.array([piece.begin for piece in pieces], dtype=np.int64)

    def pick(tensor: Tensor, clock: int = 1) -> tuple[Tensor, Tensor]:
        """Frames of each piece and whether they are inside it; what is outside repeats the last frame of the row."""
        frame = torch.arange(num_steps // clock, device=data.device)
        inside = frame < on_device[:, None] // clock
        return tensor[rows, (begins // clock + frame).clamp(max=tensor.shape[1] - 1)], inside

    fields: dict[str, Any] = {"observations": {}, "masks": {}, "covariates": {}, "totals": {}}
    for name, head in data.spec.heads.items():
        fields["observations"][name], inside = pick(data.observations[name], head.clock)
        fields["masks"][name] = pick(data.masks[name], head.clock)[0] & inside[..., None]
        if name in data.totals:
            fields["totals"][name] = torch.where(inside, pick(data.totals[name], head.clock)[0], 0.0)
    for name in data.covariates:
        values, inside = pick(data.covariates[name])
        fields["covariates"][name] = values * inside[..., None]
    offsets = [data.keys[piece.row].start - int(data.host_context[piece.row]) for piece in pieces]
    return dataclasses.replace(
        data,
        **fields,
        lengths=on_device,
        context=torch.from_numpy(context).to(data.device),
        times=None if data.times is None else _continued_times(data.times, rows, begins, num_steps),
        keys=tuple(
            SequenceKey(data.keys[piece.row].key, offset + piece.start, offset + piece.stop)
            for piece, offset in zip(pieces, offsets, strict=True)
        ),
        names=tuple(names),
        sessions=None if data.sessions is None else tuple(data.sessions[piece.row] for piece in pieces),
        metadata=taken(data.metadata, owners) if data.metadata else {},
        calendar=None if data.calendar is None else data.calendar.take(owners).later(firsts),
        total=len(pieces),
        indices=None,
        num_steps=num_steps,
        host_lengths=lengths,
        host_context=context,
        around=None,
        gapless=data.inherited(fields["masks"]),
    )


def _continued_times(times: Tensor, rows: Tensor, begins: Tensor, num_steps: int) -> Tensor:
    """Times of each piece; in padding they go on from the last in steps of the row's own, so that they increase."""
    step = torch.arange(num_steps, device=times.device)
    last = times.shape[1] - 1
    index = begins + step
    beyond = (index - last).clamp(min=0)
    if last == 0:
        return times[rows, index.clamp(max=0)] + beyond
    return times[rows, index.clamp(max=last)] + beyond * (times[rows, last] - times[rows, last - 1])


def _unit(data: SequenceRecord) -> int:
    """Base steps after which all clocks tick together."""
    return math.lcm(*(head.clock for head in data.spec.heads.values()))


def _floor(steps: float, unit: int) -> int:
    # the small number takes back what 0.7 * 10 loses in floating point
    return math.floor(steps / unit + 1e-9) * unit


def _check_steps(data: SequenceRecord, name: str, value: Any, least: int) -> None:
    if not is_integer(value):
        raise TypeError(f"{name}: expected a whole number of base steps, found {value!r}")
    unit = _unit(data)
    if value < least or value % unit:
        multiple = f" and a multiple of {unit}, at which all clocks tick" if unit > 1 else ""
        raise ValueError(f"{name}: expected at least {least}{multiple}, found {value}")
