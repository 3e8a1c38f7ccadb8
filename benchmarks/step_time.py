"""Seconds per optimiser step, side by side: `lr.fit`, the same networks in plain torch, one Pyro site per time step.

`python benchmarks/step_time.py` writes `benchmarks/results/step_time.md`. After every step of our fit, taken inside
`lr.fit` as users call it, the rivals take one of theirs, so that whatever else the machine does meets all alike; the
ratios are those of neighbouring steps. A second table has the matrix products by themselves. The rivals are in
`benchmarks/rivals/`; where the folder LATENTRNN_SHARED or ../shared has `references/plain_torch.py` and
`per_step_pyro.py`, written by others, they take their steps too.
"""

from __future__ import annotations

import argparse
import importlib
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyro
import torch

import latentrnn as lr
from benchmarks.products import Products, products_of
from benchmarks.rivals.per_step import PerStep
from benchmarks.rivals.plain import DeepMarkov, Innovations
from latentrnn.inference.fitting.loss import TrainingLoss, scored_steps

ROOT = Path(__file__).resolve().parents[1]
REFERENCES = Path(os.environ.get("LATENTRNN_SHARED", ROOT.parent / "shared")) / "references"
WARM_UP = 3
Step = Callable[[], Any]


@dataclass(frozen=True)
class Size:
    """Sizes of a GRU that inferred inputs drive."""

    sequences: int
    steps: int
    channels: int
    hidden: int
    encoder: int
    inputs: int
    initial: int = 0
    factors: int = 0


JSB = "deep Markov model, 20 x 129 x 88, z 100, RNN 600"
SIZES = {
    "MC_Maze, 256 x 45 x 182, GRU 200": Size(256, 45, 182, 200, 64, 4, initial=64, factors=100),
    "64 x 100 x 50, GRU 64": Size(64, 100, 50, 64, 64, 8),
    "64 x 500 x 96, GRU 128": Size(64, 500, 96, 128, 128, 8),
}
SHAPES = [JSB, *SIZES]


def chorales(sequences: int = 20, steps: int = 129, channels: int = 88) -> tuple[torch.Tensor, torch.Tensor]:
    """Notes at random, (sequence, time, channel), and the lengths of as many sequences."""
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(40, steps + 1, (sequences,), generator=generator)
    lengths[0] = steps
    inside = torch.arange(steps)[:, None] < lengths[:, None, None]
    return (torch.rand(sequences, steps, channels, generator=generator) < 0.05).float() * inside, lengths


def deep_markov(y: torch.Tensor, lengths: torch.Tensor, z: int, emission: int, transition: int, hidden: int) -> Any:
    """Ours: data, model and guide."""
    data = lr.SequenceData.from_arrays({"notes": [row[:n].numpy() for row, n in zip(y, lengths.tolist(), strict=True)]})
    model = lr.LatentRNN(
        data.spec,
        transition=lr.GatedTransition(z, width=transition),
        latent=lr.MarkovNormal("state"),
        observations={"notes": lr.Bernoulli(readout=lr.MLPReadout(emission, layers=2, activation="relu"))},
    )
    encoder = lr.RNNEncoder(hidden, direction="backward", cell="relu")
    return data, model, lr.Guide(model, encoder=encoder, family=lr.Combiner())


def innovations(y: torch.Tensor, size: Size) -> Any:
    """Ours: data, model and guide."""
    data = lr.SequenceData.from_arrays({"spikes": y.numpy()})
    model = lr.LatentRNN(
        data.spec,
        transition=lr.GRU(size.hidden),
        latent=lr.Innovations(size.inputs, initial=size.initial or None),
        observations={"spikes": lr.Poisson(readout=lr.FactorReadout(size.factors) if size.factors else None)},
    )
    return data, model, lr.Guide(model, encoder=lr.RNNEncoder(size.encoder))


def ours(shape: str) -> Any:
    """Ours for a shape: data, model and guide."""
    torch.manual_seed(0)
    return deep_markov(*chorales(), 100, 100, 200, 600) if shape == JSB else innovations(counts(shape), SIZES[shape])


def counts(shape: str) -> torch.Tensor:
    """Counts without structure for one of the sizes."""
    size = SIZES[shape]
    return torch.poisson(torch.full((size.sequences, size.steps, size.channels), 0.15))


