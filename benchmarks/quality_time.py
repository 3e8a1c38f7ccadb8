"""Held-out score against training time: co-smoothing of motor cortex, with the true ELBO, over seeds.

`python benchmarks/quality_time.py` writes `benchmarks/results/quality_time.md`. The data, 98 units of motor cortex in
800 reaches, are in the folder LATENTRNN_SHARED or ../shared, data/monkey_reach_bmi/. The protocol:

- The first 19 bins (of 20 ms) of every trial. By index from zero, trials with index mod 10 = 9 test, = 8 validate, the
  others train. Channels with index mod 4 = 0 (25 of 98) are hidden from the encoder; all are predicted.
- Rates are averaged over 50 draws of the posterior. Bits per spike over the hidden channels of the test trials, beside
  a null model that knows each channel's mean over these very trials.
- Structure and settings were chosen by the bits per spike of the validation trials, with seed 0; the test trials are
  scored at the end of each fit, for the table alone. Each fit takes a given number of steps, none is dropped.

lfads-torch reaches 0.202 bits per spike after 334 s of training on a 2-core machine of 142 GFLOP/s.

References:
    Pei et al. Neural Latents Benchmark '21: evaluating latent variable models of neural population activity. 2021.
    Sedler, Pandarinath. lfads-torch: a modular and extensible implementation of latent factor analysis via dynamical
    systems. 2023.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

import latentrnn as lr

ROOT = Path(__file__).resolve().parents[1]
DRAWS = 50
BINS = 19


def folder() -> Path:
    """Where the recordings are."""
    return Path(os.environ.get("LATENTRNN_SHARED", ROOT.parent / "shared")) / "data" / "monkey_reach_bmi"


def load() -> tuple[lr.SequenceData, lr.SequenceData, lr.SequenceData]:
    """Training, validation and test trials, with heads `shown` and `hidden`."""
    counts = np.loadtxt(folder() / "monkey_features_300.csv", delimiter=",")
    trial = np.loadtxt(folder() / "monkey_targets_300.csv", delimiter=",", usecols=4).astype(int)
    trials = np.stack([counts[trial == number][:BINS] for number in range(1, 801)])
    hidden = np.arange(trials.shape[-1]) % 4 == 0
    data = lr.SequenceData.from_arrays({"shown": trials[..., ~hidden], "hidden": trials[..., hidden]}, dt=0.02)
    fold = np.arange(len(data)) % 10
    return data[fold < 8], data[fold == 8], data[fold == 9]


@dataclass(frozen=True)
class Recipe:
    """A model with its fit."""

    name: str
    steps: int
    hidden: int = 64
    encoder: int = 64
    inputs: int = 4
    initial: int = 16
    learning_rate: float = 5e-3


RECIPES = (Recipe("20 s", 800), Recipe("70 s", 2000))


def build(recipe: Recipe, spec: lr.DataSpec) -> tuple[lr.LatentRNN, lr.Guide]:
    """A GRU driven by inputs that vary smoothly, read out by two Poisson heads."""
    model = lr.LatentRNN(
        spec,
        transition=lr.GRU(recipe.hidden),
        latent=lr.Innovations(recipe.inputs, initial=recipe.initial, prior="ar1"),
        observations={"shown": lr.Poisson(), "hidden": lr.Poisson()},
    )
    return model, lr.Guide(model, encoder=lr.RNNEncoder(recipe.encoder, observes="shown"))


def expected(result: lr.FitResult, data: lr.SequenceData) -> np.ndarray:
    """Rates of the hidden channels, averaged over draws, (trial, time, channel)."""
    return result.posterior(data, device="cpu").rates("hidden", DRAWS).mean(0).double().numpy()


def bits(rates: np.ndarray, data: lr.SequenceData) -> tuple[float, float]:
    """Bits per spike of the hidden channels, and its standard error over trials."""
    counts = data.observations["hidden"].double().numpy()
    null = counts.mean((0, 1))
    gain = (counts * np.log(rates / null) - rates + null).sum((1, 2)) / np.log(2)
    spikes = counts.sum((1, 2))
    value = gain.sum() / spikes.sum()
    error = np.sqrt(((gain - value * spikes) ** 2).sum()) / spikes.sum()
    return float(value), float(error)


@dataclass(frozen=True)
class Row:
    """What one fit reached."""

    recipe: Recipe
    seed: int
    seconds: float
    elbo: float  # of the validation trials, nats per trial
    validation: float
    test: float
    error: float
    rates: np.ndarray  # of the test trials


def run(recipe: Recipe, seed: int) -> Row:
    """Fit with a seed, and score."""
    train, validation, test = load()
    model, guide = build(recipe, train.spec)
    start = time.perf_counter()
    result = lr.fit(
        model,
        guide,
        train,
        validation,
        seed=seed,
        steps=recipe.steps,
        optimizer=lr.AdamW(learning_rate=recipe.learning_rate, weight_decay=0.1, averaging=0.99),
        stopping=lr.EarlyStopping(every=100, patience=None),
        objective=lr.ELBO(kl=lr.KLWarmUp(0.2)),
        reporting=lr.Reporting(progress=False),
    )
    seconds = time.perf_counter() - start
    rates = expected(result, test)
    bound, valid = max(result.history["validation_elbo"]), bits(expected(result, validation), validation)[0]
    return Row(recipe, seed, seconds, bound, valid, *bits(rates, test), rates)


def gflops() -> float:
    """Rate of a float32 matrix product on the CPU, 10^9 operations per second."""
    a = torch.randn(2048, 2048)
    times = []
    for _ in range(6):
        start = time.perf_counter()
        a @ a
        times.append(time.perf_counter() - start)
    return 2 * 2048**3 / min(times) / 1e9


def main() -> None:
    """Fit every recipe with every seed and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--pooled", type=int, default=10, help="seeds of the last recipe whose rates are averaged")
    parser.add_argument("--threads", type=int, default=1, help="of torch; on two a step this small gains nothing")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "quality_time.md")
    options = parser.parse_args()
    if not (folder() / "monkey_features_300.csv").exists():
        print(f"skipped: no monkey_features_300.csv in {folder()}; LATENTRNN_SHARED names the folder above data/")
        return
    rate = gflops()
    torch.set_num_threads(options.threads)
    rows = []
    for recipe in RECIPES:
        for seed in range(options.seeds):
            rows.append(run(recipe, seed))
            print(recipe.steps, seed, rows[-1].seconds, rows[-1].test, flush=True)
    pooled = [row for row in rows if row.recipe is RECIPES[-1]]
    for seed in range(options.seeds, options.pooled):
        pooled.append(run(RECIPES[-1], seed))
    text = report(rows, pooled, options.threads, rate)
    options.out.write_text(text)
    print(text)


