"""How far an enhancer reaches, by logistic regression and by least squares."""

from __future__ import annotations

import numpy as np
from scipy.optimize import curve_fit
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from examples.simulate import Array, Enhancers, leaky

ENDS = 1.645 * np.array([-1, 0, 1])  # of 90% intervals, with the estimate in between


def since_last(found: Enhancers) -> Array:
    """Return the distance to the last enhancer upstream, kb, (locus, position), infinite where there is none."""
    position = np.arange(found.enhancer.shape[1])
    return position - np.maximum.accumulate(np.where(found.enhancer[..., 0] > 0, position, -np.inf), 1)


def by_distance(found: Enhancers) -> Array:
    """Return the window, kb, by a logistic regression of activity on the distance to the last enhancer, as is usual."""
    active, distance = found.active[..., 0], since_last(found)
    there = np.isfinite(active) & np.isfinite(distance)
    design = np.stack([np.ones(there.sum()), distance[there]], 1)
    fitted = LogisticRegression(C=np.inf, fit_intercept=False, tol=1e-8).fit(design, active[there])
    (baseline, weight), probability = fitted.coef_[0], fitted.predict_proba(design)[:, 1]
    covariance = np.linalg.inv(design.T @ (design * (probability * (1 - probability))[:, None]))
    slope = np.array([-1 / weight, baseline / weight**2])
    return -baseline / weight + ENDS * (slope @ covariance @ slope) ** 0.5


def by_curve(found: Enhancers) -> dict[str, Array]:
    """Return r, per kb, and the window, kb, by least squares of the equation that was planted."""
    there = np.isfinite(found.active[..., 0])

    def active(_: Array, log_length: float, window: float, weight: float) -> Array:
        signal = leaky(found.enhancer[..., 0], np.exp(-np.exp(-log_length)))[there]
        return expit(weight * (signal - np.exp(-window / np.exp(log_length))))

    best, covariance = curve_fit(active, there, found.active[..., 0][there], (np.log(10.0), 10.0, 5.0))
    ends = best + ENDS[:, None] * np.sqrt(np.diag(covariance))
    return {"r": np.exp(-np.exp(-ends[:, 0])), "window": ends[:, 1]}
