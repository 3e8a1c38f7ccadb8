"""Data with everything at once, for the tests of this room."""

from __future__ import annotations

import numpy as np

from latentrnn.data import SequenceData

LENGTHS = (9, 6, 12, 8, 7, 12, 7, 10)
CLOCK = 2


def ragged(*, seed: int = 0, label: bool = True, irregular: bool = False) -> SequenceData:
    """Eight sequences of 6 to 12 steps with missing entries, a slow head, totals and, if wanted, labels and times."""
    random = np.random.default_rng(seed)
    counts = [random.poisson(2.0, (length, 3)).astype(float) for length in LENGTHS]
    totals = [count.sum(1) for count in counts]
    counts[2][5, 1] = counts[0][8, 2] = np.nan
    observations: dict[str, object] = {
        "counts": counts,
        "slow": [random.normal(size=(length // CLOCK, 2)) for length in LENGTHS],
    }
    if label:
        observations["label"] = np.array([[0.0], [1.0], [np.nan], [1.0], [0.0], [1.0], [0.0], [1.0]])
    stamps = [np.cumsum(random.uniform(0.1, 1.0, length)) for length in LENGTHS]
    return SequenceData.from_arrays(
        observations,
        {"stimulus": [random.normal(size=(length, 2)) for length in LENGTHS]},
        clocks={"slow": CLOCK},
        per_sequence=["label"] if label else [],
        totals={"counts": totals},
        times=stamps if irregular else None,
        dt=None if irregular else 0.01,
    )
