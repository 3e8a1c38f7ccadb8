"""Members of an ensemble that take their steps together, against one fit after the other.

One process, one thread, interleaved pairs. With --out the table is written; the repository's is results/vectorised.md.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

import latentrnn as lr


class Shape(NamedTuple):
    """Members, sequences of a batch, steps, channels and hidden units."""

    members: int
    batch: int
    time: int
    channels: int
    hidden: int
    optimiser_steps: int = 20


SHAPES = [
    Shape(8, 64, 50, 20, 32),
    Shape(8, 16, 50, 10, 16),
    Shape(8, 16, 25, 5, 8),
    Shape(32, 16, 25, 5, 8),
    Shape(8, 64, 100, 50, 64, 6),
]


def contestants(shape: Shape) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """Return a fit of all members together and one after the other; the same fits."""
    counts = np.random.default_rng(0).poisson(1.0, (4 * shape.batch, shape.time, shape.channels))
    data = lr.SequenceData.from_arrays({"y": counts}, dt=0.01)
    model = lr.LatentRNN(
        data.spec,
        transition=lr.GRU(shape.hidden),
        latent=lr.Innovations(4, initial=16),
        observations={"y": lr.Poisson()},
    )
    guide = lr.Guide(model, encoder=lr.RNNEncoder(shape.hidden, direction="bidirectional"))
    settings = {
        "steps": shape.optimiser_steps,
        "batch_size": shape.batch,
        "reporting": lr.Reporting(progress=False),
        "compute": lr.Compute(device="cpu"),
    }

    def fits(together: bool) -> Any:
        return lr.fit_ensemble(model, guide, data, seeds=range(shape.members), vectorised=together, **settings)

    return lambda: fits(True), lambda: fits(False)


def seconds(function: Callable[[], Any]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    lines = [
        "# Members together, or one after the other",
        "",
        "`fit_ensemble(vectorised=True)` against False: the same fits, GRU with bidirectional GRU encoder,",
        f"Poisson counts. Time per step of all members, medians of {arguments.pairs} interleaved pairs; one thread,",
        f"torch {torch.__version__}, {platform.machine()}.",
        "",
        "| members | batch x steps x channels | hidden | together (ms) | in turn (ms) | ratio (least to most) |",
        "|---|---|---|---|---|---|",
    ]
    for shape in SHAPES:
        together, turn = contestants(shape)
        together()
        pairs = [(seconds(together), seconds(turn)) for _ in range(arguments.pairs)]
        ratios = sorted(b / a for a, b in pairs)
        a, b = (1e3 * statistics.median(times) / shape.optimiser_steps for times in zip(*pairs, strict=True))
        lines.append(
            f"| {shape.members} | {shape.batch} x {shape.time} x {shape.channels} | {shape.hidden} | {a:.1f} | {b:.1f} "
            f"| {statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f}) |"
        )
        print(lines[-1], flush=True)
    if arguments.out:
        arguments.out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