def report(rows: list[Row], pooled: list[Row], threads: int, rate: float) -> str:
    """The table, and means over seeds."""
    lines = [
        "# Co-smoothing of motor cortex: bits per spike against training time",
        "",
        "Protocol: see the script. Every fit maximises the true ELBO (the KL term has weight one after a fifth of the",
        f"steps) on {threads} thread{'s' if threads > 1 else ''} of a machine whose matrix product runs at {rate:.0f} "
        f"GFLOP/s on all its cores; torch {torch.__version__},",
        f"latentrnn {lr.__version__}, {platform.machine()}. Seconds are those of `lr.fit`, validation included. "
        "Test: with its standard error over trials.",
        "",
        "| steps | seed | seconds | validation ELBO | validation, bits per spike | test, bits per spike |",
        "|---|---|---|---|---|---|",
    ]
    for r in rows:
        cells = [f"{r.recipe.steps}", f"{r.seed}", f"{r.seconds:.0f}", f"{r.elbo:.1f}", f"{r.validation:.4f}"]
        lines.append(f"| {' | '.join(cells)} | {r.test:.4f} ({r.error:.4f}) |")
    lines += ["", "| | seconds, longest | test, mean over seeds | lowest | highest |", "|---|---|---|---|---|"]
    for recipe in RECIPES:
        own = [r for r in rows if r.recipe is recipe]
        tests = [r.test for r in own]
        lines.append(
            f"| {recipe.steps} steps | {max(r.seconds for r in own):.0f} | **{statistics.mean(tests):.4f}** | "
            f"{min(tests):.4f} | {max(tests):.4f} |"
        )
    value, error = bits(np.mean([r.rates for r in pooled], 0), load()[2])
    lines.append(
        f"| {len(pooled)} seeds of {pooled[0].recipe.steps} steps, rates averaged | "
        f"{sum(r.seconds for r in pooled):.0f} in all | **{value:.4f}** ({error:.4f}) | | |"
    )
    lines.append("| lfads-torch (2-core machine, 142 GFLOP/s) | 334 | 0.202 | | |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
