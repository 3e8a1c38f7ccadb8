"""Do intervals of a memory's time constant hold as often as they say, and how near are they to the narrowest possible?

`python benchmarks/memory_coverage.py` writes `benchmarks/results/memory_coverage.md`. The memory is that of
`examples/synaptic_depression`: a forget gate of 0.95 in bins of 10 ms, 195 ms, read by the rate of Poisson spikes after
pulses, with the prior of that example (log-normal, median 100 ms). Every row is of 100 simulations, new spikes with
the same planted numbers, and of two models of each: one infers the strength of the depression and the rested rate
besides, the other knows both ("all else known"). 90% intervals, between quantiles of 4,000 draws of Laplace's
approximation, or of 400 of the chains of NUTS (and the other model's by Laplace's approximation still). Right ones
hold what was planted in 80 to 98 of 100 simulations, in 99.8% of rows.

Protocols: "trains" are 8 pulses at 50 Hz and a probe after 0.1 to 0.8 s; "at random" are pulses at 10 Hz for as long.
Beside them the usual analysis of trains, an exponential through the means that the probes evoked (least squares).

How much wider the interval has to be that leaves strength and rested rate open, whoever makes it, the Fisher
information of the planted numbers says: the same ratio of the bounds of Cramér and Rao, with the priors' precision
added (van Trees), in NumPy alone.

References:
    Rao. Information and the accuracy attainable in the estimation of statistical parameters. 1945.
    Van Trees. Detection, estimation, and modulation theory. 1968 (with a prior).
"""

from __future__ import annotations

import argparse
import platform
import sys
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyro
import torch
from numpy.typing import NDArray
from scipy.optimize import OptimizeWarning
from scipy.stats import binom, norm

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import latentrnn as lr  # noqa: E402
from examples.simulate import Depression, depression, leaky, trains  # noqa: E402
from examples.synaptic_depression.baselines import by_curve  # noqa: E402
from examples.synaptic_depression.demo import OTHERS, PLANTED, as_sequences, interval, synapse  # noqa: E402

SIMULATIONS = 100
CHAINS = {"num_samples": 100, "warmup": 100, "chains": 4, "progress": False}
ROWS = (
    ("trains", 30, "Laplace"),
    ("trains", 60, "Laplace"),
    ("trains", 120, "Laplace"),
    ("trains", 120, "NUTS"),
    ("trains", 240, "Laplace"),
    ("at random", 120, "Laplace"),
    ("at random", 240, "Laplace"),
)
PRECISIONS = np.array([1.0, 1.0, 0.25])  # of the priors of log tau, weight and baseline
Ends = NDArray[np.float64]  # lower end, median, upper end, ms


def simulated(protocol: str, trials: int, seed: int) -> Depression:
    """One experiment."""
    pulses = trains(trials)
    if protocol == "at random":
        rng = np.random.default_rng([seed, trials])
        pulses = (rng.random(pulses.shape) < 0.1).astype(float)
        pulses[:, :2] = 1.0  # a trial without a pair of pulses says nothing
    return depression(seed, pulses)


@dataclass(frozen=True)
class Experiment:
    """Intervals from one simulation, by both models, and by the usual analysis where the protocol has probes."""

    inferred: Ends
    known: Ends
    curve: Ends | None


def experiment(protocol: str, trials: int, by: str, seed: int) -> Experiment:
    """Simulate and infer."""
    found = simulated(protocol, trials, seed)
    data = as_sequences(found)
    inferred, known = (
        interval(lr.laplace(synapse(data, known=known), data, seed=seed).posterior(data)) for known in (False, True)
    )
    if by == "NUTS":
        draws = CHAINS["num_samples"] * CHAINS["chains"]
        inferred = interval(lr.sample(synapse(data), data, seed=seed, **CHAINS), draws)
    return Experiment(inferred, known, by_curve(found) if protocol == "trains" else None)


def held(ends: Ends) -> int:
    """How many intervals hold what was planted, of (simulation, end)."""
    return int(((ends[:, 0] < PLANTED) & (ends[:, 2] > PLANTED)).sum())


def width(ends: Ends) -> Ends:
    """Widths of intervals, ms."""
    return ends[:, 2] - ends[:, 0]


def information(found: Depression, tau: float = PLANTED / 1e3) -> NDArray[np.float64]:
    """Return the Fisher information of log tau, weight and baseline, (3, 3), from spikes after these pulses.

        J = sum_t r_t g_t g_t^T,   r_t = exp(b + w d_t),   g_t = d log r_t / d (log tau, w, b),   where x_t = 1

    with a = exp(-dt / tau), d_t = a d_{t-1} + x_t, whose derivative by log tau is
    s_t = a s_{t-1} + (a dt / tau) d_{t-1}.

    Args:
        found: the experiment, of which the spikes are not looked at.
        tau: seconds.
    """
    pulses = found.pulses[..., 0]
    retention = np.exp(-found.dt / tau)
    memory = leaky(pulses, retention)
    before = np.pad(memory, ((0, 0), (1, 0)))[:, :-1]
    slope = leaky(retention * found.dt / tau * before, retention)
    gradient = np.stack([OTHERS["weight"] * slope, memory, np.ones_like(memory)], -1)[pulses > 0]
    rate = np.exp(OTHERS["baseline"] + OTHERS["weight"] * memory[pulses > 0])
    return (rate[:, None] * gradient).T @ gradient


