"""A grasshopper's auditory receptor, which nitime ships."""

from __future__ import annotations

from importlib.resources import as_file, files

import numpy as np

from latentrnn.data import SequenceData
from latentrnn.datasets.shipped import shipped_by

STIMULUS_STEP = 50e-6  # seconds between samples of the amplitude


def grasshopper(number: int = 1, *, dt: float = 0.001) -> SequenceData:
    """Spikes of an auditory receptor of a locust under a tone of varying amplitude: one sequence of 10 s.

    Head `spikes`, counts per bin; covariate `stimulus` with the features `amplitude` and `log amplitude`, means over
    the bin. The amplitude is Gaussian noise in decibels with a cut-off at 200 Hz (recording 1) or 800 Hz (2).

    Args:
        number: 1 or 2.
        dt: seconds per bin, a multiple of 50 microseconds that divides 10 s.

    Raises:
        ModuleNotFoundError: nitime is not installed.
        ValueError: another number, or bins that do not divide the recording.

    References:
        A. Rokem, S. Watzl, T. Gollisch, M. Stemmler, A. Herz, I. Samengo (2006), Spike-timing precision underlies the
        coding efficiency of auditory receptor neurons, Journal of Neurophysiology.

    Example:
        >>> grasshopper(2)
        SequenceData: 1 sequence of 10000 steps, dt = 0.001 s
          observations: spikes (1 channel)
          covariates: stimulus (2 features)
    """
    if number not in (1, 2) or isinstance(number, bool):
        raise ValueError(f"grasshopper: expected recording 1 or 2, found {number!r}")
    times = _read(f"grasshopper_spike_times{number}.txt") * 1e-6  # from microseconds
    amplitude = _read(f"grasshopper_stimulus{number}.txt")[:, 1]
    samples = round(dt / STIMULUS_STEP) if isinstance(dt, int | float) and dt > 0 else 0
    if samples < 1 or abs(samples * STIMULUS_STEP - dt) > 1e-9 or len(amplitude) % samples:
        raise ValueError(f"grasshopper: dt must be a multiple of 50 microseconds that divides 10 s, found {dt!r}")
    bins = amplitude.reshape(-1, samples)
    features = np.stack([bins.mean(1), np.log(bins).mean(1)], 1)
    return SequenceData.from_spike_times(
        [[times]],
        dt=dt,
        duration=len(amplitude) * STIMULUS_STEP,
        covariates={"stimulus": features[None]},
        feature_names={"stimulus": ["amplitude", "log amplitude"]},
        sequence_names=[f"recording {number}"],
    )


def _read(name: str) -> np.ndarray:
    shipped_by("nitime", "nitime", "grasshopper")
    with as_file(files("nitime") / "data" / name) as path:
        return np.loadtxt(path)
