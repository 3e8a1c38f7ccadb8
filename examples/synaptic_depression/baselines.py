"""The usual analysis of a synapse's recovery: a curve through the means of what probes evoked."""

from __future__ import annotations

import numpy as np
from scipy.optimize import curve_fit

from examples.simulate import Array, Depression


def recovery(found: Depression) -> Array:
    """Return delay, seconds, mean and standard error of what probes evoked, (3, delay); without a train at the end."""
    evoked = found.spikes[np.arange(len(found.probe)), found.probe, 0]
    groups = [(d, evoked[found.delay == d]) for d in np.unique(found.delay)] + [(10.0, found.spikes[:, 0, 0])]
    return np.array([(d, y.mean(), (max(y.mean(), 0.1) / len(y)) ** 0.5) for d, y in groups]).T


def by_curve(found: Depression) -> Array:
    """Return the 90% interval of tau, ms, with its estimate in between: exp(a - b exp(-delay / tau)), least squares."""
    delays, means, errors = recovery(found)

    def curve(delay: Array, a: float, b: float, log_tau: float) -> Array:
        return np.exp(a - b * np.exp(-delay / np.exp(log_tau)))

    start = (0.0, 1.0, np.log(0.1))
    best, covariance = curve_fit(curve, delays, means, start, errors, absolute_sigma=True, maxfev=20000)
    with np.errstate(over="ignore"):  # means that do not rise leave the upper end open
        return 1e3 * np.exp(best[2] + 1.645 * np.array([-1, 0, 1]) * covariance[2, 2] ** 0.5)
