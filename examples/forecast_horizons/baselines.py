"""Least squares, by NumPy: the slope of what comes later on what is there now."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from examples.simulate import Array


def slopes(values: Array, horizons: Sequence[int]) -> Array:
    """Return the slope of every horizon, (horizon,), of series (series, time, 1) taken together."""
    series = values[..., 0]
    return np.array([np.polyfit(series[:, :-h].ravel(), series[:, h:].ravel(), 1)[0] for h in horizons])
