"""When inputs reached a chaotic network: inferred innovations against planted pulse times, on held-out trials.

`python benchmarks/chaotic.py` writes `benchmarks/results/chaotic.md`. The protocol is that of Sussillo et al. 2016 and
Pandarinath et al. 2018 (LFADS):

- A rate network of 50 units, tau dx/dt = -x + g W tanh(x) + B u, W ~ Normal(0, 1 / 50), g = 1.5, tau = 25 ms, solved
  in Euler steps of 10 ms; B ~ Normal(0, 1). Each condition has a start of its own, x_0 ~ Normal(0, 1), and a pulse of
  size 20 for one step, at a random time between 0.2 and 0.8 s of a trial of 1 s.
- Units spike as Poisson processes with rates of 30 Hz times (1 + tanh(x)) / 2, in bins of 10 ms.
- 260 conditions of 5 trials each. Conditions are split, 180 to train, 20 to validate, 60 to test, so that neither start
  nor pulse of a test trial was ever seen.
- The model is shown the spikes alone. The score of a step is the norm of the posterior mean of its innovation, each
  dimension in units of its prior scale. With a tolerance of k bins a step's score is the largest within k bins of it,
  whichever step it is; the pulse's step is the positive, steps more than 2k bins away are the negatives (windows that
  have nothing in common with the pulse's). AUC is the chance that a positive scores above a negative, over all test
  trials. Beside it, AUC without tolerance, and how often the largest score of a trial is within the tolerance of the
  pulse.
- Controls: pulse times of other conditions in the place of the trial's own, and the slope of smoothed counts in the
  place of innovations (no model: what the spikes show to the naked eye).

References:
    Sussillo, Jozefowicz, Abbott, Pandarinath. LFADS - latent factor analysis via dynamical systems. 2016.
    Pandarinath, O'Shea, Collins, Jozefowicz, Stavisky, ... Sussillo. Inferring single-trial neural population dynamics
    using sequential auto-encoders. 2018.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from scipy.ndimage import gaussian_filter1d, maximum_filter1d
from scipy.stats import rankdata

import latentrnn as lr

ROOT = Path(__file__).resolve().parents[1]
BIN = 0.01  # seconds
TAU, GAIN, PULSE, LARGEST_RATE = 0.025, 1.5, 20.0, 30.0
TRIALS = 5  # of each condition
TOLERANCE = 2  # bins to either side of a pulse
STEPS = 500

Array = np.ndarray


@dataclass(frozen=True)
class Trials:
    """Trials of one set of conditions, a condition's side by side."""

    counts: Array  # (trial, time, unit)
    rates: Array  # expected counts per bin
    pulses: Array  # (trial,) the step that the pulse drives

    def data(self) -> lr.SequenceData:
        """Return what a model is shown."""
        return lr.SequenceData.from_arrays({"spikes": self.counts}, dt=BIN)


