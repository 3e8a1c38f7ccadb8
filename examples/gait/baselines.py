"""Regressions on the last steps, by scikit-learn."""

from __future__ import annotations

import numpy as np
from scipy.stats import norm
from sklearn.linear_model import LogisticRegressionCV, RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import latentrnn as lr
from examples.simulate import Array


def by_regression(train: lr.SequenceData, test: lr.SequenceData, head: str, covariate: str, lags: int) -> Array:
    """Return log densities, (sequence, time), of a head given a covariate's last steps."""
    (x, y), (new, asked) = ((_lagged(each, covariate, lags), _values(each, head)) for each in (train, test))
    if train.spec.heads[head].levels is not None:
        chosen = LogisticRegressionCV(
            Cs=5, cv=4, max_iter=1000, scoring="neg_log_loss", l1_ratios=(0.0,), use_legacy_attributes=False
        )
        model = make_pipeline(StandardScaler(), chosen).fit(x, y)
        found = np.log(model.predict_proba(new))[np.arange(len(asked)), np.searchsorted(model.classes_, asked)]
    else:
        ridge = make_pipeline(StandardScaler(), RidgeCV(np.logspace(-2, 4, 13))).fit(x, y)
        found = norm.logpdf(asked, ridge.predict(new), np.std(y - ridge.predict(x)))
    return found.reshape(len(test), -1)


def _values(data: lr.SequenceData, head: str) -> Array:
    return data.observations[head].double().numpy().ravel()


def _lagged(data: lr.SequenceData, covariate: str, lags: int) -> Array:
    """Return the last steps of a covariate, the first value before the start, (sequence * time, lag * feature)."""
    values = data.covariates[covariate].double().numpy()
    padded = np.concatenate([np.repeat(values[:, :1], lags - 1, 1), values], 1)
    steps = values.shape[1]
    return np.concatenate([padded[:, lag : lag + steps] for lag in range(lags)], -1).reshape(
        -1, lags * values.shape[-1]
    )
