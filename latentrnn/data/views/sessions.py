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

from latentrnn.data import calendar, metadata
from latentrnn.data.ingest.names import check_known, check_names
from latentrnn.data.ingest.padding import fill
from latentrnn.data.record import Fact, SequenceRecord
from latentrnn.data.spec import CovariateSpec, DataSpec, HeadSpec, SequenceKey


def join(sessions: Mapping[str, SequenceRecord], shared: Sequence[str]) -> dict[str, Any]:
    """The fields of the joined `SequenceData`; see `SequenceData.join`."""
    _check_sessions(sessions)
    parts = list(sessions.values())
    first = parts[0]
    for name, part in sessions.items():
        _check_alike(name, first, part)
    heads = _joined_heads(sessions, shared)
    check_names(heads, first.covariates)
    plate = _Plate(sessions, _rows(sessions), max(part.num_steps for part in parts))
    masks = {name: plate.head(spec, "masks") for name, spec in heads.items()}
    observations = {name: fill(plate.head(spec, "observations"), masks[name]) for name, spec in heads.items()}
    gapless = {
        name: Fact.of(True, masks[name]) for name in shared if all(name in part.inherited(part.masks) for part in parts)
    }
    return {
        "observations": observations,
        "masks": masks,
        "totals": {name: plate.head(spec, "totals") for name, spec in heads.items() if plate.has_totals(spec)},
        "covariates": {
            name: plate.stacked({session: part.covariates[name] for session, part in sessions.items()}, plate.num_steps)
            for name in first.covariates
        },
        "lengths": torch.cat([part.lengths for part in parts]),
        "context": torch.cat([part.context for part in parts]),
        "times": plate.times(),
        "keys": _keys(parts),
        "names": tuple(f"{session}/{name}" for session, part in sessions.items() for name in part.names),
        "sessions": tuple(session for session, part in sessions.items() for _ in part.names),
        "metadata": metadata.joined({session: part.metadata for session, part in sessions.items()}),
        "calendar": calendar.joined({session: part.calendar for session, part in sessions.items()}),
        "spec": DataSpec(heads, dict(first.spec.covariates), first.spec.dt, first.spec.irregular),
        "total": plate.size,
        "indices": None,
        "num_steps": plate.num_steps,
        "host_lengths": np.concatenate([part.host_lengths for part in parts]),
        "host_context": np.concatenate([part.host_context for part in parts]),
        "gapless": gapless,
    }


def _joined_heads(sessions: Mapping[str, SequenceRecord], shared: Sequence[str]) -> dict[str, HeadSpec]:
    """Shared heads, then those of each session under names of its own."""
    known = dict.fromkeys(head for part in sessions.values() for head in part.observations)
    check_known("shared", shared, known, "an observation head")
    heads = {head: _shared_head(head, sessions) for head in shared}
    for session, part in sessions.items():
        for head in part.observations:
            if head in shared:
                continue
            name = session_head(head, session)
            if name in heads:
                raise ValueError(f"join: {head!r} of session {session!r} would be a second head {name!r}; rename one")
            heads[name] = dataclasses.replace(part.spec.heads[head], name=name, session=session)
    return heads


@dataclasses.dataclass
class _Plate:
    """The sessions, which sequences of the joined data are theirs, and the steps to which all are padded."""

    sessions: Mapping[str, SequenceRecord]
    rows: Mapping[str, slice]
    num_steps: int

    @property
    def size(self) -> int:
        """Sequences of all sessions together."""
        return sum(len(part) for part in self.sessions.values())

    def owners(self, spec: HeadSpec) -> Mapping[str, SequenceRecord]:
        """The sessions that have a head."""
        return self.sessions if spec.session is None else {spec.session: self.sessions[spec.session]}

    def head(self, spec: HeadSpec, kind: str) -> Tensor:
        """Observations, masks or totals of a head, zero in the sequences of sessions that do not have it."""
        name, frames = base_head(spec), self.num_steps // spec.clock if spec.per_step else None
        return self.stacked({session: getattr(part, kind)[name] for session, part in self.owners(spec).items()}, frames)

    def has_totals(self, spec: HeadSpec) -> bool:
        """Whether a head has totals, in all sessions that have the head or in none."""
        name = base_head(spec)
        there = [name in part.totals for part in self.owners(spec).values()]
        if any(there) and not all(there):
            raise ValueError(f"join: observations[{name!r}] has totals in some sessions only")
        return all(there)

    def times(self) -> Tensor | None:
        """Times of all steps, where steps are irregular."""
        times = [_continued(part.times, self.num_steps) for part in self.sessions.values() if part.times is not None]
        return torch.cat(times) if times else None

    def stacked(self, blocks: Mapping[str, Tensor], steps: int | None) -> Tensor:
        """Each session's block in its rows, zero (or False) everywhere else; no `steps` where there is no time axis."""
        example = next(iter(blocks.values()))
        shape = example.shape[1:] if steps is None else (steps, *example.shape[2:])
        out = example.new_zeros((self.size, *shape))
        for session, block in blocks.items():
            padding = [] if steps is None else [0, 0] * (block.dim() - 2) + [0, steps - block.shape[1]]
            out[self.rows[session]] = F.pad(block, padding)
        return out


def session_head(head: str, session: str) -> str:
    """The name of a session's own head in the joined data.

    >>> session_head("spikes", "monday")
    'spikes_monday'
    """
    return f"{head}_{session}"


def base_head(spec: HeadSpec) -> str:
    """The name that a session's own head had before it was joined."""
    return spec.name if spec.session is None else spec.name.removesuffix(session_head("", spec.session))


def _rows(sessions: Mapping[str, SequenceRecord]) -> dict[str, slice]:
    ends = np.cumsum([len(part) for part in sessions.values()]).tolist()
    return {name: slice(end - len(part), end) for (name, part), end in zip(sessions.items(), ends, strict=True)}


def _continued(times: Tensor, num_steps: int) -> Tensor:
    """Times that go on with each row's last step, so that steps stay positive."""
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
