"""What is lost where values in double precision are kept in single precision."""

from __future__ import annotations

import numpy as np

from latentrnn.data.ingest.arrays import Array

LOSS = 1e-3  # of a channel's range, below which rounding is nothing beside any noise


def losses(
    where: str,
    names: tuple[str, ...],
    values: list[Array],
    masks: list[Array] | None,
    *,
    instead: str = "give dtype=torch.float64",
) -> str | None:
    """Say what float32 takes from the values of one head or covariate, None where that is rounding.

    Values are rounded by 6e-8 of their size. Where they lie close together and far from zero (times since 1970, a
    potential of 1e6 in which differences of 0.1 count) this can be much of what they differ by.

    Args:
        where: the head or covariate.
        names: of its channels or features.
        values: per sequence (time, channel).
        masks: what is observed, in their shape; None for all.
        instead: what keeps the values as they are.
    """
    wide = [(a, None if masks is None else masks[i]) for i, a in enumerate(values) if a.dtype.itemsize > 4]
    if not wide or wide[0][0].dtype.kind != "f":
        return None
    lost, low, high = np.zeros(len(names)), np.full(len(names), np.inf), np.full(len(names), -np.inf)
    for array, seen in wide:
        there: Array = np.isfinite(array) if seen is None else seen
        with np.errstate(over="ignore", invalid="ignore"):
            changed = np.abs(array - array.astype(np.float32))
        lost = np.maximum(lost, changed.max(0, where=there, initial=0.0))
        low = np.minimum(low, array.min(0, where=there, initial=np.inf))
        high = np.maximum(high, array.max(0, where=there, initial=-np.inf))
    too_much = (high > low) & (lost > LOSS * (high - low))
    if not too_much.any():
        return None
    worst = int(too_much.argmax())
    return (
        f"{where}: float32 changes values by up to {lost[worst]:.2g} at channel or feature {names[worst]!r}, where all "
        f"lie within {high[worst] - low[worst]:.2g} of each other, near {low[worst]:g}; subtract a constant first, or "
        f"{instead}"
    )
