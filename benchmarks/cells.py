"""What an optimiser step costs with each transition, and what it would cost step by step under autograd.

`python benchmarks/cells.py` writes `benchmarks/results/cells.md`; `--pairs` and `--sizes` set its size. A model without
latent noise (covariates, a transition, one Gaussian head) takes steps on all its sequences: loss, gradients, Adam. All
transitions take turns in one process; ratios are those of neighbouring steps. A row's second number is of the same
model whose transition is scanned step by step.
"""

from __future__ import annotations

import argparse
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import nn

import latentrnn as lr
from benchmarks.step_time import clock_of, gflops, ratio
from latentrnn.inference.fitting.loss import TrainingLoss, scored_steps
from latentrnn.models.scans import unrolled

RESULTS = Path(__file__).resolve().parent / "results"
WARM_UP = 2
CHANNELS = 3
SIZES = [(32, 100, 8), (16, 40, 8), (256, 100, 8), (32, 500, 8), (32, 100, 64)]  # sequences, steps, units


class HighwayCell(lr.Transition):
    """The transition of docs/extending.md, of which nobody wrote more than `step`."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.hidden_size = self.state_size = hidden_size

    def build(self, input_size: int) -> None:
        self.candidate = nn.Linear(input_size, self.hidden_size)
        self.carry = nn.Linear(self.hidden_size + input_size, self.hidden_size)

    def step(self, state: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
        update = self.gate("update", torch.sigmoid(self.carry(torch.cat([state, inputs], -1))))
        return (1 - update) * state + update * torch.tanh(self.candidate(inputs))


CELLS: dict[str, Callable[[int], lr.Transition]] = {
    "GRU": lr.GRU,
    "LSTM": lr.LSTM,
    "MinGRU": lr.MinGRU,
    "CoupledGateLSTM": lr.CoupledGateLSTM,
    "ModulatedForgetLSTM": lr.ModulatedForgetLSTM,
    "GatedTransition": lr.GatedTransition,
    "ThermodynamicCell": lr.ThermodynamicCell,
    "SwitchingLinear": lambda units: lr.SwitchingLinear(units, 2),
    "Linear": lr.Linear,
    "GRU, layer norm": lambda units: lr.GRU(units, layer_norm=True),
    "Decay(GRU)": lambda units: lr.Decay(lr.GRU(units)),
    "a cell of one's own": HighwayCell,
}


def step_of(transition: lr.Transition, sequences: int, steps: int) -> Callable[[], None]:
    """One optimiser step of a model with this transition."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    data = lr.SequenceData.from_arrays(
        {"y": rng.normal(size=(sequences, steps, 2))}, {"x": rng.normal(size=(sequences, steps, CHANNELS))}, dt=0.1
    )
    model = lr.LatentRNN(data.spec, transition=transition, latent=lr.Deterministic(), observations={"y": lr.Gaussian()})
    guide = lr.Guide(model)
    parameters = [*model.parameters(), *guide.parameters()]
    optimiser = torch.optim.AdamW(parameters, 1e-3)
    loss = TrainingLoss(model, guide, lr.ELBO(), scored_steps(data))

    def step() -> None:
        value, _ = loss(data, 1.0)
        optimiser.zero_grad(set_to_none=True)
        value.backward()
        nn.utils.clip_grad_norm_(parameters, 1e3)
        optimiser.step()

    return step


@contextmanager
def step_by_step() -> Iterator[None]:
    """Within the block transitions are followed by autograd step by step."""
    fewest, unrolled.FEWEST = unrolled.FEWEST, 10**9
    try:
        yield
    finally:
        unrolled.FEWEST = fewest


def measure(units: int, sequences: int, steps: int, pairs: int, cells: list[str]) -> dict[str, np.ndarray]:
    """Seconds of each step by transition; those step by step under its name and "one by one"."""
    taken = {name: step_of(CELLS[name](units), sequences, steps) for name in cells}
    taken |= {f"{name}, one by one": step_of(CELLS[name](units), sequences, steps) for name in cells}
    found: dict[str, list[float]] = {name: [] for name in taken}
    order, clock = list(taken), clock_of(torch.get_num_threads())
    for _ in range(pairs + WARM_UP):
        order.append(order.pop(0))  # none is always the first
        for name in order:
            if not name.endswith("one by one"):
                before = clock()
                taken[name]()
                found[name].append(clock() - before)
                continue
            with step_by_step():
                before = clock()
                taken[name]()
                found[name].append(clock() - before)
    return {name: np.array(values[WARM_UP:]) for name, values in found.items()}


def rows(units: int, sequences: int, steps: int, seconds: dict[str, np.ndarray], cells: list[str]) -> list[str]:
    """Lines of the table."""

    def against(one: str, other: str) -> str:
        middle, low, high = ratio(seconds[one], seconds[other])
        return f"{middle:.2f} ({low:.2f}, {high:.2f})"

    found = []
    for name in cells:
        times = [f"{1e3 * np.median(seconds[each]):.1f}" for each in (name, f"{name}, one by one")]
        ratios = against(name, "GRU"), against(f"{name}, one by one", name)
        found.append(f"| {sequences} x {steps}, {units} | {name} | {' | '.join([*times, *ratios])} |")
    return found


def main() -> None:
    """Time every transition at every size, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=20, help="timed steps of each")
    parser.add_argument("--sizes", type=int, nargs="*", help="sequences, steps and units, three numbers a size")
    parser.add_argument("--cells", nargs="*", default=list(CELLS))
    parser.add_argument("--out", type=Path, default=RESULTS / "cells.md")
    options = parser.parse_args()
    given = options.sizes or []
    sizes = list(zip(given[::3], given[1::3], given[2::3], strict=True)) or SIZES
    torch.set_num_threads(1)
    found = []
    for sequences, steps, units in sizes:
        seconds = measure(units, sequences, steps, options.pairs, options.cells)
        found += rows(units, sequences, steps, seconds, options.cells)
        print("\n".join(found[-len(options.cells) :]), flush=True)
    options.out.write_text("\n".join([*heading(options.pairs), *found]) + "\n")


def heading(pairs: int) -> list[str]:
    """What stands above the rows."""
    return [
        "# Steps with each transition",
        "",
        f"`python benchmarks/cells.py --pairs {pairs}`: one optimiser step (loss, gradients, Adam) of a model "
        "of one transition and one Gaussian",
        "head, in single precision, medians in ms of the processor on one thread; ratios of neighbouring steps, median "
        "and 95% interval by bootstrap.",
        "One by one: the same steps of the transition followed by autograd. Sizes are sequences x steps, units. "
        f"{platform.machine()} CPU, torch {torch.__version__},",
        f"matrix product {gflops():.0f} GFLOP/s on one thread.",
        "",
        "| size | transition | ms | one by one, ms | against the GRU's | one by one / ours |",
        "|---|---|---|---|---|---|",
    ]


if __name__ == "__main__":
    main()
