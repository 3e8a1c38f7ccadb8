"""Recordings of several sessions, with channels of their own, as one data set."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from latentrnn.data.facts import Fact
from latentrnn.data.ingest.names import check_known, check_names
from latentrnn.data.ingest.padding import fill
from latentrnn.data.record import SequenceRecord
from latentrnn.data.spec import CovariateSpec, DataSpec, HeadSpec, SequenceKey


def join(sessions: Mapping[str, SequenceRecord], shared: Sequence[str]) -> dict[str, Any]:
    """The fields of the joined `SequenceData`; see `SequenceData.join`."""
    _check_sessions(sessions)
    parts = list(sessions.values())
    first = parts[0]
    for name, part in sessions.items():
        _check_alike(name, first, part)
    known = dict.fromkeys(head for part in parts for head in part.observations)
    check_known("shared", shared, known, "an observation head")
    num_steps = max(part.num_steps for part in parts)
    rows = _rows(parts)
    heads = {head: _shared_head(head, sessions) for head in shared}
    for session, part in sessions.items():
        for head in part.observations:
            name = head if head in shared else session_head(head, session)
            if head not in shared and name in heads:
                raise ValueError(f"join: {head!r} of session {session!r} would be a second head {name!r}; rename one")
            heads.setdefault(name, dataclasses.replace(part.spec.heads[head], name=name, session=session))
    check_names(heads, first.covariates)
    fields: dict[str, dict[str, Tensor]] = {"observations": {}, "masks": {}, "totals": {}}
    gapless: dict[str, Fact[bool]] = {}
    for name, spec in heads.items():
        owners = range(len(parts)) if spec.session is None else [list(sessions).index(spec.session)]
        label = name if spec.session is None else base_head(spec)
        frames = num_steps // spec.clock if spec.per_step else None
        blocks = [(rows[i], parts[i]) for i in owners]
        mask = _stacked([(row, part.masks[label]) for row, part in blocks], len_of(rows), frames)
        values = _stacked([(row, part.observations[label]) for row, part in blocks], len_of(rows), frames)
        fields["masks"][name], fields["observations"][name] = mask, fill(values, mask)
        if spec.session is None and all(label in part.inherited(part.masks) for part in parts):
            gapless[name] = Fact.of(True, mask)
        if any(label in part.totals for _, part in blocks):
            if not all(label in part.totals for _, part in blocks):
                raise ValueError(f"join: observations[{label!r}] has totals in some sessions only")
            fields["totals"][name] = _stacked([(r, part.totals[label]) for r, part in blocks], len_of(rows), frames)
    covariates = {
        name: _stacked(
            [(r, part.covariates[name]) for r, part in zip(rows, parts, strict=True)], len_of(rows), num_steps
        )
        for name in first.covariates
    }
    return {
        **fields,
        "covariates": covariates,
        "lengths": torch.cat([part.lengths for part in parts]),
        "context": torch.cat([part.context for part in parts]),
        "times": None if first.times is None else torch.cat([_continued(part.times, num_steps) for part in parts]),
        "keys": _keys(parts),
        "names": tuple(f"{session}/{name}" for session, part in sessions.items() for name in part.names),
        "sessions": tuple(session for session, part in sessions.items() for _ in part.names),
        "spec": DataSpec(heads, dict(first.spec.covariates), first.spec.dt, first.spec.irregular),
        "total": len_of(rows),
        "indices": None,
        "num_steps": num_steps,
        "host_lengths": np.concatenate([part.host_lengths for part in parts]),
        "host_context": np.concatenate([part.host_context for part in parts]),
        "gapless": gapless,
    }


def session_head(head: str, session: str) -> str:
    """The name of a session's own head in the joined data.

    >>> session_head("spikes", "monday")
    'spikes_monday'
    """
    return f"{head}_{session}"


def base_head(spec: HeadSpec) -> str:
    """The name that a session's own head had before it was joined."""
    return spec.name if spec.session is None else spec.name.removesuffix(session_head("", spec.session))


def len_of(rows: list[slice]) -> int:
    """Sequences of all sessions together."""
    return rows[-1].stop


def _rows(parts: list[SequenceRecord]) -> list[slice]:
    """Which sequences of the joined data are those of each session."""
    ends = np.cumsum([len(part) for part in parts]).tolist()
    return [slice(end - len(part), end) for end, part in zip(ends, parts, strict=True)]


