"""What a probe is asked to read, and control tasks of the same structure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latentrnn.data import SequenceData
from latentrnn.support.shown import shown

Array = NDArray[np.float64]


@dataclass(frozen=True)
class ProbeTarget:
    """Numbers to be read off a state, NaN where they are not known.

    Attributes:
        values: (sequence, time, variable), or (sequence, variable) of what each sequence has one of.
        names: of the variables.
    """

    values: Array
    names: tuple[Any, ...]

    @property
    def per_step(self) -> bool:
        """Whether there is a number for each step."""
        return self.values.ndim == 3


def probe_target(owner: str, data: SequenceData, target: Any) -> ProbeTarget:
    """Return a target that is named or given.

    Args:
        owner: who asks, for error messages.
        data: of the sequences.
        target: name of a covariate or head (on the base clock); numbers (sequence,), (sequence, time) or (sequence,
            time, variable); or a list with the numbers of each sequence, (step,) or (step, variable).

    Raises:
        ValueError: an unknown name, or numbers of another shape.
    """
    if isinstance(target, str):
        return _named(owner, data, target)
    if isinstance(target, list | tuple) and target and np.ndim(target[0]) > 0:
        target = _padded(owner, data, target)
    try:
        values = np.asarray(target, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{owner}: target must be a name or numbers; found {shown(target)}") from error
    if values.shape == (len(data),):
        return ProbeTarget(values[:, None], ("0",))
    if values.ndim in (2, 3) and values.shape[:2] == (len(data), data.num_steps):
        values = values.reshape(*values.shape[:2], -1)
        valid = data.valid.cpu().numpy()[..., None]
        return ProbeTarget(np.where(valid, values, np.nan), tuple(str(i) for i in range(values.shape[2])))
    raise ValueError(
        f"{owner}: target must be (sequence,) {(len(data),)}, or (sequence, time, [variable]) "
        f"{(len(data), data.num_steps)}; found {values.shape}"
    )


def _named(owner: str, data: SequenceData, name: str) -> ProbeTarget:
    clocks = {key: head.clock for key, head in data.spec.heads.items()}
    if (name not in clocks and name not in data.spec.covariates) or clocks.get(name, 1) != 1:
        known = sorted([*data.spec.covariates, *(key for key, clock in clocks.items() if clock == 1)])
        raise ValueError(f"{owner}: target names no covariate, and no head on the base clock: {name!r}; has {known}")
    values = data.to("cpu").to_xarray()[name]
    return ProbeTarget(values.values.astype(np.float64), tuple(values[values.dims[-1]].values.tolist()))


def _padded(owner: str, data: SequenceData, parts: Any) -> Array:
    arrays = [np.asarray(part, dtype=np.float64) for part in parts]
    arrays = [part[:, None] if part.ndim == 1 else part for part in arrays]
    lengths = data.host_lengths.tolist()
    sizes = {part.shape[1:] for part in arrays}
    if [len(part) for part in arrays] != lengths or len(sizes) != 1 or any(part.ndim != 2 for part in arrays):
        raise ValueError(
            f"{owner}: target must have the numbers of each of {len(lengths)} sequences, (step, [variable]), of "
            f"{shown(lengths)} steps; found {shown([part.shape for part in arrays])}"
        )
    found = np.full((len(arrays), data.num_steps, arrays[0].shape[1]), np.nan)
    for row, part in zip(found, arrays, strict=True):
        row[: len(part)] = part
    return found


def all_known(values: Array) -> NDArray[np.bool_]:
    """Return where none of the last axis is NaN."""
    return np.asarray(~np.isnan(values).any(-1))


def exchanged(values: Array, rng: np.random.Generator) -> Array:
    """Return the numbers of other sequences in the place of each one's own: the same structure, and nothing to read.

    They stay at their steps, so that what all sequences have in common along time is there too. Where another sequence
    is shorter it begins again; NaN stays where it was.

    Args:
        values: (sequence, time, variable) or (sequence, variable), NaN where not known.
        rng: draws which takes whose place.
    """
    found = np.full_like(values, np.nan)
    known = all_known(values)
    if values.ndim == 2:
        rows = np.flatnonzero(known)
        found[rows] = values[rng.permutation(rows)]
        return found
    rows = np.flatnonzero(known.any(1))
    for row, other in zip(rows, _derangement(rows, rng), strict=True):
        donor = values[other][known[other]]
        found[row, known[row]] = donor[np.arange(int(known[row].sum())) % len(donor)]
    return found


def _derangement(rows: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """Return the rows in an order in which none is where it was, as far as there are several."""
    order = rng.permutation(len(rows))
    found = np.empty_like(rows)
    found[order] = rows[np.roll(order, 1)]
    return found


def by_type(values: Array, types: Array, rng: np.random.Generator) -> Array:
    """Return numbers that depend on the type of each entry alone, drawn from all known ones, one for each type.

    Args:
        values: (sequence, time, variable) or (sequence, variable), NaN where not known.
        types: code of each entry, (sequence, time) or (sequence,).
        rng: draws them.

    References:
        Hewitt, Liang. Designing and interpreting probes with control tasks. 2019.
    """
    known = all_known(values)
    pool = values[known]
    found = np.full_like(values, np.nan)
    _, code = np.unique(types[known], return_inverse=True)
    drawn = pool[rng.integers(len(pool), size=int(code.max()) + 1)]
    found[known] = drawn[code]
    return found
