"""Loops over time, forward and backward: ours, the library's kernel, and the same steps followed by autograd.

`python benchmarks/scans.py` writes `benchmarks/results/scans.md`; `--pairs` and `--threads` set its size. The three
take turns in one process, so that whatever else the machine does meets all alike; ratios are those of neighbours.
"""

from __future__ import annotations

import argparse
import platform
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.step_time import clock_of, gflops, ratio
from latentrnn.inference.guides.families import combiner, markov_scan
from latentrnn.models.scans import layer_of, reverse_within, run, run_directions

RESULTS = Path(__file__).resolve().parent / "results"
WARM_UP = 2
Call = Callable[[], Tensor]


@dataclass(frozen=True)
class Shape:
    """Sizes of a recurrent module.

    Args:
        cell: "gru", "lstm", "tanh" or "relu".
        rows, steps, channels, hidden: of its inputs and its state.
        both: whether it runs in both directions, over data, which want no gradient.
        shortest: steps of the shortest row, lengths being spread evenly; None where all rows have all steps.
    """

    cell: str
    rows: int
    steps: int
    channels: int
    hidden: int
    both: bool = False
    shortest: int | None = None

    def __str__(self) -> str:
        name = f"{self.cell}, {self.rows} x {self.steps} x {self.channels}, {self.hidden}" + " x 2" * self.both
        if self.shortest is None:
            return name
        return f"{name}, {1 - float(self.lengths().float().mean()) / self.steps:.0%} padding"

    def lengths(self) -> Tensor:
        """Steps of every row, in no order."""
        assert self.shortest is not None
        even = torch.linspace(self.shortest, self.steps, self.rows).round().long()
        return even[torch.randperm(self.rows, generator=torch.Generator().manual_seed(0))]


SHAPES = [
    Shape("gru", 256, 45, 68, 200),
    Shape("gru", 64, 100, 8, 64),
    Shape("gru", 64, 500, 8, 128),
    Shape("gru", 256, 45, 182, 64, both=True),
    Shape("gru", 64, 100, 50, 64, both=True),
    Shape("gru", 64, 500, 96, 128, both=True),
    Shape("gru", 80, 19, 100, 64, both=True),
    Shape("gru", 80, 19, 100, 128),
    Shape("gru", 8, 50, 8, 16),
    Shape("gru", 64, 50, 8, 512),
    Shape("gru", 64, 100, 50, 64, both=True, shortest=40),
    Shape("gru", 64, 500, 96, 128, both=True, shortest=200),
    Shape("gru", 256, 45, 182, 64, both=True, shortest=20),
    Shape("gru", 8, 50, 8, 16, both=True, shortest=20),
    Shape("relu", 20, 129, 88, 600, both=True, shortest=40),
    Shape("relu", 20, 129, 88, 600),
    Shape("tanh", 64, 100, 8, 64),
    Shape("lstm", 64, 100, 8, 64),
    Shape("lstm", 256, 45, 68, 200),
]
GUIDES = ["Markov guide, 20 x 129, z 100, hidden 600", "Combiner guide, 20 x 129, z 100, hidden 600"]


def modules(shape: Shape) -> tuple[dict[str, Call], list[Tensor]]:
    """The contestants over one module's weights, and what wants gradients."""
    options = {"nonlinearity": shape.cell} if shape.cell in ("tanh", "relu") else {}
    kind = {"gru": nn.GRU, "lstm": nn.LSTM}.get(shape.cell, nn.RNN)
    kernels = [kind(shape.channels, shape.hidden, batch_first=True, **options) for _ in range(1 + shape.both)]
    inputs = torch.randn(shape.rows, shape.steps, shape.channels, requires_grad=not shape.both)
    start = torch.zeros(1, shape.rows, shape.hidden)
    state = (start, start) if shape.cell == "lstm" else start

    lengths = None if shape.shortest is None else shape.lengths()
    inside = None if lengths is None else (torch.arange(shape.steps) < lengths[:, None]).float().unsqueeze(-1)

    def back(values: Tensor) -> Tensor:
        return values.flip(1) if lengths is None else reverse_within(values, lengths)

    def kernel() -> Tensor:
        ahead = kernels[0](inputs, state)[0]
        found = torch.cat([ahead, back(kernels[1](back(inputs))[0])], -1) if shape.both else ahead
        return found if inside is None else found * inside

    def ours() -> Tensor:
        return (run_directions(*kernels, inputs, lengths) if shape.both else run(kernels[0], inputs, state))[0]

    def loop() -> Tensor:
        found = []
        for k, module in enumerate(kernels):
            steps = back(inputs) if k else inputs
            h = c = start[0]
            outputs = []
            for x in steps.unbind(1):
                if shape.cell == "lstm":
                    h, c = torch.lstm_cell(x, (h, c), *layer_of(module, 0))
                else:
                    cells = {"gru": torch.gru_cell, "tanh": torch.rnn_tanh_cell, "relu": torch.rnn_relu_cell}
                    h = cells[shape.cell](x, h, *layer_of(module, 0))
                outputs.append(h)
            whole = torch.stack(outputs, 1)
            found.append(back(whole) if k else whole)
        together = torch.cat(found, -1)
        return together if inside is None else together * inside

    wanted = [p for module in kernels for p in module.parameters()]
    return {"ours": ours, "kernel": kernel, "loop": loop}, [*wanted, inputs] if inputs.requires_grad else wanted


