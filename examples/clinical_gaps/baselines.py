"""Logistic regression on summaries of the charts, and areas under curves with their errors."""

from __future__ import annotations

import warnings

import numpy as np
from scipy.stats import rankdata
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from examples.simulate import Array, Stays

STRENGTHS = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 1.0)  # C of scikit-learn


def summaries(stays: Stays) -> Array:
    """Return mean, last, least, largest and log(1 + number) of every channel's hours, and what was known on admission.

    Args:
        stays: in standard units; what was never charted counts as average.
    """
    charts = stays.charts
    there = ~np.isnan(charts)
    last = np.take_along_axis(charts, (charts.shape[1] - 1 - there[:, ::-1].argmax(1))[:, None], 1)[:, 0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of channels that were never charted
        parts = [np.nanmean(charts, 1), last, np.nanmin(charts, 1), np.nanmax(charts, 1)]
    return np.concatenate([*map(np.nan_to_num, parts), np.log1p(there.sum(1)), stays.who], 1)


def by_regression(train: Stays, validation: Stays, test: Stays) -> Array:
    """Return the probability of death of test patients, (patient,), the penalty being chosen by validation patients."""
    designs = [summaries(part) for part in (train, validation, test)]
    middle, spread = designs[0].mean(0), designs[0].std(0)
    first, second, third = ((design - middle) / np.where(spread > 0, spread, 1.0) for design in designs)
    fits = [LogisticRegression(C=c, max_iter=5000).fit(first, train.died[:, 0]) for c in STRENGTHS]
    best = min(fits, key=lambda fit: log_loss(validation.died[:, 0], fit.predict_proba(second)[:, 1]))
    return best.predict_proba(third)[:, 1]


def auroc(risk: Array, died: Array) -> float:
    """Return the probability that one who died had the higher risk, of all pairs."""
    dead = died > 0
    ranks = rankdata(risk)[dead].sum()
    return float((ranks - dead.sum() * (dead.sum() + 1) / 2) / (dead.sum() * (~dead).sum()))


def resampled(risks: dict[str, Array], died: Array, repeats: int = 1000, seed: int = 0) -> dict[str, Array]:
    """Return areas under the curve of patients drawn with replacement, the same ones for all, (repeat,) each."""
    rng = np.random.default_rng(seed)
    draws = rng.integers(len(died), size=(repeats, len(died)))
    return {name: np.array([auroc(risk[draw], died[draw]) for draw in draws]) for name, risk in risks.items()}
