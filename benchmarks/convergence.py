"""Where fits end by themselves, and what three times the steps would still have brought.

`python benchmarks/convergence.py` writes `benchmarks/results/convergence.md`. Every data set is fitted as `lr.fit`
does without a number of steps, with validation sequences and for some without, and then for three times
as many steps along a half cosine. All are scored on test sequences that no fit has seen, by the ELBO with 20 draws,
nats per sequence. Data that "chose" were looked at while the rule's constants were chosen; those that "judge" were
not. `--data` chooses some. Three of them need recordings in the folder LATENTRNN_SHARED or ../shared.
"""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

import latentrnn as lr
from benchmarks import network_priors, polyphonic

ROOT = Path(__file__).resolve().parents[1]
Parts = tuple[lr.SequenceData, lr.SequenceData, lr.SequenceData]  # training, validation, test
Pair = tuple[lr.LatentRNN, lr.Guide]


def gru_states(rng: np.random.Generator, units: int, trials: int, bins: int) -> np.ndarray:
    """States of a gated network with random weights that noise of three dimensions drives, (trial, bin, unit)."""
    update, candidate = (1.5 * rng.normal(size=(units, units)) / units**0.5 for _ in range(2))
    update_input, candidate_input = (rng.normal(size=(units, 3)) for _ in range(2))
    state, states = np.tanh(rng.normal(size=(trials, units))), np.empty((trials, bins, units))
    for t in range(bins):
        noise = 0.5 * rng.normal(size=(trials, 3))
        gate = 1 / (1 + np.exp(2 - state @ update.T - noise @ update_input.T))
        state = (1 - gate) * state + gate * np.tanh(state @ candidate.T + noise @ candidate_input.T)
        states[:, t] = state
    return states


def counts(seed: int, units: int, channels: int, numbers: tuple[int, int, int], bins: int = 60) -> Parts:
    """Spike counts of channels that a gated network of `units` drives."""
    rng = np.random.default_rng(seed)
    states = gru_states(rng, units, sum(numbers), bins)
    drive = 1.5 * states @ rng.normal(size=(channels, units)).T / units**0.5
    rates = 0.4 * np.exp(np.clip(drive, -4, 3))
    return parts(lr.SequenceData.from_arrays({"y": rng.poisson(rates).astype(float)}, dt=0.01), numbers)


def weekly(seed: int, weeks: int, numbers: tuple[int, int, int]) -> Parts:
    """Weekly series with a season, promotions that saturate, and a level that wanders."""
    rng = np.random.default_rng(seed)
    series, time_ = sum(numbers), np.arange(weeks)
    season = np.stack([np.sin(2 * np.pi * time_ / 52), np.cos(2 * np.pi * time_ / 52)], -1)
    promotion = (rng.random((series, weeks)) < 0.15) * rng.gamma(2.0, 1.0, (series, weeks))
    level = np.cumsum(0.1 * rng.normal(size=(series, weeks)), 1) + rng.normal(size=(series, 1))
    stock = np.zeros((series, weeks))
    for t in range(1, weeks):
        stock[:, t] = 0.7 * stock[:, t - 1] + promotion[:, t]
    y = 5 + level + season @ [1.0, 0.5] + 1.5 * np.tanh(stock / 2) + 0.3 * rng.normal(size=(series, weeks))
    known = np.concatenate([promotion[..., None], np.broadcast_to(season, (series, weeks, 2))], -1)
    return parts(lr.SequenceData.from_arrays({"y": y[..., None]}, {"known": known}), numbers)


def oscillators(seed: int, numbers: tuple[int, int, int], bins: int = 60) -> Parts:
    """Binary channels that two coupled oscillators of wandering phase drive."""
    rng = np.random.default_rng(seed)
    trials = sum(numbers)
    phase = 2 * np.pi * rng.random((trials, 1, 2)) + np.cumsum(
        np.array([0.2, 0.33]) + 0.08 * rng.normal(size=(trials, bins, 2)), 1
    )
    waves = np.concatenate([np.sin(phase), np.cos(phase)], -1)
    logits = 2.0 * np.tanh(1.5 * waves) @ rng.normal(size=(4, 16)) - 1.0
    fired = rng.random(logits.shape) < 1 / (1 + np.exp(-logits))
    return parts(lr.SequenceData.from_arrays({"y": fired.astype(float)}, dt=0.01), numbers)


def parts(data: lr.SequenceData, numbers: tuple[int, int, int]) -> Parts:
    """Cut off so many sequences for training, validation and test."""
    first, second = numbers[0], numbers[0] + numbers[1]
    return data[:first], data[first:second], data[second:]


def gru(data: lr.SequenceData, size: int, latents: int, head: str, family: lr.Observation) -> Pair:
    """A GRU with innovations, and a guide of the usual kind."""
    model = lr.LatentRNN(
        data.spec, transition=lr.GRU(size), latent=lr.Innovations(latents), observations={head: family}
    )
    return model, lr.Guide(model, encoder=lr.RNNEncoder(size))


def heard(data: lr.SequenceData) -> Pair:
    """A GRU without noise into which the counts of the bin before feed back."""
    model = lr.LatentRNN(
        data.spec,
        transition=lr.GRU(16),
        latent=lr.Deterministic(),
        observations={"counts": lr.Poisson(feedback=lr.History(1, 1))},
    )
    return model, lr.Guide(model)


