"""How the time of a step grows with steps, sequences, channels and particles.

`python benchmarks/scaling.py` writes `benchmarks/results/scaling.md`. All sizes of one table take their optimiser steps
in turn, in one process on one thread, so that whatever else the machine does meets all alike; each row has the median
over its turns, and the quartiles. What is timed is a step of `lr.fit`: batch, gradient, clipping, optimiser.
"""

from __future__ import annotations

import argparse
import platform
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

import latentrnn as lr
from latentrnn.inference.fitting.fit import starting_point
from latentrnn.inference.fitting.settings.settings import Settings
from latentrnn.inference.fitting.trainer import Trainer
from latentrnn.inference.guides.windows import window_plan
from latentrnn.support.isolation import random_state

HIDDEN, LATENT, ENCODER = 64, 4, 64
LONG = (100, 300, 1_000, 3_000, 10_000, 30_000, 100_000)
SEQUENCES = (100, 300, 1_000, 3_000, 10_000)
CHANNELS = (100, 300, 1_000, 3_000, 10_000)
PARTICLES = (1, 2, 4, 8, 16, 32)


@dataclass(frozen=True)
class Size:
    """One size of a fit."""

    sequences: int
    steps: int
    channels: int
    batch: int
    particles: int = 1
    window: int | None = None
    max_elements: int | None = None
    stored: bool = False

    @property
    def entries(self) -> int:
        """Time steps of all sequences and particles that one optimiser step goes through."""
        return self.batch * min(self.steps, self.window or self.steps) * self.particles


def make_data(size: Size, folder: str) -> lr.SequenceData | lr.StoredSequences:
    """Counts without structure: their values do not matter to how long anything takes."""
    rng = np.random.default_rng(0)
    counts = rng.poisson(0.5, (size.sequences, size.steps, size.channels)).astype(np.float32)
    if not size.stored:
        return lr.SequenceData.from_arrays({"spikes": counts}, dt=0.01)
    np.save(path := Path(folder) / f"{size.sequences}.npy", counts)
    return lr.StoredSequences.from_arrays({"spikes": np.load(path, mmap_mode="r")}, dt=0.01)


def make_parts(spec: lr.DataSpec, max_elements: int | None = None) -> tuple[lr.LatentRNN, lr.Guide]:
    """The model and guide that all tables are about; many channels have a read-in."""
    read_in = 64 if spec.heads["spikes"].channels > 50 else None
    model = lr.LatentRNN(
        spec,
        transition=lr.GRU(HIDDEN),
        latent=lr.Innovations(LATENT, initial=16),
        observations={"spikes": lr.Poisson()},
        max_elements=max_elements,
    )
    return model, lr.Guide(model, encoder=lr.RNNEncoder(ENCODER, read_in=read_in))


