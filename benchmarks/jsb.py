"""JSB chorales: nats per time step of the standard test split, as a bound and importance-sampled, beside others.

`python benchmarks/jsb.py` writes `benchmarks/results/jsb.md`; `--longer` and `--models` choose how long and what, and
the device is a GPU where there is one. Data: JSB_Chorales.mat (Boulanger-Lewandowski, Bengio, Vincent 2012) in the
folder LATENTRNN_SHARED or ../shared, data/polyphonic_music/: 229, 76 and 77 pieces of 88 keys, a step per beat. The
weights kept are those with the best bound on the validation pieces; the test pieces are looked at once.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from scipy.io import loadmat

import latentrnn as lr

ROOT = Path(__file__).resolve().parents[1]
PUBLISHED = (  # nats per step; a bound where it says so
    ("deep Markov model (Krishnan, Shalit, Sontag 2017), bound", 6.926),
    ("the same, importance-sampled", 6.388),
    ("deep Markov model, Pyro's tutorial, bound, about 20 hours on a GTX 1080", 6.87),
    ("STORN (Bayer, Osendorfer 2014), bound", 6.91),
    ("TSBN (Gan, Li, Henao, Carlson, Carin 2015), bound", 7.48),
    ("RNN (Boulanger-Lewandowski, Bengio, Vincent 2012)", 8.71),
    ("RNN-NADE (the same)", 5.19),
)


def folder() -> Path:
    """Where the recordings are."""
    return Path(os.environ.get("LATENTRNN_SHARED", ROOT.parent / "shared")) / "data" / "polyphonic_music"


def load() -> tuple[lr.SequenceData, lr.SequenceData, lr.SequenceData]:
    """Training, validation and test pieces."""
    file = loadmat(folder() / "JSB_Chorales.mat")
    splits = [
        [np.asarray(piece, dtype=float) for piece in file[name].ravel()]
        for name in ("traindata", "validdata", "testdata")
    ]
    data = lr.SequenceData.from_arrays({"notes": [piece for split in splits for piece in split]})
    first, second = len(splits[0]), len(splits[0]) + len(splits[1])
    return data[:first], data[first:second], data[second:]


def markov(spec: lr.DataSpec) -> tuple[lr.LatentRNN, lr.Guide]:
    """The deep Markov model in the sizes that were published, with its own guide."""
    model = lr.LatentRNN(
        spec,
        transition=lr.GatedTransition(100, width=200),
        latent=lr.MarkovNormal("state"),
        observations={"notes": lr.Bernoulli(readout=lr.MLPReadout(100, layers=2, activation="relu"))},
    )
    return model, lr.Guide(model, encoder=lr.RNNEncoder(600, direction="backward", cell="relu"), family=lr.Combiner())


def recurrent(spec: lr.DataSpec, family: Callable[..., lr.Observation] = lr.Bernoulli) -> tuple[lr.LatentRNN, lr.Guide]:
    """A GRU that hears the chord before, with innovations of its own at every step."""
    model = lr.LatentRNN(
        spec,
        transition=lr.GRU(150),
        latent=lr.Innovations(24, initial=8),
        observations={"notes": family(readout=lr.MLPReadout(150), feedback=lr.History(1, 1))},
    )
    return model, lr.Guide(model, encoder=lr.RNNEncoder(150))


def chords(spec: lr.DataSpec) -> tuple[lr.LatentRNN, lr.Guide]:
    """The same GRU, each note given the lower ones of its chord too."""
    return recurrent(spec, partial(lr.AutoregressiveBernoulli, 200))


@dataclass(frozen=True)
class Recipe:
    """A model with its fit."""

    build: Callable[[lr.DataSpec], tuple[lr.LatentRNN, lr.Guide]]
    steps: int
    learning_rate: float
    weight_decay: float


MODELS = {
    "GRU with innovations, hears the last chord": Recipe(recurrent, 3000, 1.5e-3, 1.0),
    "GRU with innovations, each note given the lower ones too": Recipe(chords, 3000, 1.5e-3, 1.0),
    "deep Markov model": Recipe(markov, 3000, 4e-3, 0.1),
}


def main() -> None:
    """Fit, judge, write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="*", default=list(MODELS), choices=list(MODELS))
    parser.add_argument(
        "--longer", type=float, default=4 if torch.cuda.is_available() else 1, help="factor of the steps"
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "jsb.md")
    options = parser.parse_args()
    if not (folder() / "JSB_Chorales.mat").exists():
        print(f"skipped: no JSB_Chorales.mat in {folder()}; LATENTRNN_SHARED names the folder above data/")
        return
    torch.set_num_threads(options.threads)
    train, valid, test = load()
    rows, curves = [], []
    for name in options.models:
        recipe = MODELS[name]
        model, guide = recipe.build(train.spec)
        start = time.perf_counter()
        result = lr.fit(
            model,
            guide,
            train,
            valid,
            seed=0,
            steps=int(options.longer * recipe.steps),
            batch_size=20,
            optimizer=lr.AdamW(recipe.learning_rate, recipe.weight_decay, averaging=0.99),
            stopping=lr.EarlyStopping(every=100, patience=6),
            objective=lr.ELBO(kl=lr.KLWarmUp(0.3)),
            reporting=lr.Reporting(progress=False),
        )
        seconds = time.perf_counter() - start
        posterior, steps = result.posterior(test), int(test.lengths.sum())
        bound, sampled = posterior.evidence("elbo", 20), posterior.evidence("iwae", 500)
        rows.append((name, bound, sampled, steps, result.best_step, seconds))
        per_step = len(valid) / int(valid.lengths.sum())
        curve = ", ".join(f"{-value * per_step:.2f}" for value in result.history["validation_elbo"])
        curves.append(f"Validation bound of the {name} every 100 steps: {curve}.")
        print(rows[-1], flush=True)
    where = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{platform.machine()} CPU"
    lines = [
        "# JSB chorales: nats per time step of the test pieces",
        "",
        f"Batches of 20, seed 0, on {where}, threads: {options.threads}; torch {torch.__version__}.",
        "Importance-sampled: 500 draws a piece.",
        "",
        "| model | bound | importance-sampled | s.e. of both | best step | seconds |",
        "|---|---|---|---|---|---|",
    ]
    for name, bound, sampled, steps, best, seconds in rows:
        values = " | ".join(f"{-estimate.total / steps:.3f}" for estimate in (bound, sampled))
        errors = ", ".join(f"{estimate.total_standard_error / steps:.3f}" for estimate in (bound, sampled))
        lines.append(f"| {name} | {values} | {errors} | {best} | {seconds:.0f} |")
    lines += ["", "| published | nats per step |", "|---|---|"]
    lines += [f"| {name} | {value} |" for name, value in PUBLISHED]
    lines += ["", *curves]
    options.out.write_text("\n".join(lines) + "\n")
    print(options.out.read_text())


if __name__ == "__main__":
    main()
