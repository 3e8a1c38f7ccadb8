"""The clock of data whose steps may have no known length."""

from __future__ import annotations


def step_length(dt: float | None) -> float:
    """Return the length of a step in the unit of the data's clock: seconds, or one where it counts steps (None)."""
    return 1.0 if dt is None else dt
