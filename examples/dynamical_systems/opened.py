"""What fitted models say of the systems behind the spikes, beside what was planted and smoothed counts."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.ndimage import gaussian_filter1d

import latentrnn as lr
from examples.simulate import Angles, Array, Bits, Chaos


class Words(NamedTuple):
    """A memory of bits."""

    posterior: lr.Posterior
    points: lr.interpret.FixedPoints
    stable: int  # points
    told: int  # words that differ, read off the stable points
    saddles: int  # with one unstable mode
    slowest: float  # time constant of a stable point, seconds
    right: float  # share of bits that are read off the states rightly
    by_counts: float  # the same off smoothed counts


class Heading(NamedTuple):
    """A memory of an angle."""

    posterior: lr.Posterior
    ring: lr.interpret.FixedPoints
    kind: str  # of attractor
    points: int  # fixed and slow
    radius: float  # of where they are, one being that of the headings
    explained: float  # share of the variance of cosine and sine that states say
    by_counts: float


class Drift(NamedTuple):
    """A system that goes by itself."""

    posterior: lr.Posterior
    exponents: Array  # Lyapunov's, per second, the largest first
    errors: Array
    dimension: float  # of Kaplan and Yorke
    explained: float  # share of the variance of the planted latents that states say
    by_counts: float


def words(posterior: lr.Posterior, found: Bits) -> Words:
    """Open a memory of bits while no pulse comes."""
    points = lr.interpret.fixed_points(posterior, {"pulses": 0.0}, num_starts=300, noise=1.0)
    here, states, counts = points.dataset.isel(sample=0), states_of(posterior), smoothed(found.spikes)
    reader, rests = reader_of(states, found.bits), here.unstable.values == 0
    right, by_counts = (
        float((np.sign(read(x, r)) == found.bits).mean())
        for x, r in ((states, reader), (counts, reader_of(counts, found.bits)))
    )
    told = len(np.unique(np.sign(read(here.state.values[rests], reader)), axis=0))
    slowest = float(here.time_constant.values[rests].max())
    saddles = int((here.unstable == 1).sum())
    return Words(posterior, points, points.counts()["stable"], told, saddles, slowest, right, by_counts)


def heading(posterior: lr.Posterior, found: Angles) -> Heading:
    """Open a memory of an angle while nothing turns it."""
    ring = lr.interpret.fixed_points(posterior, {"cue": 0.0, "velocity": 0.0}, noise=0.3)
    kind, states = lr.interpret.attractor(ring).isel(sample=0), states_of(posterior)
    circle = np.stack([np.cos(found.angle), np.sin(found.angle)], -1)
    around = read(ring.dataset.state.values[0], reader_of(states, circle))
    radius, told = (
        float(np.median(np.hypot(*around.T))),
        (explained(x, circle) for x in (states, smoothed(found.spikes))),
    )
    return Heading(posterior, ring, str(kind.kind.values), int(kind.number), radius, *told)


def drift(posterior: lr.Posterior, found: Chaos) -> Drift:
    """Open a system that goes by itself; the posterior is of the first trials."""
    spectrum = lr.interpret.lyapunov(posterior, num_runs=16, steps=2000, burn_in=500).isel(sample=0)
    number = len(posterior.data)
    told = (explained(x, found.latents[:number]) for x in (states_of(posterior), smoothed(found.spikes[:number])))
    return Drift(posterior, spectrum.exponent.values, spectrum.standard_error.values, float(spectrum.dimension), *told)


def dimensions(posterior: lr.Posterior, share: float = 0.95) -> int:
    """How many leading dimensions of the state it takes for this share of what the head expects."""
    leading = lr.interpret.explained_variance(posterior, "spikes", num_samples=1).leading.values[0]
    return int(np.argmax(leading >= share)) + 1


def states_of(posterior: lr.Posterior) -> Array:
    """Mean states, (trial, time, unit)."""
    return np.asarray(posterior.latents(20 if posterior.model.latent_sites() else 1)["states"].double().mean(0))


def smoothed(spikes: Array) -> Array:
    """Counts smoothed by a Gaussian of two bins: the baseline."""
    return gaussian_filter1d(spikes, 2.0, axis=1)


def reader_of(states: Array, planted: Array) -> Array:
    """Least squares from states to what was planted, a constant last."""
    x, y = states.reshape(-1, states.shape[-1]), planted.reshape(-1, planted.shape[-1])
    return np.linalg.lstsq(np.concatenate([x, np.ones((len(x), 1))], 1), y, rcond=None)[0]


def read(states: Array, weights: Array) -> Array:
    """What states say by these weights."""
    return states @ weights[:-1] + weights[-1]


def explained(states: Array, planted: Array) -> float:
    """Share of the variance of what was planted that states say, of the half of the trials that taught them nothing."""
    half = len(states) // 2
    truth = planted[half:]
    errors = read(states[half:], reader_of(states[:half], planted[:half])) - truth
    return float(1 - (errors**2).sum() / ((truth - truth.mean((0, 1))) ** 2).sum())
