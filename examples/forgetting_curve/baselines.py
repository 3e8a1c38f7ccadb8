"""Forgetting curves by least squares."""

from __future__ import annotations

import numpy as np
from scipy.optimize import curve_fit
from scipy.special import expit

from examples.simulate import Array, Forgetting, leaky


def by_curve(found: Forgetting, *, last_only: bool) -> dict[str, Array]:
    """Return 95% intervals of decay, in trials, and gain, with their estimates in between, by least squares.

    Args:
        found: the answers.
        last_only: whether the curve is one through the time since the last rehearsal, as is usual, or the whole
            equation, in which rehearsals add up.
    """
    rehearsed, asked = found.rehearsed[..., 0], np.isfinite(found.recalled[..., 0])
    trial = np.arange(rehearsed.shape[1])
    last = np.maximum.accumulate(np.where(rehearsed > 0, trial, -np.inf), 1)

    def recall(_: Array, log_decay: float, gain: float, guess: float) -> Array:
        decay = np.exp(log_decay)
        left = np.exp(-(trial - last) / decay) if last_only else leaky(rehearsed, np.exp(-1 / decay))
        return expit(guess + gain * left[asked])

    best, covariance = curve_fit(recall, trial, found.recalled[..., 0][asked], (np.log(10.0), 1.0, 0.0))
    ends = best + 1.96 * np.array([-1, 0, 1])[:, None] * np.sqrt(np.diag(covariance))
    return {"decay": np.exp(ends[:, 0]), "gain": ends[:, 1]}
