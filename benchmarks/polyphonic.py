"""Polyphonic music: nats per time step of the standard test pieces, importance-sampled, beside published models.

`python benchmarks/polyphonic.py` writes `benchmarks/results/polyphonic.md`; `--collections`, `--models` and
`--semitones` choose what is fitted, and rows of the table that are not taken again stay. Data: Boulanger-Lewandowski,
Bengio, Vincent 2012, in the folder LATENTRNN_SHARED or ../shared, data/polyphonic_music/: 88 keys, the published split
into training, validation and test pieces.

A model is first fitted to stretches of the training pieces in all keys up to `--semitones` away, then, from there, to
the pieces as they are, nearly all of which the collections have in C. Validation stretches choose the weights that are
kept in both, and the validation bound whether other keys are worth their time; the test pieces, whole, are looked at
once for each row. All settings are the same for every collection; the models with independent and with conditional
notes, each given the lower ones of its chord, differ in the family alone. The published split of Nottingham has one of
its test pieces, and one validation piece, among the training pieces.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import torch
from scipy.io import loadmat

import latentrnn as lr

ROOT = Path(__file__).resolve().parents[1]
STRETCH = 100  # steps that training goes back over
FILTERS, PARTICLES = 4, 50
FIRST, THEN = 2400, 800  # optimizer steps in all keys, and in the pieces' own
SPLITS = ("traindata", "validdata", "testdata")
COLLECTIONS = {"chorales": "JSB_Chorales.mat", "Nottingham": "Nottingham.mat", "piano": "Piano_midi.mat"}
Key = tuple[str, str, int]  # collection, model, semitones
PUBLISHED = (  # nats per step of chorales, Nottingham and piano
    ("RNN-NADE, conditional notes (Boulanger-Lewandowski, Bengio, Vincent 2012)", "5.19", "2.31", "7.05"),
    ("RNN, independent notes (the same)", "8.71", "4.46", "8.37"),
    ("best bound of particle filters, independent notes (Maddison et al. 2017)", "7.14", "2.90", "7.77"),
    ("deep Markov model, independent notes (Krishnan, Shalit, Sontag 2017), bound", "6.926", "", ""),
    ("the same, importance-sampled", "6.388", "", ""),
)


def folder() -> Path:
    """Where the recordings are."""
    return Path(os.environ.get("LATENTRNN_SHARED", ROOT.parent / "shared")) / "data" / "polyphonic_music"


def pieces(collection: str) -> list[list[np.ndarray]]:
    """Piano rolls of training, validation and test, (step, key) each.

    Raises:
        FileNotFoundError: the recordings are not there.
    """
    file = loadmat(folder() / COLLECTIONS[collection])
    return [[np.asarray(piece, np.float32) for piece in file[name].ravel()] for name in SPLITS]


def load(collection: str) -> list[lr.SequenceData]:
    """Training, validation and test pieces."""
    return [lr.SequenceData.from_arrays({"notes": split}) for split in pieces(collection)]


def transposed(piece: np.ndarray, semitones: int) -> list[np.ndarray]:
    """A piece in all keys up to so many semitones away, those left out in which a note would leave the keyboard."""
    keys = np.flatnonzero(piece.any(0))
    lowest, highest = max(-semitones, -int(keys[0])), min(semitones, piece.shape[1] - 1 - int(keys[-1]))
    return [np.roll(piece, shift, 1) for shift in range(lowest, highest + 1)]


def stretches(rolls: list[np.ndarray], semitones: int) -> lr.SequenceData:
    """Stretches of all pieces in these keys."""
    moved = [roll for piece in rolls for roll in transposed(piece, semitones)]
    return lr.SequenceData.from_arrays(
        {"notes": [roll[start : start + STRETCH] for roll in moved for start in range(0, len(roll), STRETCH)]}
    )


def recurrent(spec: lr.DataSpec, family: Callable[..., lr.Observation]) -> tuple[lr.LatentRNN, lr.Guide]:
    """A GRU that hears the chord before, with innovations of its own at every step."""
    model = lr.LatentRNN(
        spec,
        transition=lr.GRU(150),
        latent=lr.Innovations(24, initial=8),
        observations={"notes": family(readout=lr.MLPReadout(150), feedback=lr.History(1, 1))},
    )
    return model, lr.Guide(model, encoder=lr.RNNEncoder(64))


def markov(spec: lr.DataSpec) -> tuple[lr.LatentRNN, lr.Guide]:
    """The deep Markov model in the sizes that were published, with its own guide."""
    model = lr.LatentRNN(
        spec,
        transition=lr.GatedTransition(100, width=200),
        latent=lr.MarkovNormal("state"),
        observations={"notes": lr.Bernoulli(readout=lr.MLPReadout(100, layers=2, activation="relu"))},
    )
    return model, lr.Guide(model, encoder=lr.RNNEncoder(600, direction="backward", cell="relu"), family=lr.Combiner())


MODELS: dict[str, Callable[[lr.DataSpec], tuple[lr.LatentRNN, lr.Guide]]] = {
    "independent": partial(recurrent, family=lr.Bernoulli),
    "conditional": partial(recurrent, family=partial(lr.AutoregressiveBernoulli, 200, driven_units=True)),
    "deep Markov": markov,
}


def fitted(train: list[np.ndarray], valid: list[np.ndarray], name: str, semitones: int, longer: float) -> lr.FitResult:
    """Fit the training pieces in all keys, then in their own."""
    moved = stretches(train, semitones)
    watched = stretches(valid, 0).without(moved)  # some tunes share a refrain
    model, guide = MODELS[name](watched.spec)
    settings = {"seed": 0, "batch_size": 20, "compute": lr.Compute("cpu"), "reporting": lr.Reporting(progress=False)}
    first = lr.fit(
        model,
        guide,
        moved,
        watched,
        steps=int(longer * FIRST),
        optimizer=lr.AdamW(4e-3, weight_decay=0.1, averaging=0.99),
        stopping=lr.EarlyStopping(every=200, patience=3, num_particles=1),
        objective=lr.ELBO(kl=lr.KLWarmUp(0.3)),
        **settings,
    )
    return lr.fit(
        model,
        guide,
        stretches(train, 0),
        watched,
        start_from=first,
        steps=int(longer * THEN),
        optimizer=lr.AdamW(1e-3, weight_decay=1.0, averaging=0.99),
        stopping=lr.EarlyStopping(every=50, patience=4, num_particles=1),
        objective=lr.ELBO(kl=lr.KLWarmUp(0.0)),
        **settings,
    )


def per_step(evidence: lr.Evidence, data: lr.SequenceData) -> str:
    """Nats per step with the Monte Carlo error."""
    steps = int(data.lengths.sum())
    return f"{-evidence.total / steps:.3f} ({evidence.total_standard_error / steps:.3f})"


def spread(evidence: lr.Evidence, data: lr.SequenceData) -> float:
    """Standard error of the mean over pieces, as a ratio of sums."""
    lengths = data.lengths.double()
    rest = -evidence.values.double() + evidence.total / lengths.sum() * lengths
    return float(rest.square().sum().sqrt() / lengths.sum() * (len(rest) / (len(rest) - 1)) ** 0.5)


def labelled(name: str, longer: float) -> str:
    """What the table calls a model."""
    return name if longer == 1 else f"{name}, {longer:g} times the steps"


def row(collection: str, name: str, semitones: int, longer: float, draws: int) -> str:
    """Fit, judge, and return the line of the table."""
    train, valid, test = pieces(collection)
    begun = time.process_time()
    result = fitted(train, valid, name, semitones, longer)
    trained = time.process_time()
    # sorted, so that pieces that are scored together are alike in length
    whole = [lr.SequenceData.from_arrays({"notes": sorted(split, key=len)}) for split in (valid, test)]
    checked, bound = (result.posterior(part, device="cpu").evidence("elbo", 4) for part in whole)
    posterior = result.posterior(whole[1], device="cpu")
    sampled, filtered = posterior.evidence("iwae", draws), posterior.evidence(lr.SMC(FILTERS), PARTICLES)
    judged = time.process_time()
    size = sampled.effective_sample_size
    assert size is not None
    cells = [
        collection, labelled(name, longer), f"{semitones}", per_step(checked, whole[0]), per_step(bound, whole[1]),
        per_step(sampled, whole[1]), per_step(filtered, whole[1]), f"{spread(filtered, whole[1]):.3f}",
        f"{float(size.median()):.0f} of {draws}", f"{result.best_step + 1:,}",
        f"{(trained - begun) / 60:.1f}", f"{(judged - trained) / 60:.1f}",
    ]  # fmt: skip
    return "| " + " | ".join(cells) + " |"


def kept(out: Path) -> dict[Key, str]:
    """Rows of an earlier table."""
    found = {}
    for line in out.read_text().splitlines() if out.exists() else []:
        cells = [cell.strip() for cell in line.split("|")[1:4]]
        if len(cells) == 3 and cells[0] in COLLECTIONS and cells[1].partition(",")[0] in MODELS:
            found[cells[0], cells[1], int(cells[2])] = line
    return found


def write(out: Path, rows: dict[Key, str]) -> None:
    """Write the table."""
    order = list(COLLECTIONS)
    lines = [
        "# Polyphonic music: nats per time step of the test pieces",
        "",
        f"`python benchmarks/polyphonic.py` on {platform.machine()}, one thread, torch {torch.__version__}. Seed 0, "
        f"the same settings everywhere: {FIRST} steps at most in all keys up to so many semitones away, then {THEN} at "
        "most as the pieces are, of which the best is told. Of rows that differ in semitones alone the one with the "
        "better validation bound counts: the validation pieces choose the keys.",
        "",
        "Sum over all pieces by sum of their steps. In brackets the Monte Carlo error; then the standard error over "
        "pieces, and how many draws from the posterior the importance draws of a piece are worth (median); where "
        f"that is a few, the figure is a bound too, and its Monte Carlo error too small. Particle filters, {FILTERS} "
        f"of {PARTICLES} particles from the guide, resample on the way and stay tight on long pieces. Minutes are the "
        "processor's; an empty cell was not computed.",
        "",
        "| collection | model | semitones | validation, bound | test, bound | test, importance-sampled "
        "| test, particle filters | s.e. over pieces | effective draws | best step | minutes of the fit "
        "| of the test |",
        "|" + "---|" * 12,
        *[rows[key] for key in sorted(rows, key=lambda key: (order.index(key[0]), key[1], key[2]))],
        "",
        "| published | chorales | Nottingham | piano |",
        "|---|---|---|---|",
        *["| " + " | ".join(cells) + " |" for cells in PUBLISHED],
    ]
    out.write_text("\n".join(lines) + "\n")


def main() -> None:
    """Fit, judge, write the table as it grows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--collections", nargs="*", default=list(COLLECTIONS), choices=list(COLLECTIONS))
    parser.add_argument("--models", nargs="*", default=["independent", "conditional"], choices=list(MODELS))
    parser.add_argument(
        "--semitones", type=int, nargs="*", default=[0, 5], help="keys trained on first; 0 its own alone"
    )
    parser.add_argument("--longer", type=float, default=1.0, help="factor of the steps")
    parser.add_argument("--draws", type=int, default=200, help="importance draws of each test piece")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "polyphonic.md")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = kept(options.out)
    for collection in options.collections:
        if not (folder() / COLLECTIONS[collection]).exists():
            print(f"skipped: no {COLLECTIONS[collection]} in {folder()}; LATENTRNN_SHARED names the folder above data/")
            continue
        for name, semitones in product(options.models, options.semitones):
            key = collection, labelled(name, options.longer), semitones
            rows[key] = row(collection, name, semitones, options.longer, options.draws)
            print(rows[key], flush=True)
            write(options.out, rows)


if __name__ == "__main__":
    main()