def _stacked(blocks: list[tuple[slice, Tensor]], sequences: int, steps: int | None) -> Tensor:
    """Each block in its rows, zero (or False) everywhere else; `steps` is None where there is no time axis."""
    example = blocks[0][1]
    shape = (sequences, *example.shape[1:]) if steps is None else (sequences, steps, *example.shape[2:])
    out = example.new_zeros(shape)
    for rows, block in blocks:
        out[rows, ...] = (
            block if steps is None else F.pad(block, [0, 0] * (block.dim() - 2) + [0, steps - block.shape[1]])
        )
    return out


def _continued(times: Tensor | None, num_steps: int) -> Tensor:
    """Times that go on with each row's last step, so that steps stay positive."""
    assert times is not None
    step = times[:, -1:] - times[:, -2:-1] if times.shape[1] > 1 else torch.ones_like(times)
    beyond = torch.arange(1, num_steps - times.shape[1] + 1, device=times.device)
    return torch.cat([times, times[:, -1:] + step * beyond], 1)


def _keys(parts: list[SequenceRecord]) -> tuple[SequenceKey, ...]:
    """The sequences' own keys, so that what was fitted alone is known in the joined data."""
    keys = []
    taken: dict[str, int] = {}
    for number, part in enumerate(parts):
        for key in part.keys:
            # windows of one sequence share its key; sequences of two sessions do not, even if equal (both silent, say)
            owner = taken.setdefault(key.key, number)
            keys.append(key if owner == number else key._replace(key=f"{key.key}#session {number}"))
    return tuple(keys)


def _shared_head(head: str, sessions: Mapping[str, SequenceRecord]) -> HeadSpec:
    specs = {name: part.spec.heads[head] for name, part in sessions.items() if head in part.observations}
    if len(specs) < len(sessions):
        absent = [name for name in sessions if name not in specs]
        raise ValueError(f"shared: expected {head!r} in every session, found none in {absent}")
    reference = next(iter(specs.values()))
    for name, spec in specs.items():
        _check_field(f"sessions[{name!r}].observations[{head!r}]", reference, spec, HeadSpec, {"name", "missing"})
    return dataclasses.replace(reference, missing=any(spec.missing for spec in specs.values()))


def _check_sessions(sessions: Any) -> None:
    if not isinstance(sessions, Mapping):
        raise TypeError(f"join: expected a dict of session name to SequenceData, found {type(sessions).__name__}")
    if not sessions:
        raise ValueError("join: expected at least one session, found none")
    for name, part in sessions.items():
        if not isinstance(name, str):
            raise TypeError(f"join: expected strings as session names, found {name!r}")
        if not session_head("x", name).isidentifier() or not name:
            raise ValueError(f"join: expected session names of letters, digits and underscores, found {name!r}")
        if not isinstance(part, SequenceRecord):
            raise TypeError(f"sessions[{name!r}]: expected SequenceData, found {type(part).__name__}")
        if part.indices is not None:
            raise ValueError(f"sessions[{name!r}]: expected a whole data set, found a batch of a plate of {part.total}")
        if part.sessions is not None:
            raise ValueError(f"sessions[{name!r}]: expected one session, found data that are joined already")


def _check_alike(name: str, first: SequenceRecord, part: SequenceRecord) -> None:
    where = f"sessions[{name!r}]"
    same_dt = first.spec.dt == part.spec.dt or (
        None not in (first.spec.dt, part.spec.dt) and math.isclose(first.spec.dt, part.spec.dt, rel_tol=1e-9)  # type: ignore[arg-type]
    )
    for what, expected, found, alike in (
        ("dt", first.spec.dt, part.spec.dt, same_dt),
        ("irregular times", first.spec.irregular, part.spec.irregular, None),
        ("dtype", first.dtype, part.dtype, None),
        ("device", first.device, part.device, None),
        ("covariates", sorted(first.covariates), sorted(part.covariates), None),
    ):
        if not (expected == found if alike is None else alike):
            raise ValueError(f"{where}: expected {what} {expected!r} as in the first session, found {found!r}")
    for covariate, spec in first.spec.covariates.items():
        found_spec = part.spec.covariates[covariate]
        _check_field(f"{where}.covariates[{covariate!r}]", spec, found_spec, CovariateSpec, {"name"})


def _check_field(where: str, expected: Any, found: Any, kind: type, ignored: set[str]) -> None:
    for field in dataclasses.fields(kind):
        if field.name in ignored:
            continue
        one, other = getattr(expected, field.name), getattr(found, field.name)
        if one != other:
            hint = (
                "; standardise all sessions alike with from_arrays(standardise={name: (location, scale)})"
                if field.name in ("location", "scale")
                else ""
            )
            raise ValueError(f"{where}.{field.name}: expected {one!r} as in the first session, found {other!r}{hint}")
