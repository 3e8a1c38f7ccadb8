"""The grasshopper auditory receptor recordings that nitime ships, binned.

Two intracellular recordings of 10 s from primary auditory receptors of Locusta migratoria. The stimulus is a 2.5 kHz
tone whose amplitude is a Gaussian noise in decibels (standard deviation 6 dB), with a cut-off at 200 Hz in the first
recording and at 800 Hz in the second. nitime keeps the amplitude at 20 kHz, scaled to lie between 0.016 and 1 (36 dB),
and the spike times in microseconds.

Sources: the data directory and the grasshopper example of nitime; the experiments are those of Rokem, Watzl, Gollisch,
Stemmler, Herz and Samengo, "Spike-timing precision underlies the coding efficiency of auditory receptor neurons",
Journal of Neurophysiology 95, 2006.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import as_file, files

import numpy as np
from numpy.typing import NDArray

STIMULUS_STEP = 50  # microseconds between stimulus samples, 20 kHz
BIN = 1000  # microseconds per bin: no interspike interval is shorter than 3 ms, so a bin holds one spike at most
FEATURES = ("amplitude", "log amplitude")

# Stretches of each recording, in order. Every choice is made on the first two; the last is scored once.
TRAIN, VALIDATION, TEST = 0.64, 0.16, 0.20


@dataclass(frozen=True)
class Recording:
    """One recording in bins of ``dt`` seconds.

    ``counts`` is (time, 1), spikes per bin. ``stimulus`` is (time, 2): the bin's mean amplitude and the mean of its
    natural logarithm (``feature_names``), because a linear filter of either alone misses much. Bits per spike of a
    Poisson regression on 30 ms of stimulus, validation stretch of recording 1 and of recording 2: 0.71 and 0.68 on the
    amplitude, 0.82 and 0.51 on its logarithm, 1.07 and 0.71 on both. Finer features than 1 ms add nothing.
    """

    name: str
    counts: NDArray[np.int64]
    stimulus: NDArray[np.float64]
    spike_times: NDArray[np.float64]  # seconds from the start of the recording
    dt: float = BIN * 1e-6
    feature_names: tuple[str, ...] = FEATURES


@dataclass(frozen=True)
class Stretches:
    """Consecutive slices of bins: fit on ``train``, choose on ``validation``, score on ``test``."""

    train: slice
    validation: slice
    test: slice


def load_recordings() -> tuple[Recording, Recording]:
    """Both recordings, 200 Hz and 800 Hz cut-off, 10 000 bins of 1 ms each."""
    return load_recording(1), load_recording(2)


def load_recording(number: int) -> Recording:
    """Recording 1 or 2."""
    if number not in (1, 2):
        raise ValueError(f"number: nitime ships recordings 1 and 2; got {number!r}")
    times = _read(f"grasshopper_spike_times{number}.txt").astype(np.int64)  # whole microseconds, so binning is exact
    amplitude = _read(f"grasshopper_stimulus{number}.txt")[:, 1].reshape(-1, BIN // STIMULUS_STEP)
    return Recording(
        name=f"recording {number}",
        counts=np.bincount(times // BIN, minlength=len(amplitude))[:, None],
        stimulus=np.stack([amplitude.mean(axis=1), np.log(amplitude).mean(axis=1)], axis=1),
        spike_times=times * 1e-6,
    )


def stretches(num_steps: int) -> Stretches:
    """Where training, validation and test lie in a recording of ``num_steps`` bins."""
    first, second = round(TRAIN * num_steps), round((TRAIN + VALIDATION) * num_steps)
    return Stretches(slice(0, first), slice(first, second), slice(second, num_steps))


def _read(name: str) -> NDArray[np.float64]:
    with as_file(files("nitime") / "data" / name) as path:
        return np.loadtxt(path)