@dataclass(frozen=True)
class Case:
    """Data with the model that is fitted to them, and whether they chose the constants."""

    chose: bool
    load: Callable[[], Parts]
    build: Callable[[lr.SequenceData], Pair]


CASES = {
    "counts, 20 channels": Case(
        True, lambda: counts(0, 20, 20, (40, 15, 60)), lambda d: gru(d, 16, 3, "y", lr.Poisson())
    ),
    "weekly, 10 series": Case(True, lambda: weekly(0, 104, (10, 4, 40)), lambda d: gru(d, 8, 1, "y", lr.Gaussian())),
    "monkey reaches": Case(
        True, lambda: network_priors.load_monkey(0), lambda d: gru(d, 16, 2, "counts", lr.Poisson())
    ),
    "counts, 30 channels": Case(
        False, lambda: counts(7, 30, 30, (60, 20, 80)), lambda d: gru(d, 20, 3, "y", lr.Poisson())
    ),
    "weekly, 6 series": Case(False, lambda: weekly(7, 78, (6, 2, 60)), lambda d: gru(d, 10, 1, "y", lr.Gaussian())),
    "oscillators, binary": Case(
        False, lambda: oscillators(7, (60, 20, 80)), lambda d: gru(d, 16, 2, "y", lr.Bernoulli())
    ),
    "locust odours": Case(False, lambda: network_priors.load_locust(0), heard),
    "chorales": Case(False, lambda: chorales(), lambda d: gru(d, 32, 4, "notes", lr.Bernoulli())),
}


def chorales() -> Parts:
    """The first forty training chorales, and some of the others."""
    train, valid, test = polyphonic.load("chorales")
    return train[:40], valid[:20], test[:40]


# -- fits ------------------------------------------------------------------------------------------------------------

DRAWS = 20


@dataclass(frozen=True)
class Row:
    """One data set, fitted with or without validation sequences.

    Attributes:
        name, chose, validated: which.
        steps, seconds, reason: of the fit that ended by itself.
        score, error: of it, nats per sequence of the test, and the standard error over sequences.
        gain, gain_error, longer: what three times the steps score above it, the paired error, and their seconds.
    """

    name: str
    chose: bool
    validated: bool
    steps: int
    seconds: float
    reason: str
    score: float
    error: float
    gain: float
    gain_error: float
    longer: float

    def cells(self) -> list[str]:
        """Return the cells of its line in the table."""
        return [
            self.name, "chose" if self.chose else "judges", "yes" if self.validated else "no", f"{self.steps:,}",
            f"{self.score:.2f} +- {self.error:.2f}", f"{self.gain:+.2f} +- {self.gain_error:.2f}",
            f"{self.seconds / self.longer:.2f}", self.reason,
        ]  # fmt: skip


def run(name: str, validated: bool) -> Row:
    """Fit as the rule does and for three times as many steps along a half cosine, and score both on the test."""
    case = CASES[name]
    train, valid, test = case.load()

    def fitted(**settings: Any) -> tuple[lr.FitResult, torch.Tensor, float]:
        model, guide = case.build(train)
        start = time.perf_counter()
        result = lr.fit(
            model, guide, train, valid if validated else None, seed=0,
            compute=lr.Compute("cpu"), reporting=lr.Reporting(progress=False), **settings,
        )  # fmt: skip
        seconds = time.perf_counter() - start
        return result, result.posterior(test, device="cpu").evidence("elbo", DRAWS).values.double(), seconds

    result, own, seconds = fitted()
    steps = 1 + int(max(result.history["step"][-1], *result.history.get("validation_step", [0])))
    print(name, steps, seconds, float(own.mean()), result.stop_reason, flush=True)
    _, scores, longer = fitted(steps=3 * steps, stopping=lr.EarlyStopping(patience=None))
    reason = result.stop_reason.partition(";")[0] + ";" + result.stop_reason.rpartition(";")[2]
    gain, count = scores - own, len(own)
    return Row(
        name, case.chose, validated, steps, seconds, reason, float(own.mean()), float(own.std()) / count**0.5,
        float(gain.mean()), float(gain.std()) / count**0.5, longer,
    )  # fmt: skip


def main() -> None:
    """Fit, score, write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", nargs="*", default=list(CASES), choices=list(CASES))
    parser.add_argument("--without", nargs="*", default=list(CASES), choices=list(CASES), help="fitted without too")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "convergence.md")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for name in options.data:
        for validated in (True, False) if name in options.without else (True,):
            rows.append(run(name, validated))
            print(rows[-1], flush=True)
    options.out.write_text(table(rows))


def table(rows: list[Row]) -> str:
    """Return the table with its explanation."""
    head = ["data", "role", "validation", "steps", "score", "three times the steps", "time", "stop reason"]
    lines = [head, ["---"] * len(head), *(row.cells() for row in rows)]
    return "\n".join(
        [
            "# Where fits end by themselves",
            "",
            f"`benchmarks/convergence.py` on {platform.processor() or platform.machine()}, one thread, torch "
            f"{torch.__version__}.",
            "",
            f"Score: ELBO of test sequences with {DRAWS} draws, nats per sequence, with its standard error.",
            "The next column is what a fit of three times as many steps along a half cosine scores above it, with the",
            "paired error. Its weights are the best by the same validation sequences, or the last without. Time: of",
            "the rule's fit, over that of the longer one. Other programs ran beside.",
            "",
            *("| " + " | ".join(line) + " |" for line in lines),
            "",
        ]
    )


if __name__ == "__main__":
    main()
