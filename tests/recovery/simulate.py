"""Data with planted truths, in numpy alone, and the two numbers by which a recovery is judged."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

Array = NDArray[np.float64]

# The gate's two levels. The largest gate over the data is OPEN, so that in the convention of `Posterior.gain`, where
# it is one, the planted gain is OPEN * beta.
CLOSED, OPEN = 0.05, 0.95


class PlantedGain(NamedTuple):
    """counts_t ~ Poisson(exp(b + beta g_t s_t)), the gate g_t held open or closed since the last cue."""

    counts: Array  # (sequence, time, channel)
    stimulus: Array  # (sequence, time, 1)
    cue: Array  # (sequence, time, 1): +1 where an open context begins, -1 where a closed one does, 0 elsewhere
    is_open: NDArray[np.bool_]  # (sequence, time)
    beta: Array  # (channel,), nats per unit of stimulus at a gate of one


def planted_gain(seed: int, sequences: int, *, steps: int = 60, channels: int = 40) -> PlantedGain:
    """Simulate contexts of 8 to 24 steps, a stimulus ~ Normal(0, 1) at every step, and gains of both signs."""
    rng = np.random.default_rng(seed)
    beta = rng.permutation(np.repeat([-1.0, 1.0], channels // 2)) * rng.uniform(0.1, 0.8, channels)
    baseline = np.log(rng.uniform(0.1, 0.6, channels))
    cue, is_open = np.zeros((sequences, steps)), np.zeros((sequences, steps), dtype=bool)
    for sequence in range(sequences):
        onset = 0
        while onset < steps:
            opens, length = bool(rng.random() < 0.5), int(rng.integers(8, 25))
            cue[sequence, onset] = 1.0 if opens else -1.0
            is_open[sequence, onset : onset + length] = opens
            onset += length
    stimulus = rng.normal(size=(sequences, steps))
    gate = np.where(is_open, OPEN, CLOSED)
    rate = np.exp(baseline + beta * (gate * stimulus)[..., None])
    return PlantedGain(rng.poisson(rate).astype(float), stimulus[..., None], cue[..., None], is_open, beta)


class PlantedState(NamedTuple):
    """counts_t ~ Poisson(exp(b + C z_t)), z_t = A z_{t-1} + B s_t + noise, A a damped rotation of the plane."""

    counts: Array  # (sequence, time, channel)
    stimulus: Array  # (sequence, time, 1)


def planted_state(
    seed: int, sequences: int, *, noise: float, steps: int = 30, channels: int = 8, angle: float = 0.35
) -> PlantedState:
    """Simulate; `noise` is the standard deviation of the state's own noise, `angle` its turn per step in radians."""
    rng = np.random.default_rng(seed)
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    loading, baseline = 0.35 * rng.normal(size=(channels, 2)), np.log(rng.uniform(0.3, 1.0, channels))
    stimulus = rng.normal(size=(sequences, steps, 1))
    state, eta = np.zeros((sequences, 2)), np.zeros((sequences, steps, channels))
    for t in range(steps):
        state = 0.92 * state @ rotation.T + stimulus[:, t] * [0.4, 0.0] + noise * rng.normal(size=state.shape)
        eta[:, t] = baseline + state @ loading.T
    return PlantedState(rng.poisson(np.exp(eta)).astype(float), stimulus)


def area_under_curve(score: Array, label: NDArray[np.bool_]) -> float:
    """Return the probability that a random positive scores above a random negative (Mann and Whitney's U / n m)."""
    ranks, positive = rankdata(score.ravel()), label.ravel()
    n, m = positive.sum(), (~positive).sum()
    return float((ranks[positive].sum() - n * (n + 1) / 2) / (n * m))


def paired_errors(better: Array, worse: Array) -> float:
    """Return the mean paired difference over sequences in units of its standard error."""
    difference = np.asarray(better - worse, dtype=float)
    return float(difference.mean() / (difference.std(ddof=1) / np.sqrt(difference.size)))


class SharedLatent(NamedTuple):
    """Sessions with channels of their own: counts_t ~ Poisson(exp(b + C z_t)), z a Lorenz system that all share."""

    held_in: dict[str, Array]  # per session (sequence, time, channel)
    held_out: dict[str, Array]
    rates: dict[str, Array]  # the true ones of the held-out channels, expected counts per bin


def shared_lorenz(
    seed: int, sessions: int, sequences: int, *, steps: int = 40, held_in: int = 8, held_out: int = 8
) -> SharedLatent:
    """Simulate; every sequence starts elsewhere on the attractor, log-rates have a standard deviation of about one."""
    rng = np.random.default_rng(seed)
    observed: dict[str, tuple[Array, Array, Array]] = {}
    for name in "abcdefghijkl"[:sessions]:
        states = _lorenz(rng, sequences, steps)
        loading = rng.normal(size=(3, held_in + held_out))
        loading *= 1.04 / np.linalg.norm(loading, axis=0)
        baseline = np.log(rng.uniform(0.1, 0.5, held_in + held_out)) - 0.18
        rates = np.exp(baseline + states @ loading)
        counts = rng.poisson(rates).astype(float)
        observed[name] = counts[..., :held_in], counts[..., held_in:], rates[..., held_in:]
    return SharedLatent(*({name: parts[i] for name, parts in observed.items()} for i in range(3)))


def _lorenz(rng: np.random.Generator, sequences: int, steps: int, *, per_bin: int = 4, dt: float = 0.01) -> Array:
    """Return the Lorenz system, centred and scaled to unit variance, (sequence, time, 3), by Runge-Kutta steps."""

    def slope(z: Array) -> Array:
        x, y, w = z.T
        return np.stack([10.0 * (y - x), x * (28.0 - w) - y, x * y - 8.0 / 3.0 * w], 1)

    z, path = 8.0 * rng.normal(size=(sequences, 3)) + [0.0, 0.0, 25.0], []
    settled = 500
    for step in range(settled + steps * per_bin):
        first = slope(z)
        second = slope(z + dt / 2 * first)
        third = slope(z + dt / 2 * second)
        z = z + dt / 6 * (first + 2 * second + 2 * third + slope(z + dt * third))
        if step >= settled and (step - settled) % per_bin == per_bin - 1:
            path.append(z)
    return (np.stack(path, 1) - [0.0, 0.0, 23.5]) / [7.9, 9.0, 8.6]
