"""Is the model that made the data the one that a comparison puts first?

`python -m benchmarks.model_recovery` writes `benchmarks/results/model_recovery.md`. Four systems, simulated in NumPy,
and the model of each; every model is fitted to the data of every system, all at the same settings, and `lr.compare`
ranks them by the evidence of sequences that no fit has seen. Evidence is exact for all four.

    noise:      y_t ~ Normal(b, scale)
    regimes:    c_t a Markov chain of three states, y_t ~ Normal(b_{c_t}, scale)
    rotation:   z_t ~ Normal(A z_{t-1}, scale),  y_t ~ Normal(C z_t + b, scale)
    recursion:  y_t ~ Normal(f(y_{t-1}), scale), f a wave

The true model is at least as good as any other but for what was not learned, and the difference of two models is about
Normal over test sequences: it lies above minus one standard error with a probability of at least 0.84. Where models are
the same but for their names there is nothing to rank.
"""

from __future__ import annotations

import argparse
import platform
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy import stats

import latentrnn as lr

OUT = Path(__file__).parent / "results" / "model_recovery.md"
Array = NDArray[np.float64]
TRAIN, VALID, TEST, STEPS, CHANNELS = 60, 15, 40, 50, 2
FIT_STEPS, LEARNING_RATE = 300, 2e-2
QUIET = lr.Reporting(progress=False)
RATE = float(stats.norm.cdf(1.0))  # of a difference above minus one standard error, where models are equally good
BUDGET = 2e-5 / 4  # of falling below the bound, for each of four systems


def noise(rng: np.random.Generator, count: int) -> Array:
    return rng.normal(size=(count, STEPS, CHANNELS)) + np.array([0.5, -0.3])


def regimes(rng: np.random.Generator, count: int) -> Array:
    moves, levels = np.full((3, 3), 0.05) + 0.85 * np.eye(3), np.array([[-1.2, 0.0], [0.4, 1.0], [1.0, -1.0]])
    states = np.empty((count, STEPS), dtype=int)
    states[:, 0] = rng.integers(3, size=count)
    for t in range(1, STEPS):
        states[:, t] = (rng.random((count, 1)) > moves.cumsum(-1)[states[:, t - 1]]).sum(-1)
    return levels[states] + 0.8 * rng.normal(size=(count, STEPS, CHANNELS))


def rotation(rng: np.random.Generator, count: int) -> Array:
    turn = 0.95 * np.array([[np.cos(0.4), -np.sin(0.4)], [np.sin(0.4), np.cos(0.4)]])
    read, z, found = np.array([[1.0, 0.3], [-0.4, 0.9]]), np.zeros((count, 2)), np.empty((count, STEPS, CHANNELS))
    for t in range(STEPS):
        z = z @ turn.T + 0.3 * rng.normal(size=z.shape)
        found[:, t] = z @ read.T + 0.6 * rng.normal(size=z.shape)
    return found


def recursion(rng: np.random.Generator, count: int) -> Array:
    y, found = np.zeros((count, CHANNELS)), np.empty((count, STEPS, CHANNELS))
    for t in range(STEPS):
        y = 1.5 * np.sin(2.0 * y[:, ::-1]) + 0.5 * rng.normal(size=y.shape)
        found[:, t] = y
    return found


SYSTEMS: dict[str, Callable[[np.random.Generator, int], Array]] = {
    "noise": noise,
    "regimes": regimes,
    "rotation": rotation,
    "recursion": recursion,
}


def model_of(name: str, spec: lr.DataSpec) -> lr.LatentRNN:
    """The model of a system, with nothing known."""
    past = lr.History(1, filters=1) if name == "recursion" else None
    parts = {
        "noise": (lr.Linear(1), lr.Deterministic()),
        "regimes": (lr.Linear(1), lr.Discrete(3, weights="none")),
        "rotation": (lr.Linear(2), lr.LinearGaussian()),
        "recursion": (lr.VanillaRNN(16), lr.Deterministic()),
    }
    transition, latent = parts[name]
    heads = {"y": lr.Gaussian(feedback=past)}
    return lr.LatentRNN(spec, transition=transition, latent=latent, observations=heads)


def fits_of(system: str, seed: int) -> dict[str, lr.Posterior]:
    """Every model fitted to the data of a system, and its posterior on the test sequences."""
    values = SYSTEMS[system](np.random.default_rng([list(SYSTEMS).index(system), seed]), TRAIN + VALID + TEST)
    data = lr.SequenceData.from_arrays({"y": values})
    train, valid, test = data[:TRAIN], data[TRAIN : TRAIN + VALID], data[TRAIN + VALID :]
    found = {}
    for name in SYSTEMS:
        model, optimizer = model_of(name, data.spec), lr.AdamW(LEARNING_RATE)
        settings = {"steps": FIT_STEPS, "batch_size": TRAIN, "optimizer": optimizer, "reporting": QUIET}
        found[name] = lr.fit(model, lr.Guide(model), train, valid, seed=seed, **settings).posterior(test)
    return found


def within(table: pd.DataFrame, name: str) -> bool:
    """Whether a model is first, or no more than a standard error of the difference behind."""
    return bool(table.loc[name, "elpd_diff"] <= table.loc[name, "dse"])


def line(system: str, repetitions: int) -> str:
    """Of one system: how often its model is first, or nearly so, and how far behind the others are on average."""
    started, first, near, behind = time.process_time(), 0, 0, []
    for seed in range(repetitions):
        table = lr.compare(fits_of(system, seed))
        first += int(table.loc[system, "rank"] == 0)
        near += within(table, system)
        behind.append(table["elpd_diff"] / TEST)
        print(system, seed, first, near, flush=True)
    mean = pd.concat(behind, axis=1).mean(axis=1)
    far = ", ".join(f"{name} {mean[name]:.2f}" for name in SYSTEMS)
    spent = time.process_time() - started
    return f"| {system} | {first} of {repetitions} | {near} of {repetitions} | {far} | {spent:.0f} |"


def same_model(repetitions: int) -> str:
    """What a comparison says of one fit under two names."""
    found = fits_of("rotation", repetitions)["rotation"]
    table = lr.compare({"one": found, "other": found})
    return f"largest difference {table['elpd_diff'].abs().max():.0e}, its standard error {table['dse'].max():.0e}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=20)
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    rows = [line(system, options.repetitions) for system in SYSTEMS]
    least = stats.binom.ppf(BUDGET, options.repetitions, RATE)
    heading = (
        "| system | its model first | first or within a standard error | nats behind the first, a sequence | seconds |"
    )
    lines = [
        "# Data of four models: which one does a comparison put first?",
        "",
        f"`python -m benchmarks.model_recovery`: {TRAIN} sequences of {STEPS} steps to fit, {TEST} to compare; "
        f"{FIT_STEPS} steps of AdamW({LEARNING_RATE}) for every model; seconds are the processor's; "
        f"{platform.machine()}, torch {torch.__version__}.",
        "",
        heading,
        "|---|---|---|---|---|",
        *rows,
        "",
        f"Where the true model is as good as the best, it is first or within a standard error in at least {RATE:.2f} "
        f"of the repetitions: fewer than {least:.0f} of {options.repetitions} have a probability of {BUDGET:.0e}.",
        f"One fit under two names: {same_model(options.repetitions)}.",
    ]
    options.out.write_text("\n".join([*lines, ""]))


if __name__ == "__main__":
    main()