def simulate(seed: int, conditions: tuple[int, ...], *, units: int = 50, steps: int = 100) -> list[Trials]:
    """Draw one network and sets of so many conditions."""
    rng = np.random.default_rng(seed)
    weights = GAIN * rng.normal(size=(units, units)) / units**0.5
    into = rng.normal(size=units)
    sets = []
    for number in conditions:
        pulses = rng.integers(steps // 5, steps * 4 // 5, number)
        x, path = rng.normal(size=(number, units)), []
        for step in range(steps):
            drive = PULSE * (pulses == step)[:, None] * into
            x = x + BIN / TAU * (-x + np.tanh(x) @ weights.T + drive)
            path.append(x)
        rates = np.repeat(BIN * LARGEST_RATE * (1 + np.tanh(np.stack(path, 1))) / 2, TRIALS, 0)
        sets.append(Trials(rng.poisson(rates).astype(np.float32), rates, np.repeat(pulses, TRIALS)))
    return sets


def build(spec: lr.DataSpec, hidden: int = 64, encoder: int = 64, inputs: int = 2) -> tuple[lr.LatentRNN, lr.Guide]:
    """Innovations with heavy tails: rare large inputs among small ones."""
    model = lr.LatentRNN(
        spec,
        transition=lr.GRU(hidden),
        latent=lr.Innovations(inputs, initial=32, prior="student_t"),
        observations={"spikes": lr.Poisson()},
    )
    return model, lr.Guide(model, encoder=lr.RNNEncoder(encoder, direction="bidirectional"))


def fit(train: Trials, validation: Trials, seed: int, steps: int) -> lr.FitResult:
    """Fit to the training conditions."""
    model, guide = build(train.data().spec)
    return lr.fit(
        model,
        guide,
        train.data(),
        validation.data(),
        seed=seed,
        steps=steps,
        optimizer=lr.AdamW(learning_rate=8e-3, averaging=0.98),
        stopping=lr.EarlyStopping(every=100, patience=None),
        reporting=lr.Reporting(progress=False),
    )


def size_of_inputs(result: lr.FitResult, trials: Trials, draws: int = 50) -> Array:
    """Norm of the posterior mean innovation of each step, in prior scales, (trial, time)."""
    means = result.posterior(trials.data()).latents(draws)["innovations"].mean(0)
    latent = result.model.latent
    assert isinstance(latent, lr.Innovations)
    return (means / latent.scale.detach()).norm(dim=-1).numpy()


def rise(trials: Trials, width: float = 2.0) -> Array:
    """Norm of the slope of smoothed counts, (trial, time)."""
    return np.linalg.norm(gaussian_filter1d(trials.counts.astype(float), width, axis=1, order=1), axis=-1)


def located(scores: Array, pulses: Array, tolerance: int) -> tuple[Array, Array]:
    """Scores of windows, the largest within so many bins of their middle, and what they are, (trial, time).

    True marks the window around the pulse, False those that have no step in common with it, NaN the rest.
    """
    windows = maximum_filter1d(scores, 2 * tolerance + 1, axis=1, mode="constant", cval=-np.inf)
    away = np.abs(np.arange(scores.shape[1]) - pulses[:, None])
    return windows, np.where(away == 0, 1.0, np.where(away > 2 * tolerance, 0.0, np.nan))


def auc(scores: Array, truth: Array) -> float:
    """Chance that a score of truth 1 is above one of truth 0, ties counting half (Mann, Whitney); NaN is left out."""
    scored = ~np.isnan(truth)
    ranks, positive = rankdata(scores[scored]), truth[scored] == 1
    n = int(positive.sum())
    return float((ranks[positive].sum() - n * (n + 1) / 2) / (n * (len(ranks) - n)))


def bootstrap_error(scores: Array, truth: Array, repeats: int = 200) -> float:
    """Standard error of the AUC over conditions, whose trials stay together."""
    rng, conditions = np.random.default_rng(0), len(scores) // TRIALS
    values = []
    for _ in range(repeats):
        chosen = (TRIALS * rng.integers(0, conditions, conditions)[:, None] + np.arange(TRIALS)).ravel()
        values.append(auc(scores[chosen], truth[chosen]))
    return float(np.std(values))


@dataclass(frozen=True)
class Row:
    """One score of steps on the test trials."""

    name: str
    auc: float
    error: float
    hits: float
    sharp: float  # AUC without tolerance
    rates: float | None = None


def judge(name: str, scores: Array, trials: Trials, *, rates: float | None = None) -> Row:
    """Score steps against the planted pulses."""
    windows, truth = located(scores, trials.pulses, TOLERANCE)
    hits, exact = hit(scores, trials.pulses), auc(*located(scores, trials.pulses, 0))
    return Row(name, auc(windows, truth), bootstrap_error(windows, truth), hits, exact, rates)


def judge_shuffled(name: str, scores: Array, trials: Trials) -> Row:
    """Score steps against the pulses of other conditions: the mean over all ways to move conditions on in a circle."""
    moved = [np.roll(trials.pulses, TRIALS * by) for by in range(1, len(trials.pulses) // TRIALS)]
    aucs = [[auc(*located(scores, pulses, tolerance)) for pulses in moved] for tolerance in (TOLERANCE, 0)]
    hits = statistics.mean(hit(scores, pulses) for pulses in moved)
    return Row(name, statistics.mean(aucs[0]), statistics.stdev(aucs[0]), hits, statistics.mean(aucs[1]))


def hit(scores: Array, pulses: Array) -> float:
    """Share of trials whose largest score is within the tolerance."""
    return float((np.abs(scores.argmax(1) - pulses) <= TOLERANCE).mean())


def main() -> None:
    """Simulate, fit, score and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "chaotic.md")
    options = parser.parse_args()
    torch.set_num_threads(1)
    start = time.perf_counter()
    train, validation, test = simulate(0, (180, 20, 60))
    rows, seconds = [judge("slope of smoothed counts", rise(test), test)], []
    for seed in range(options.seeds):
        begin = time.process_time()
        result = fit(train, validation, seed, options.steps)
        seconds.append(time.process_time() - begin)
        rates = lr.r2(result.posterior(test.data()).mean("spikes", 20).double(), torch.as_tensor(test.rates)).pooled
        sizes = size_of_inputs(result, test)
        rows.append(judge(f"innovations, seed {seed}", sizes, test, rates=rates))
        rows.append(judge_shuffled("the same, pulses of other conditions", sizes, test))
        print(*rows[-2:], sep="\n", flush=True)
    text = report(rows, seconds, options.steps, time.perf_counter() - start)
    options.out.write_text(text)
    print(text)


def report(rows: list[Row], seconds: list[float], steps: int, wall: float) -> str:
    """The table."""
    own = [row for row in rows if row.rates is not None]
    lines = [
        "# Pulses into a chaotic network, located by inferred innovations",
        "",
        "300 test trials of 60 conditions, none of which was seen in training; protocol and scores: see the script.",
        f"The tolerance is {TOLERANCE} bins ({1e3 * BIN * TOLERANCE:.0f} ms); 'exact' is the AUC without one; s.e. by "
        "a bootstrap over",
        "conditions (of pulses of other conditions: the mean over all shifts of the 60, and their standard deviation).",
        "'largest' is the share of trials whose largest score is within the tolerance. The model is shown",
        f"spikes alone. {steps} steps a fit, {statistics.mean(seconds):.0f} s of one core each on average. Its "
        "settings were the first that were",
        "tried, with seed 0 and on these trials.",
        f"torch {torch.__version__}, numpy {np.__version__}, scipy {version('scipy')}, latentrnn {lr.__version__}, "
        f"{platform.machine()}, {wall:.0f} s in one thread.",
        "",
        "| score of a step | AUC | s.e. | AUC, exact | largest | R2 of rates |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        rates = "" if row.rates is None else f"{row.rates:.3f}"
        lines.append(f"| {row.name} | {row.auc:.3f} | {row.error:.3f} | {row.sharp:.3f} | {row.hits:.2f} | {rates} |")
    lines += ["", f"Mean AUC over {len(own)} seeds, none dropped: {statistics.mean(row.auc for row in own):.3f}."]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
