"""A regression on what was added so far, by scikit-learn, and the mean course of other batches, with bands."""

from __future__ import annotations

import numpy as np
from sklearn.linear_model import RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PolynomialFeatures, StandardScaler

import latentrnn as lr
from examples.batch_reactor.scores import Bands, measured, of_normal
from examples.simulate import Array


def by_regression(train: lr.SequenceData, test: lr.SequenceData) -> Bands:
    """Predict the product of the test batches by ridge regression on the additions.

    Of charge, of all that was added, and of sums over the last 2, 10, 30 and 60 minutes, and minutes, with products of
    any three; residuals of the training batches, of all steps, say how wide bands are.
    """
    seen = train.masks["product"].numpy()[..., 0]
    model = make_pipeline(PolynomialFeatures(3), StandardScaler(), RidgeCV(np.logspace(-5, 3, 17)))
    x, y = _features(train), train.observations["product"].double().numpy()[..., 0]
    model.fit(x[seen], y[seen])
    spread = np.sqrt(np.mean((y[seen] - model.predict(x[seen])) ** 2))
    told = _features(test)
    mean = model.predict(told.reshape(-1, told.shape[-1])).reshape(*told.shape[:2], 1)
    return of_normal(mean, np.full_like(mean, spread), measured(test, "product"))


def by_course(train: lr.SequenceData, test: lr.SequenceData, head: str) -> Bands:
    """Predict by mean and standard deviation of training batches at the same step.

    Where there is the covariate `phase`, at the same step of the same phase, or the last one that they have of it.
    """
    values, places = (_placed(each, head) for each in (train, test))
    groups: dict[tuple[int, int], list[Array]] = {}
    for batch, mask, labels in values:
        for value, there, label in zip(batch, mask, labels, strict=True):
            if there:
                groups.setdefault(label, []).append(value)
    lasts = {phase: max(step for other, step in groups if other == phase) for phase, _ in groups}
    channels = train.observations[head].shape[-1]
    mean, spread = np.full((2, len(test), max(len(each[2]) for each in places), channels), np.nan)
    for row, (_, _, labels) in enumerate(places):
        for place, (phase, step) in enumerate(labels):
            if known := groups.get((phase, min(step, lasts[phase]))):
                mean[row, place] = np.mean(known, 0)
                spread[row, place] = np.std(known, 0, ddof=min(1, len(known) - 1))
    return of_normal(mean, spread, measured(test, head))


def _placed(data: lr.SequenceData, head: str) -> list[tuple[Array, Array, list[tuple[int, int]]]]:
    """Return values, which of them are there, and phase and step within it of every batch."""
    found = []
    for row, length in enumerate(data.lengths.tolist()):
        phase = np.zeros(length, dtype=int)
        if "phase" in data.covariates:
            phase = data.covariates["phase"][row, :length].argmax(-1).numpy()
        starts = [int(np.flatnonzero(phase == each)[0]) for each in phase]
        labels = [(int(each), place - start) for place, (each, start) in enumerate(zip(phase, starts, strict=True))]
        values = data.observations[head][row, :length].double().numpy()
        found.append((values, data.masks[head][row, :length].all(-1).numpy(), labels))
    return found


def _features(data: lr.SequenceData) -> Array:
    added, charge = (data.covariates[name].double().numpy()[..., 0] for name in ("added", "charge"))
    total = np.cumsum(added, 1)
    before = [np.pad(total, ((0, 0), (lag, 0)))[:, : total.shape[1]] for lag in (1, 5, 15, 30)]
    minutes = np.broadcast_to(np.arange(total.shape[1]) / total.shape[1], total.shape)
    return np.stack([charge, total, *(total - each for each in before), minutes], -1)