def guides(name: str) -> tuple[dict[str, Call], list[Tensor]]:
    """The contestants of a guide's draws."""

    def draw(*shape: int) -> Tensor:
        return (0.02 * torch.randn(*shape)).requires_grad_()  # small enough that the course forgets its start

    rows, steps, dim, hidden = 20, 129, 100, 600
    noise, lengths = torch.randn(rows, steps, dim), torch.randint(40, steps + 1, (rows,))
    valid = torch.arange(steps) < lengths[:, None]
    start = draw(rows, dim)
    if name.startswith("Markov"):
        numbers = draw(rows, steps, hidden + 2 * dim)
        weights = draw(hidden, dim), draw(dim, dim), draw(2 * dim, hidden), draw(dim, dim)
        given = (start, numbers, noise, valid, markov_scan.MarkovWeights(*weights))
        ours, loop = markov_scan.markov_scan, markov_scan._reference
        return {
            "ours": lambda: torch.cat(ours(*given), -1),
            "loop": lambda: torch.cat(loop(*given[:4], *weights), -1),
        }, [start, numbers, *weights]
    numbers = draw(rows, steps, hidden)
    weights = draw(hidden, dim), draw(hidden), draw(2 * dim, hidden), draw(2 * dim)
    return {
        "ours": lambda: torch.cat(combiner.combiner_scan(start, numbers, noise, valid, *weights), -1),
        "loop": lambda: torch.cat(combiner._reference(start, numbers, noise, valid, *weights), -1),
    }, [start, numbers, *weights]


def measure(calls: dict[str, Call], wanted: list[Tensor], pairs: int) -> dict[str, np.ndarray]:
    """Seconds of forward and backward, each contestant in turn."""
    found: dict[str, list[float]] = {name: [] for name in calls}
    order, clock = list(calls), clock_of(torch.get_num_threads())
    for _ in range(pairs + WARM_UP):
        order.append(order.pop(0))  # none is always the first
        for name in order:
            before = clock()
            outputs = calls[name]()
            torch.autograd.grad(outputs, wanted, torch.ones_like(outputs))
            found[name].append(clock() - before)
    return {name: np.array(values[WARM_UP:]) for name, values in found.items()}


def row(name: str, threads: int, seconds: dict[str, np.ndarray]) -> str:
    """One line of the table."""

    def against(other: str) -> str:
        if other not in seconds:
            return ""
        middle, low, high = ratio(seconds[other], seconds["ours"])
        return f"{middle:.2f} ({low:.2f}, {high:.2f})"

    times = [f"{1e3 * np.median(seconds[n]):.1f}" if n in seconds else "" for n in ("ours", "kernel", "loop")]
    return f"| {name} | {threads} | {' | '.join(times)} | {against('kernel')} | {against('loop')} |"


def main() -> None:
    """Time everything on each number of threads, in a process of its own, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=20, help="timed calls of each contestant")
    parser.add_argument("--threads", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--one", action="store_true", help="time in this process, and print the rows")
    parser.add_argument("--out", type=Path, default=RESULTS / "scans.md")
    options = parser.parse_args()
    if options.one:
        (threads,) = options.threads
        torch.set_num_threads(threads)
        torch.manual_seed(0)
        for shape in SHAPES:
            print(row(str(shape), threads, measure(*modules(shape), options.pairs)), flush=True)
        for name in GUIDES:
            print(row(name, threads, measure(*guides(name), options.pairs)), flush=True)
        return
    rows = []
    for threads in options.threads:
        command = [sys.executable, __file__, "--one", "--threads", str(threads), "--pairs", str(options.pairs)]
        rows += subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip().splitlines()
    torch.set_num_threads(1)
    page = [
        "# Loops over time",
        "",
        f"`python benchmarks/scans.py --pairs {options.pairs}`: forward and backward in single precision, medians in "
        "ms, of the processor on one thread; ratios of neighbouring calls,",
        "median and 95% interval by bootstrap: above one, ours is faster. Kernel: torch's module; loop: the same steps "
        "followed by autograd.",
        "Sizes are rows x steps x channels, hidden units; x 2 in both directions over data. "
        f"{platform.machine()} CPU, torch {torch.__version__},",
        f"matrix product {gflops():.0f} GFLOP/s on one thread. An LSTM is torch's kernel with us too, of which its "
        "rows are a check.",
        "",
        "| cell and size | threads | ours | kernel | loop | kernel / ours | loop / ours |",
        "|---|---|---|---|---|---|---|",
        *rows,
    ]
    options.out.write_text("\n".join(page) + "\n")
    print("\n".join(page))


if __name__ == "__main__":
    main()