def rivals_of(shape: str) -> dict[str, Step]:
    """The steps of the rivals for a shape, by name."""
    torch.manual_seed(0)
    references = reference("plain_torch")
    if shape == JSB:
        y, lengths = chorales()
        found: dict[str, Step] = {"plain torch": DeepMarkov(y, lengths, 100, 100, 200, 600).step}
        found["per-step Pyro"] = PerStep(DeepMarkov(y, lengths, 100, 100, 200, 600)).step
        if references is not None:
            found["reference"] = references.DeepMarkov().step
        if (others := reference("per_step_pyro")) is not None:
            found["per-step reference"] = others.PerStepDeepMarkov().step
        return found
    size = SIZES[shape]
    sizes = size.hidden, size.encoder, size.inputs, size.initial, size.factors
    found = {"plain torch": Innovations(counts(shape), *sizes).step}
    if references is not None:
        found["reference"] = references.Innovations(size.sequences, size.steps, size.channels, *sizes).step
    return found


def reference(name: str) -> ModuleType | None:
    """A module of the rivals that others wrote, where they are at hand."""
    if not (REFERENCES / f"{name}.py").exists():
        return None
    if str(REFERENCES) not in sys.path:  # one of them imports the other
        sys.path.append(str(REFERENCES))
    return importlib.import_module(name)


@dataclass(frozen=True)
class Paired(lr.AdamW):
    """The optimiser of a fit after each of whose steps others take theirs; `seconds` notes all, by name."""

    rivals: tuple[tuple[str, Step], ...] = ()
    seconds: tuple[tuple[str, list[float]], ...] = ()
    threads: int | None = None

    def build(self, *args: Any, **settings: Any) -> torch.optim.Optimizer:
        engine, seconds, rivals = super().build(*args, **settings), dict(self.seconds), list(self.rivals)
        clock = clock_of(self.threads)
        last = [clock()]

        def others(*_: Any) -> None:
            now = clock()
            seconds["ours"].append(now - last[0])
            rivals[:] = [*rivals[1:], *rivals[:1]]  # none is always the first after ours
            for name, step in rivals:
                before = clock()
                step()
                seconds[name].append(clock() - before)
            last[0] = clock()

        engine.register_step_post_hook(others)
        return engine


def clock_of(threads: int | None) -> Callable[[], float]:
    """A clock, in seconds: the processor's on one thread of a CPU, which what else the machine does leaves alone."""
    return time.process_time if threads == 1 and not torch.cuda.is_available() else wall_clock