def least_widths(protocol: str, trials: int, simulations: int) -> Ends:
    """Return the narrowest 90% intervals, ms, with strength and rate open and known, and their ratio: each a mean."""
    normal = 2 * norm.ppf(0.95) * PLANTED
    found = []
    for seed in range(simulations):
        precision = information(simulated(protocol, trials, seed)) + np.diag(PRECISIONS)
        found.append([normal * np.linalg.inv(precision)[0, 0] ** 0.5, normal * precision[0, 0] ** -0.5])
    widths = np.array(found)
    return np.append(widths.mean(0), (widths[:, 0] / widths[:, 1]).mean())


def bounds(simulations: int) -> list[str]:
    """The table of what no interval can be narrower than."""
    lines = [
        "Narrowest 90% intervals that the Fisher information of the planted numbers allows (with the priors' "
        "precision), ms, strength and rested rate open and known. No unbiased estimate has one that is narrower. "
        "Those above attain both, so that the ratio for pulses at random, above two, is that of the experiment: at "
        "ten pulses a second the memory hardly rests, and a stronger depression looks like a slower one. Trains with "
        "probes after a pause tell the two apart.",
        "",
        "| pulses | trials | width | width, all else known | ratio |",
        "|---|---|---|---|---|",
    ]
    for protocol, trials in dict.fromkeys((protocol, trials) for protocol, trials, _ in ROWS):
        wide, narrow, ratio = least_widths(protocol, trials, simulations)
        lines.append(f"| {protocol} | {trials} | {wide:.0f} | {narrow:.0f} | {ratio:.2f} |")
    return lines


def row(protocol: str, trials: int, by: str, simulations: int = SIMULATIONS) -> str:
    """One row of the table."""
    start = time.process_time()
    found = [experiment(protocol, trials, by, seed) for seed in range(simulations)]
    seconds = time.process_time() - start
    inferred, known = (np.array([getattr(each, name) for each in found]) for name in ("inferred", "known"))
    low, middle, high = np.median(inferred, 0)
    ratio = np.quantile(width(inferred) / width(known), [0.5, 0.25, 0.75])
    curve = "| "
    if protocol == "trains":
        usual = np.array([each.curve for each in found])
        curve = f"{held(usual)} | {np.median(width(usual)):.0f} "
    return (
        f"| {protocol} | {trials} | {by} | {held(inferred)} | {middle:.0f} [{low:.0f}, {high:.0f}] | "
        f"{np.median(width(inferred)):.0f} | {held(known)} | {np.median(width(known)):.0f} | "
        f"{ratio[0]:.2f} ({ratio[1]:.2f} to {ratio[2]:.2f}) | {curve}| {seconds / simulations:.2f} |"
    )


def main() -> None:
    """Take all rows, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--simulations", type=int, default=SIMULATIONS)
    parser.add_argument("--rows", type=int, nargs="*", default=range(len(ROWS)), help="the others stay as they are")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "memory_coverage.md")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", message="sample: ")  # short chains, of which a hundred are looked at together
    warnings.simplefilter("ignore", OptimizeWarning)  # of few trials the means may not rise, and the curve has no end
    warnings.simplefilter("ignore", RuntimeWarning)
    fewest, most = binom.ppf([1e-3, 1 - 1e-3], options.simulations, 0.9)
    lines = [
        "# Intervals of a memory's time constant, 195 ms",
        "",
        "`python benchmarks/memory_coverage.py`: a forget gate of 0.95 in bins of 10 ms, from simulated spikes. "
        f"{options.simulations} simulations a row; 90% intervals, of which {fewest:.0f} to {most:.0f} hold what was "
        "planted in 99.8% of rows if they are right. Median ends and widths, ms; ratio: the width over that with all "
        "else known, median (quartiles). Curve: an exponential through the means that the probes evoked, by least "
        "squares. Seconds of the processor are for both models of a simulation. "
        f"torch {torch.__version__}, pyro {pyro.__version__}, numpy {np.__version__}, {platform.machine()}, a thread.",
        "",
        "| pulses | trials | by | held | median interval | width | held, all else known | width | ratio "
        "| held, curve | width | seconds |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    begins = [f"| {protocol} | {trials} | {by} | " for protocol, trials, by in ROWS]
    before = options.out.read_text().splitlines() if options.out.exists() else []
    table = {begin: line for begin in begins for line in before if line.startswith(begin)}
    least = bounds(options.simulations)

    def write() -> None:
        taken = [table[begin] for begin in begins if begin in table]
        options.out.write_text("\n".join([*lines, *taken, "", *least, ""]))

    write()
    for index in options.rows:
        table[begins[index]] = row(*ROWS[index], options.simulations)
        print(table[begins[index]], flush=True)
        write()


if __name__ == "__main__":
    main()
