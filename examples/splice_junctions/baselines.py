"""What a linear reader of the same windows attains."""

from __future__ import annotations

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV

from examples.simulate import Junctions


def by_regression(found: Junctions, seed: int) -> float:
    """Accuracy of a logistic regression on all bases, its penalty chosen by cross-validation, of the same windows."""
    order = np.random.default_rng(seed).permutation(len(found.kind))
    train, test = np.split(order, [4 * len(order) // 5])
    one_hot = np.eye(4)[found.bases].reshape(len(order), -1)
    search = GridSearchCV(LogisticRegression(max_iter=500), {"C": np.logspace(-3, 0, 7)}, cv=5)
    return float(search.fit(one_hot[train], found.kind[train]).score(one_hot[test], found.kind[test]))