def make_step(size: Size, data: lr.SequenceData | lr.StoredSequences) -> Callable[[], None]:
    """Return a function that takes one optimiser step of a fit of this size."""
    model, guide = make_parts(data.spec, size.max_elements)
    window = None if size.window is None else lr.Window(size.window, size.window // 10)
    return step_of(model, guide, data, batch=size.batch, particles=size.particles, window=window)


def step_of(
    model: lr.LatentRNN,
    guide: lr.Guide,
    data: lr.SequenceData | lr.StoredSequences,
    *,
    batch: int,
    particles: int = 1,
    window: lr.Window | None = None,
) -> Callable[[], None]:
    """Return a function that takes one optimiser step of a fit."""
    settings = Settings(
        10**6,
        batch,
        lr.ELBO(num_particles=particles),
        lr.AdamW(schedule=lr.Constant()),
        lr.EarlyStopping(),
        lr.Compute(window=window),
        lr.Reporting(progress=False),
    )
    cut = None if window is None else window_plan("scaling", window, model, guide)
    with random_state(0, torch.device("cpu")):
        first = data.for_start() if isinstance(data, lr.StoredSequences) else data
        model, guide = starting_point(model, guide, first, None)
        if isinstance(data, lr.SequenceData):
            data = model.prepare(data)  # as `fit` does, so that what no state changes is computed once
        trainer = Trainer(model, guide, data, None, settings, torch.Generator().manual_seed(0), cut)

    def step() -> None:
        trainer.gradient(trainer.batches.next())
        trainer.optimizer.step()
        trainer.state.step += 1

    return step


def timed(steps: dict[str, Callable[[], None]], turns: int) -> dict[str, np.ndarray]:
    """Return the processor's seconds of every step, each taken in turn; reading ahead from files counts too."""
    found: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(turns + 2):
        for name, step in steps.items():
            start = time.process_time()
            step()
            if turn >= 2:  # warm by then
                found[name].append(time.process_time() - start)
    return {name: np.array(values) for name, values in found.items()}


def table(head: str, sizes: dict[str, Size], turns: int, per: str, unit: Callable[[Size], int]) -> list[str]:
    """Return the rows of a table: milliseconds of a step, microseconds per unit of work, these over their median."""
    shapes = {(s.sequences, s.steps, s.channels, s.stored): s for s in sizes.values()}
    with tempfile.TemporaryDirectory() as folder:
        data = {shape: make_data(size, folder) for shape, size in shapes.items()}
        steps = {n: make_step(s, data[s.sequences, s.steps, s.channels, s.stored]) for n, s in sizes.items()}
        seconds = timed(steps, turns)
    each = {name: 1e6 * np.median(values) / unit(sizes[name]) for name, values in seconds.items()}
    middle = float(np.median(list(each.values())))
    rows = [f"| {head} | ms per step (quartiles) | us per {per} | against the middle |", "|---|---|---|---|"]
    for name, values in seconds.items():
        low, median, high = 1e3 * np.quantile(values, [0.25, 0.5, 0.75])
        rows.append(
            f"| {name} | {median:.1f} ({low:.1f} to {high:.1f}) | {each[name]:.3f} | {each[name] / middle:.2f} |"
        )
        print(rows[-1], flush=True)
    return rows


def main() -> None:
    """Measure and write the tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--turns", type=int, default=20, help="steps that every size takes")
    parser.add_argument("--largest", type=int, default=100_000, help="leave out longer sequences and larger sets")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "scaling.md")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    turns, largest = arguments.turns, arguments.largest

    def steps_of(size: Size) -> int:
        return size.entries

    page = [
        "# Scaling",
        "",
        f"`python benchmarks/scaling.py --turns {turns}`: GRU({HIDDEN}), Innovations({LATENT}, initial=16), Poisson "
        f"counts, a bidirectional RNNEncoder({ENCODER}), mean-field; one thread, float32, torch {torch.__version__}, "
        f"{platform.machine()}. Sizes of one table take turns; times are the processor's.",
    ]
    long = {f"{t:,}": Size(16, t, 50, 16, window=100) for t in LONG if t <= largest}
    page += ["", "## Steps of a sequence, in windows of 100", "", "16 sequences of 50 channels; an overlap of 10.", ""]
    page += table("T", long, turns, "step of a sequence", steps_of)
    long = {f"{t:,}": Size(16, t, 50, 16, window=1000) for t in LONG if 1000 <= t <= largest}
    if long:
        page += ["", "## Steps of a sequence, in windows of 1,000", "", "The same, with an overlap of 100.", ""]
        page += table("T", long, max(3, turns // 4), "step of a sequence", steps_of)
    many = {f"{n:,}": Size(n, 100, 50, 64) for n in SEQUENCES if n <= largest}
    many |= {f"{n:,}, in a file": Size(n, 100, 50, 64, stored=True) for n in SEQUENCES[-1:] if n <= largest}
    page += ["", "## Sequences", "", "Of 100 steps and 50 channels, in batches of 64.", ""]
    page += table("sequences", many, turns, "step of a sequence", steps_of)
    wide = {}
    for count in CHANNELS:
        if count <= largest:
            wide[f"{count:,}, whole"] = Size(16, 100, count, 16)
            wide[f"{count:,}, in chunks of 2^20"] = Size(16, 100, count, 16, max_elements=2**20)
    page += ["", "## Channels", "", "16 sequences of 100 steps; head and read-in whole, and in chunks of time.", ""]
    page += table("channels", wide, max(3, turns // 2), "entry", lambda size: size.entries * size.channels)
    particles = {f"{k}": Size(16, 100, 50, 16, particles=k) for k in PARTICLES}
    page += ["", "## Particles", "", "16 sequences of 100 steps and 50 channels.", ""]
    page += table("particles", particles, turns, "step of a sequence and particle", steps_of)
    arguments.out.write_text("\n".join([*page, ""]))


if __name__ == "__main__":
    main()
