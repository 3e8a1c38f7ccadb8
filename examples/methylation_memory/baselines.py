"""Moving averages by pandas, and their rate by least squares."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.optimize import curve_fit
from scipy.special import expit

from examples.simulate import Array, Methylation, leaky


def moving_averages(found: Methylation, rates: Sequence[float], starts: Sequence[float]) -> Array:
    """Return exponential moving averages of the exposure, (rate, culture, day), each from a start of its own."""
    averages = []
    for rate, start in zip(rates, starts, strict=True):
        whole = np.concatenate([np.full((len(found.exposure), 1), start), found.exposure[..., 0]], 1)
        averages.append(pd.DataFrame(whole.T).ewm(alpha=rate, adjust=False).mean().to_numpy().T[:, 1:])
    return np.array(averages)


def by_curve(found: Methylation, depth: int) -> Array:
    """Return the 90% interval of the rate, with its estimate in between: the same equation through shares of reads."""
    seen = np.isfinite(found.reads[..., 0])

    def level(_: Array, log_odds: float, start: float) -> Array:
        rate = expit(log_odds)
        return leaky(rate * found.exposure[..., 0], 1 - rate, start)[seen]

    best, covariance = curve_fit(level, seen, found.reads[..., 0][seen] / depth, (-1.0, 0.5))
    return expit(best[0] + 1.645 * np.array([-1, 0, 1]) * covariance[0, 0] ** 0.5)
