"""What a population's other neurons tell by regression, and hand velocity by ridge regression on anything."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter1d
from sklearn.linear_model import PoissonRegressor, Ridge
from torch import as_tensor

import latentrnn as lr
from examples.simulate import Array
from latentrnn.criticism import RSquared

WIDTHS = (1.5, 2.5, 4.0)  # of the smoothing, standard deviation in bins
PENALTIES = (1e-3, 1e-2, 1e-1)  # of the Poisson regression, on standardised rates
RIDGES = 10.0 ** np.arange(-2, 6)


def smoothed(counts: Array, width: float) -> Array:
    """Return counts (trial, bin, unit) smoothed within every trial by a Gaussian of so many bins."""
    return gaussian_filter1d(counts, width, axis=1, mode="nearest")


def by_regression(train: lr.SequenceData, validation: lr.SequenceData, test: lr.SequenceData) -> tuple[Array, str]:
    """Return rates of the head `hidden` in test trials, (trial, bin, unit), by a smoothed-rate GLM, and its settings.

        y_it ~ Poisson(exp(b_i + w_i . smoothed(shown)_t)),   a penalty on |w_i|^2

    Smoothing looks forward and back, as a bidirectional encoder does. Its width, and the penalty, are those with most
    bits per spike in the validation trials.
    """
    counts = [_counts(each, "shown") for each in (train, validation, test)]
    targets = _counts(train, "hidden").reshape(-1, train.observations["hidden"].shape[-1])
    best, kept = -np.inf, (np.empty(0), "")
    for width in WIDTHS:
        known = [smoothed(each, width) for each in counts]
        mean, deviation = known[0].mean((0, 1)), known[0].std((0, 1))
        learn, choose, score = ((each - mean) / deviation for each in known)
        flat = learn.reshape(-1, learn.shape[-1])
        for penalty in PENALTIES:
            fits = [PoissonRegressor(alpha=penalty, solver="newton-cholesky").fit(flat, each) for each in targets.T]

            def rates(inputs: Array, fits: list[PoissonRegressor] = fits) -> Array:
                told = [fit.predict(inputs.reshape(-1, inputs.shape[-1])) for fit in fits]
                return np.stack(told, -1).reshape(*inputs.shape[:2], -1)

            value = lr.bits_per_spike(as_tensor(rates(choose)), validation.observations["hidden"])
            if value > best:
                best, kept = value, (rates(score), f"{20 * width:.0f} ms, penalty {penalty:g}")
    return kept


def by_ridge(
    train: tuple[Array, Array], validation: tuple[Array, Array], test: tuple[Array, Array]
) -> tuple[Array, RSquared]:
    """Return velocity (trial, bin, axis) of test trials, predicted by ridge regression on anything, and its R2.

    Args:
        train, validation, test: what is known, (trial, bin, channel), and velocity. Validation chooses the penalty.
    """
    (known, velocity), size = train, train[0].shape[-1]
    mean, deviation = known.mean((0, 1)), known.std((0, 1)) + 1e-12

    def predict(fit: Ridge, inputs: Array) -> Array:
        told: Array = fit.predict(((inputs - mean) / deviation).reshape(-1, size))
        return told.reshape(*inputs.shape[:2], -1)

    flat = ((known - mean) / deviation).reshape(-1, size)
    fits = [Ridge(alpha=each).fit(flat, velocity.reshape(len(flat), -1)) for each in RIDGES]
    best = max(fits, key=lambda fit: float(lr.r2(predict(fit, validation[0]), validation[1])))
    predicted = predict(best, test[0])
    return predicted, lr.r2(predicted, test[1])


def _counts(data: lr.SequenceData, head: str) -> Array:
    return data.observations[head].double().numpy()
