"""Reaches of a monkey with the spikes of 98 units of motor cortex, from the folder `monkey_reach_bmi`.

800 reaches to 8 targets, 100 each, in bins of 20 ms: the training data of the course on brain-machine interfaces at
Imperial College London, recorded in the laboratory of K. Shenoy. Trials have 19 to 39 bins; the first 19 are used.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import latentrnn as lr
from examples.simulate import Reaches

DT, BINS = 0.02, 19


def recorded(folder: Path) -> Reaches:
    """Return all trials, in the order of the files, which is by direction."""
    spikes = np.loadtxt(folder / "monkey_features_300.csv", delimiter=",")
    hand = np.loadtxt(folder / "monkey_targets_300.csv", delimiter=",")  # x, y, z in mm, direction, trial
    trials = [np.flatnonzero(hand[:, 4] == number)[:BINS] for number in range(1, 801)]
    position = np.stack([hand[rows, :2] for rows in trials])
    velocity = np.gradient(position, DT, axis=1)
    direction = np.array([int(hand[rows[0], 3]) - 1 for rows in trials])
    return Reaches(np.stack([spikes[rows] for rows in trials]), velocity, direction)


def split(found: Reaches, values: Any) -> tuple[Any, Any, Any]:
    """Return what training, validation and test trials have of values, trials first: 80, 10 and 10% of them."""
    fold = np.arange(len(found.counts)) % 10
    return values[fold < 8], values[fold == 8], values[fold == 9]


def as_sequences(found: Reaches) -> tuple[lr.SequenceData, lr.SequenceData, lr.SequenceData]:
    """Return training, validation and test trials, every fourth unit hidden, as in `benchmarks/quality_time.py`."""
    hidden = np.arange(found.counts.shape[-1]) % 4 == 0
    heads = {"shown": found.counts[..., ~hidden], "hidden": found.counts[..., hidden]}
    return split(found, lr.SequenceData.from_arrays(heads, dt=DT))
