"""Counts of the locust's antennal lobe under a series of doses of one odour."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from examples.simulate import Array

RATE = 15_000  # samples per second of the spike times
PERIOD, ONSET, OFFSET, BIN = 10.0, 3.0, 4.0, 0.05  # of trials, odour and bins, seconds
FROM, UNTIL = 2.5, 6.0  # the part of each trial that is kept, seconds
TRIALS = 25
UNITS = ("tetD1_u3", "tetD1_u4", "tetD1_u5", "tetD2_u1", "tetD2_u2", "tetD2_u3", "tetD2_u4")
DOSES = {"10-5": -5, "10-4": -4, "10-3": -3, "10-2": -2, "10-1": -1, "10-0_first": 0, "10-0_second": 0}


class Doses(NamedTuple):
    """Trials of one odour at several doses."""

    counts: Array  # (trial, time, unit)
    odour: Array  # (trial, time, 1), one while it is on
    dose: Array  # (trial,), logarithm to the base of ten
    dt: float  # seconds per bin


def recorded(folder: Path) -> Doses:
    """Read 1-octanol at seven doses of 25 trials each, from the folder of recordings."""
    where, steps = folder / "locust_odour" / "locust20000421", round((UNTIL - FROM) / BIN)
    counts = np.zeros((len(DOSES), TRIALS, steps, len(UNITS)))
    for place, dose in enumerate(DOSES):
        for unit, name in enumerate(UNITS):
            seconds = np.atleast_1d(np.loadtxt(where / f"locust20000421_1-Octanol_{dose}_{name}.txt")) / RATE
            trial, phase = np.divmod(seconds, PERIOD)
            kept = (trial < TRIALS) & (phase >= FROM) & (phase < UNTIL)
            step = np.floor((phase[kept] - FROM) / BIN).astype(int)
            np.add.at(counts[place], (trial[kept].astype(int), step, unit), 1.0)
    time = FROM + BIN * (np.arange(steps) + 0.5)
    on = ((time >= ONSET) & (time < OFFSET)).astype(float)
    counts = counts.reshape(-1, steps, len(UNITS))
    dose = np.repeat(np.array(list(DOSES.values()), float), TRIALS)
    return Doses(counts, np.broadcast_to(on[None, :, None], (len(counts), steps, 1)), dose, BIN)


def folds(found: Doses) -> tuple[list[int], list[int], list[int]]:
    """Training, validation and test trials, alike of every dose."""
    place = np.arange(len(found.counts)) % TRIALS
    parts = place % 3 == 0, place % 6 == 1, np.isin(place % 6, (2, 4, 5))
    return tuple(np.flatnonzero(which).tolist() for which in parts)  # type: ignore[return-value]