def wall_clock() -> float:
    """Seconds, once all that was asked of the device is done."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def measure(shape: str, steps: int) -> dict[str, np.ndarray]:
    """Seconds of each step by contestant."""
    (data, model, guide), rivals = ours(shape), rivals_of(shape)
    seconds: dict[str, list[float]] = {name: [] for name in ("ours", *rivals)}
    optimiser = Paired(rivals=tuple(rivals.items()), seconds=tuple(seconds.items()), threads=torch.get_num_threads())
    lr.fit(
        model,
        guide,
        data,
        steps=steps + WARM_UP,
        batch_size=len(data),
        optimizer=optimiser,
        reporting=lr.Reporting(progress=False),
    )
    return {name: np.array(values[WARM_UP:]) for name, values in seconds.items()}


def products(shape: str) -> tuple[Products, Products]:
    """The matrix products of a step of ours and of one in plain torch."""
    data, model, guide = ours(shape)
    loss = TrainingLoss(model, guide, lr.ELBO(), scored_steps(data))
    return products_of(lambda: loss(data, 1.0)[0].backward()), products_of(rivals_of(shape)["plain torch"])


def ratio(first: np.ndarray, second: np.ndarray) -> tuple[float, float, float]:
    """Median of the paired ratios, with the 95% interval of a bootstrap over pairs."""
    pairs = first / second
    rng = np.random.default_rng(0)
    medians = np.median(rng.choice(pairs, (4000, len(pairs))), axis=1)
    return float(np.median(pairs)), *(float(q) for q in np.quantile(medians, [0.025, 0.975]))


def gflops() -> float:
    """Rate of a float32 matrix product, 10^9 operations per second."""
    a, clock = torch.randn(2048, 2048), clock_of(torch.get_num_threads())
    times = []
    for _ in range(6):
        start = clock()
        a @ a
        times.append(clock() - start)
    return 2 * 2048**3 / min(times) / 1e9


def row(shape: str, threads: int, seconds: dict[str, np.ndarray]) -> str:
    """One line of the table."""

    def cell(values: Sequence[float]) -> str:
        return f"{values[0]:.2f} ({values[1]:.2f}, {values[2]:.2f})"

    def against(first: str, second: str) -> str:
        return cell(ratio(seconds[first], seconds[second])) if first in seconds and second in seconds else ""

    times = " | ".join(
        f"{1e3 * np.median(seconds[name]):.0f}" if name in seconds else ""
        for name in ("ours", "plain torch", "reference", "per-step Pyro", "per-step reference")
    )
    pairs = [
        ("ours", "plain torch"),
        ("ours", "reference"),
        ("plain torch", "reference"),
        ("per-step Pyro", "per-step reference"),
        ("per-step Pyro", "ours"),
    ]
    return f"| {shape} | {threads} | {times} | {' | '.join(against(*pair) for pair in pairs)} |"


def floor_row(shape: str, threads: int, seconds: dict[str, np.ndarray]) -> str:
    """One line of the table of what the matrix products take by themselves."""
    clock, plain = clock_of(threads), float(np.median(seconds["plain torch"]))
    cells = []
    for name, found in zip(("ours", "plain torch"), products(shape), strict=True):
        alone, step = found.seconds(clock), float(np.median(seconds[name]))
        cells += [f"{found.operations / 1e9:.1f}", f"{1e3 * alone:.0f}", f"{1e3 * (step - alone):.0f}"]
        if name == "ours":
            least = alone / plain
    return f"| {shape} | {threads} | {' | '.join(cells)} | {least:.2f} |"


def main() -> None:
    """Time every shape on one thread and on all, each in a process of its own, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=30, help="timed steps of each contestant")
    parser.add_argument("--threads", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--one", type=int, help="time this one of the shapes in this process, and print its row")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "step_time.md")
    options = parser.parse_args()
    if options.one is not None:
        torch.set_num_threads(options.threads[0])
        shape = SHAPES[options.one]
        steps = options.steps if shape != JSB else max(options.steps // 2, 6)
        seconds = measure(shape, steps)
        print(floor_row(shape, options.threads[0], seconds))
        print(row(shape, options.threads[0], seconds))
        return
    rows, floors = [], []
    for threads in options.threads:
        for index in range(len(SHAPES)):
            command = [sys.executable, __file__, "--one", str(index), "--threads", str(threads)]
            done = subprocess.run([*command, "--steps", str(options.steps)], capture_output=True, text=True, check=True)
            floor, found = done.stdout.strip().splitlines()[-2:]
            floors.append(floor), rows.append(found)
            print(rows[-1], flush=True)
    where = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{platform.machine()} CPU"
    options.out.write_text("\n".join([*heading(where), *rows, *floor_heading(), *floors]) + "\n")


def heading(where: str) -> list[str]:
    """What stands above the rows."""
    rates = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        rates.append(f"{gflops():.0f} GFLOP/s on {threads} thread{'s' * (threads > 1)}")
    return [
        "# Seconds per step: ours, plain torch, one Pyro site per time step",
        "",
        f"{where}, matrix product {', '.join(rates)}; torch {torch.__version__}, pyro {pyro.__version__}, latentrnn "
        f"{lr.__version__}.",
        "Medians in ms over interleaved steps, of the processor on one thread; ratios of neighbouring steps: median "
        "and 95% interval by bootstrap.",
        "Below one, the first is faster. Plain torch and per-step Pyro: `benchmarks/rivals/`; references: the same by "
        "others.",
        "",
        "| shape | threads | ours | plain torch | reference | per-step Pyro | its reference | ours / plain | "
        "ours / reference | plain / reference | per-step Pyro / its reference | per-step Pyro / ours |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]


def floor_heading() -> list[str]:
    """What stands above the rows of the products."""
    return [
        "",
        "The matrix products of a step by themselves, one by one with their operands in the cache, in ms, beside what "
        "the rest of the step takes;",
        "the last column is the ratio to plain torch that a step of ours would have if all but its products took no "
        "time.",
        "",
        "| shape | threads | ours: 10^9 operations | products | rest | plain torch: 10^9 operations | products | rest "
        "| our products / plain torch |",
        "|---|---|---|---|---|---|---|---|---|",
    ]


if __name__ == "__main__":
    main()
