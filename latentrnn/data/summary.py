"""The data in a few readable lines."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from latentrnn.data.calendar import Calendar
from latentrnn.data.metadata import Metadata
from latentrnn.data.spec import DataSpec


def describe(
    spec: DataSpec,
    lengths: NDArray[np.int64],
    context: NDArray[np.int64],
    plate: int | None,
    metadata: Metadata,
    calendar: Calendar | None = None,
) -> str:
    """Sizes, units, heads, covariates and metadata; `plate` is the size of the plate of which this is a sub-sample."""
    shortest, longest = int(lengths.min()), int(lengths.max())
    steps = f"{longest}" if shortest == longest else f"{shortest} to {longest}"
    unit = "irregular times" if spec.irregular else "unit steps" if spec.dt is None else f"dt = {spec.dt:g} s"
    lines = [f"SequenceData: {_count(len(lengths), 'sequence')} of {steps} steps, {unit}"]
    heads = []
    for head in spec.heads.values():
        notes = [_count(head.channels, "channel")]
        notes += [] if head.per_step else ["one value per sequence"]
        notes += [f"every {head.clock} steps"] if head.clock > 1 else []
        notes += ["some missing"] if head.missing else []
        notes += [f"in session {head.session}"] if head.session is not None else []
        heads.append(f"{head.name} ({', '.join(notes)})")
    lines.append("  observations: " + ", ".join(heads))
    if spec.covariates:
        items = [f"{item.name} ({_count(item.features, 'feature')})" for item in spec.covariates.values()]
        lines.append("  covariates: " + ", ".join(items))
    if metadata:
        lines.append("  metadata: " + ", ".join(metadata))
    if calendar is not None:
        lines.append("  dates: " + calendar.described())
    if context.any():
        lines.append(f"  up to {int(context.max())} leading steps are context and not scored")
    if plate is not None:
        lines.append(f"  a batch of a plate of {plate}")
    return "\n".join(lines)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
