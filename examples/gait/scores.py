"""Splits of a data set, and what is scored on them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

import latentrnn as lr
from examples.simulate import Array

LATE = 50  # steps at the end of a walk, of 222


class Split(NamedTuple):
    """What is learned from, what ends a fit, and what is scored."""

    train: lr.SequenceData
    validation: lr.SequenceData
    test: lr.SequenceData


class Judged(NamedTuple):
    """Log densities of held-out sequences, (seed, sequence), nats per step, and what they cost."""

    scores: dict[str, Array]
    seconds: dict[str, float]
    weights: dict[str, int]
    results: dict[str, lr.FitResult]  # of the last fits

    def ahead(self, first: str, second: str) -> tuple[float, float]:
        """Return by how much the first is ahead, averaged over seeds, and its standard error over sequences."""
        gaps = self.scores[first].mean(0) - self.scores[second].mean(0)
        return float(gaps.mean()), float(gaps.std(ddof=1) / np.sqrt(len(gaps)))


def folds(data: lr.SequenceData, number: int = 5) -> list[Split]:
    """Every sequence is scored once; a sixth of the others ends the fit."""
    order = np.random.default_rng(0).permutation(len(data))
    parts = [data[np.sort(part).tolist()] for part in np.array_split(order, number)]
    rest = [data.without(part) for part in parts]
    ends = [each[list(range(0, len(each), 6))] for each in rest]
    return [Split(each.without(end), end, part) for each, end, part in zip(rest, ends, parts, strict=True)]


def remembered(result: lr.FitResult, test: lr.SequenceData) -> tuple[Array, Array]:
    """How far the knee moves at the end of each walk, as predicted and as measured: standard deviations, degrees."""
    measured = test.observations["knee"].double().numpy()[:, -LATE:, 0]
    predicted = result.posterior(test).mean("knee", 1).double().numpy()[:, -LATE:, 0]
    return predicted.std(1), measured.std(1)
