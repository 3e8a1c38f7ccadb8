"""What is known of forecasts of x_t = phi x_{t-1} + e_t, with and without noise on top; variances in those of y."""

from __future__ import annotations

import numpy as np

from examples.simulate import Array


def growth(horizons: Array, phi: float) -> Array:
    """Return mean squared errors of the best forecasts of an autoregression, 1 - phi^(2 h), of variance one."""
    return 1 - phi ** (2 * horizons)


def correlations(lags: Array, phi: float, noise: float) -> Array:
    """Return correlations of values so many steps apart: phi^h / (1 + noise^2), one at zero."""
    return np.where(lags == 0, 1.0, phi ** np.abs(lags) / (1 + noise**2))


def excess(horizons: Array, phi: float, noise: float, steps: int) -> tuple[Array, Array]:
    """Return what forecasts by slopes from one series cost beyond the best slope, iterated and direct.

        direct    V_h / n,   V_h = sum_k (rho_{k+h} + rho_{k-h} - 2 rho_h rho_k)^2
        iterated  (rho_1^h - rho_h)^2 + h^2 rho_1^(2h-2) V_1 / n

    Args:
        horizons: h, (horizon,), steps ahead.
        phi, noise: of the series.
        steps: n, its length.

    References:
        Bartlett. On the theoretical specification and sampling properties of autocorrelated time-series. 1946.
        Marcellino, Stock, Watson. A comparison of direct and iterated multistep AR methods for forecasting
        macroeconomic time series. 2006.
    """
    lags = np.arange(1, 1000)[:, None]

    def variance(h: Array) -> Array:
        rho = [correlations(each, phi, noise) for each in (lags + h, lags - h, h, lags)]
        return np.asarray(((rho[0] + rho[1] - 2 * rho[2] * rho[3]) ** 2).sum(0) / steps)

    first, one = (correlations(h, phi, noise) for h in (np.ones(1), horizons))
    error = horizons**2 * first ** (2 * horizons - 2) * variance(np.ones(1))
    return (first**horizons - one) ** 2 + error, variance(horizons)


def crossover(horizons: Array, iterated: Array, direct: Array) -> float:
    """Return from which horizon on iterated forecasts are the better ones, after the last at which they are not.

    Infinite where direct ones are better to the end; the first horizon where they never are.
    """
    ahead = np.flatnonzero(direct < iterated)
    if not len(ahead):
        return float(horizons[0])
    last = ahead[-1]
    if last + 1 == len(horizons):
        return float("inf")
    before, after = (iterated - direct)[last : last + 2]
    return float(horizons[last] + (horizons[last + 1] - horizons[last]) * before / (before - after))
