"""Trials of the locust are split so that none is in two parts."""

from __future__ import annotations

import numpy as np

from examples.stimulus_gain.data import DOSES, TRIALS, Doses, folds


def test_every_trial_is_in_one_part_and_all_doses_are_in_each() -> None:
    number = len(DOSES) * TRIALS
    dose = np.repeat(np.arange(len(DOSES)), TRIALS)
    parts = folds(Doses(np.zeros((number, 2, 1)), np.zeros((number, 2, 1)), dose.astype(float), 0.05))
    assert sorted(np.concatenate(parts).tolist()) == list(range(number))
    assert all(set(dose[part]) == set(range(len(DOSES))) for part in parts)
