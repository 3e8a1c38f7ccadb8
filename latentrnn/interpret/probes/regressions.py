"""Linear readers, cross-validated by sequence: ridge and logistic regression with a penalty chosen inside each fold."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
PENALTIES = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)  # by row, of standardised columns
INNER = 3  # folds within a fold


class Reading(NamedTuple):
    """What readers say of entries that they were not fitted to.

    Attributes:
        score: (fold, column); NaN where a fold has nothing to be scored by.
        penalty: chosen in each fold, likewise.
        prediction: (row, column).
    """

    score: Array
    penalty: Array
    prediction: Array


def require_sklearn(owner: str) -> Any:
    """Return scikit-learn's `linear_model` and `metrics`.

    Raises:
        ImportError: it is not there, naming the extra that has it.
    """
    try:
        from sklearn import linear_model, metrics
    except ImportError as error:
        raise ImportError(f"{owner} needs scikit-learn: pip install 'latentrnn[probes]'") from error
    return linear_model, metrics


def read(
    kind: str, metric: str, features: Array, targets: Array, groups: NDArray[np.int64], folds: int, seed: int
) -> Reading:
    """Read every column of the targets off the features.

    Args:
        kind: "ridge" or "logistic".
        metric: "r2", "accuracy" or "auroc".
        features: (row, feature), standardised by what each reader is fitted to.
        targets: (row, column).
        groups: the sequence of each row, of which all rows are in one fold.
        folds: number of folds.
        seed: of which sequences go together.
    """
    fit = _ridge if kind == "ridge" else _logistic
    score, rng = _scorer(metric), np.random.default_rng(seed)
    columns = targets.shape[1]
    by_fold = np.full((2, folds, columns), np.nan)
    found = Reading(by_fold[0], by_fold[1], np.full(targets.shape, np.nan))
    for fold, (train, test) in enumerate(_splits(groups, folds, rng)):
        inner = np.full((INNER, len(PENALTIES), columns), np.nan)
        for part, (within, left) in enumerate(_splits(groups[train], INNER, rng)):
            x, y = _standardised(features[train][within], features[train][left]), targets[train][within]
            for place, penalty in enumerate(PENALTIES):
                inner[part, place] = score(targets[train][left], *fit(x[0], y, x[1], np.full(columns, penalty)))
        means = np.where(np.isnan(inner), -np.inf, inner).mean(0)
        found.penalty[fold] = np.asarray(PENALTIES)[means.argmax(0)]
        x = _standardised(features[train], features[test])
        said = fit(x[0], targets[train], x[1], found.penalty[fold])
        found.prediction[test], found.score[fold] = said[1], score(targets[test], *said)
    return found


def _splits(
    groups: NDArray[np.int64], folds: int, rng: np.random.Generator
) -> Iterator[tuple[NDArray[np.bool_], NDArray[np.bool_]]]:
    """Yield which rows are fitted to and which are scored, by whole sequences."""
    for left in np.array_split(rng.permutation(np.unique(groups)), folds):
        test = np.isin(groups, left)
        yield ~test, test


def _standardised(train: Array, test: Array) -> tuple[Array, Array]:
    centre, spread = train.mean(0), train.std(0)
    spread = np.where(spread > 0, spread, 1.0)
    return (train - centre) / spread, (test - centre) / spread


def _ridge(train: Array, targets: Array, test: Array, penalty: Array) -> tuple[Array, Array]:
    linear_model, _ = require_sklearn("probe")
    reader = linear_model.Ridge(alpha=penalty * len(train), solver="cholesky").fit(train, targets)
    found = np.asarray(reader.predict(test)).reshape(len(test), -1)
    return found, found


def _logistic(train: Array, targets: Array, test: Array, penalty: Array) -> tuple[Array, Array]:
    """Return for each column the probability of the larger of two classes, where there are two, and the class."""
    linear_model, _ = require_sklearn("probe")
    outputs, classes = (np.empty((len(test), targets.shape[1])) for _ in range(2))
    for column, strength in enumerate(penalty):
        labels = np.unique(targets[:, column])
        if len(labels) == 1:
            outputs[:, column] = classes[:, column] = labels[0]
            continue
        reader = linear_model.LogisticRegression(C=1 / (strength * len(train)), max_iter=2000)
        reader.fit(train, targets[:, column])
        classes[:, column] = reader.predict(test)
        outputs[:, column] = reader.predict_proba(test)[:, 1] if len(labels) == 2 else classes[:, column]
    return outputs, classes


def _scorer(metric: str) -> Callable[[Array, Array, Array], Array]:
    _, metrics = require_sklearn("probe")

    def area(values: Array, outputs: Array) -> float:
        return float(metrics.roc_auc_score(values, outputs)) if np.ptp(values) > 0 else np.nan

    def score(values: Array, outputs: Array, predicted: Array) -> Array:
        if metric == "accuracy":
            return np.asarray((predicted == values).mean(0))
        if metric == "auroc":
            return np.array([area(values[:, c], outputs[:, c]) for c in range(values.shape[1])])
        varies = np.ptp(values, axis=0) > 0
        total = np.where(varies, ((values - values.mean(0)) ** 2).sum(0), 1.0)
        return np.where(varies, 1 - ((values - outputs) ** 2).sum(0) / total, np.nan)

    return score
