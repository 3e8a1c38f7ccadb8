"""The demo's models over seeds: held-out bits per spike, one step ahead, mean over seeds with none dropped.

`python benchmarks/grasshopper.py` writes `benchmarks/results/grasshopper.md`. Settings are those of the demo, chosen on
the validation stretch of recording 1; the last 20% of either recording is only scored.
"""

from __future__ import annotations

import argparse
import multiprocessing
import platform
import statistics
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "examples" / "grasshopper"))

from baselines import BLOCK, grasshopper_baselines  # noqa: E402
from data import load_recordings, stretches  # noqa: E402
from demo import as_one_step_ahead, split  # noqa: E402
from models import VARIANTS, fit  # noqa: E402

import latentrnn as lr  # noqa: E402

Row = tuple[int, str, int, float, float, float, float]  # recording, model, seed, bits, error, less the GLM, its error


def run(task: tuple[int, int, int]) -> Row:
    """Fit one variant to one recording with one seed, and score it on the test stretch."""
    number, index, seed = task
    torch.set_num_threads(1)
    recording, variant = load_recordings()[number - 1], VARIANTS[index]
    train, validation, test = split(recording)
    ahead = fit(variant, train, validation, seed=seed).posterior(test).one_step_ahead("spikes")
    parts = stretches(len(recording.counts))
    rivals = grasshopper_baselines(
        recording.counts, recording.stimulus, train=parts.train, validation=parts.validation, test=parts.test
    )
    rival = rivals[-1] if variant.family is lr.Bernoulli else rivals[3 if variant.history else 2]
    score = lr.one_step_ahead_bits_per_spike(ahead, block_length=BLOCK)
    other = lr.one_step_ahead_bits_per_spike(as_one_step_ahead(rival, ahead), block_length=BLOCK)
    difference = lr.paired_difference(score, other)
    return number, variant.name, seed, score.value, score.standard_error, difference.value, difference.standard_error


def main() -> None:
    """Run everything two at a time and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "grasshopper.md")
    options = parser.parse_args()
    tasks = [(n, i, s) for n in (1, 2) for i in range(len(VARIANTS)) for s in range(options.seeds)]
    start = time.perf_counter()
    rows = []
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        for row in pool.map(run, tasks):
            rows.append(row)
            print(row, flush=True)
    lines = [
        "# Grasshopper receptor, held-out bits per spike, one step ahead",
        "",
        f"Last 20% of each recording; seeds 0 to {options.seeds - 1}, none dropped. Each standard error (s.e.) is over",
        f"blocks of {BLOCK} ms, the mean of the seeds' own. The rival GLM has the same inputs, history and family.",
        f"torch {torch.__version__}, {platform.machine()}, {time.perf_counter() - start:.0f} s in two processes.",
        "",
        "| recording | model | mean | s.e. | least | most | less the GLM | s.e. |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for number in (1, 2):
        for variant in VARIANTS:
            chosen = [r for r in rows if r[:2] == (number, variant.name)]
            bits = [r[3] for r in chosen]
            mean = [statistics.mean(r[k] for r in chosen) for k in (3, 4, 5, 6)]
            lines.append(
                f"| {number} | {variant.name} | {mean[0]:.3f} | {mean[1]:.3f} | {min(bits):.3f} | {max(bits):.3f} | "
                f"{mean[2]:+.3f} | {mean[3]:.3f} |"
            )
    options.out.write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
