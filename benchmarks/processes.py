"""What a second process is worth: seconds per optimiser step of one process, and of two that share every batch.

`python benchmarks/processes.py` writes `benchmarks/results/processes.md`. The models are those of
`benchmarks/step_time.py`, each process on one thread; the batch is the same, half of it each. One and two processes are
launched in turn, so that whatever else the machine does meets both; each launch gives the median of its steps.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch

import latentrnn as lr
from benchmarks.step_time import SHAPES, WARM_UP, Paired, gflops, ours

ROOT = Path(__file__).resolve().parents[1]


def median_step(shape: str, steps: int) -> float:
    """Median seconds of a step of `lr.fit`, which shares its batches where it was launched by torchrun."""
    data, model, guide = ours(shape)
    seconds: list[float] = []
    optimiser = Paired(seconds=(("ours", seconds),))
    lr.fit(
        model,
        guide,
        data,
        seed=0,
        steps=steps + WARM_UP,
        batch_size=len(data),
        optimizer=optimiser,
        reporting=lr.Reporting(progress=False),
    )
    return float(np.median(seconds[WARM_UP:]))


def launch(index: int, processes: int, steps: int) -> float:
    """Seconds of a step in so many processes."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    command += [__file__, "--one", str(index), "--steps", str(steps)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return float(done.stdout.strip().splitlines()[-1])


def main() -> None:
    """Launch one and two processes in turn, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=20, help="timed steps of each launch")
    parser.add_argument("--pairs", type=int, default=5, help="launches of one and of two processes")
    parser.add_argument("--one", type=int, help="take the steps of this one of the shapes in this process")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "processes.md")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.one is not None:
        found = median_step(SHAPES[options.one], options.steps)
        if os.environ.get("RANK", "0") == "0":
            print(found)
        return
    rows = []
    for index, shape in enumerate(SHAPES):
        pairs = np.array([[launch(index, n, options.steps) for n in (1, 2)] for _ in range(options.pairs)])
        ratios = pairs[:, 0] / pairs[:, 1]
        alone, shared = 1e3 * np.median(pairs, 0)
        rows.append(
            f"| {shape} | {alone:.0f} | {shared:.0f} | {np.median(ratios):.2f} ({ratios.min():.2f} to "
            f"{ratios.max():.2f}) |"
        )
        print(rows[-1], flush=True)
    page = [
        "# One process, and two that share every batch",
        "",
        f"Medians of {options.pairs} launches of {options.steps} steps, one thread a process, gloo on one machine of "
        f"{os.cpu_count()} cores; {platform.machine()} CPU,",
        f"matrix product {gflops():.0f} GFLOP/s on one thread, torch {torch.__version__}, latentrnn {lr.__version__}.",
        "",
        "| shape | one, ms per step | two, ms per step | one / two (least to most) |",
        "|---|---|---|---|",
        *rows,
    ]
    options.out.write_text("\n".join(page) + "\n")


if __name__ == "__main__":
    main()
