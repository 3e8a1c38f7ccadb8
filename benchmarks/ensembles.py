"""What averaging fits is worth, and whether one model that learns from the average keeps it: co-smoothing of reaches.

`python benchmarks/ensembles.py` writes `benchmarks/results/ensembles.md`. Data, model, guide and score are those of
`benchmarks/quality_time.py`; nothing is set but the seeds. Ten members take their steps together
(`fit_ensemble(vectorised=True)`), and their rates are averaged.

Then one model of the same kind is fitted with default settings to what the ensemble says of the training trials
(distillation), which is added to the recorded ones, four trials for each:

- "hidden units drawn": the shown units as they were recorded, the hidden ones drawn from the ensemble's mean rates;
- "all units drawn": shown units drawn from its mean rates as well, and the hidden ones from its rates given these;
- "trials replicated": all units of a trial from one draw of its latents, which vary as much as recorded trials do.

Validation trials, as recorded, say which is kept; the test is looked at once for each row. The ensemble and what was
distilled from it are kept in `--work`.

References:
    Hinton, Vinyals, Dean. Distilling the knowledge in a neural network. 2015.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from pathlib import Path

import numpy as np
import torch

import latentrnn as lr
from benchmarks.quality_time import DRAWS, Recipe, bits, build, expected, folder, load

ROOT = Path(__file__).resolve().parents[1]
SEEDS, COPIES = 10, 4  # members, and trials that they make of each recorded one
WAYS = ("hidden units drawn", "all units drawn", "trials replicated")
QUIET = {"compute": lr.Compute("cpu"), "reporting": lr.Reporting(progress=False)}
MODEL = Recipe("default", steps=0)
Parts = tuple[lr.SequenceData, lr.SequenceData, lr.SequenceData]


def fitted_ensemble(parts: Parts, work: Path) -> tuple[lr.Ensemble, float]:
    """Return the ensemble and the processor's seconds of its fit, or what an earlier run left."""
    kept, seconds = work / "ensemble", work / "seconds.json"
    if seconds.exists():
        return lr.Ensemble.load(kept), float(json.loads(seconds.read_text()))
    start = time.process_time()
    found = lr.fit_ensemble(*build(MODEL, parts[0].spec), *parts[:2], seeds=range(SEEDS), vectorised=True, **QUIET)
    spent = time.process_time() - start
    found.save(kept)
    seconds.write_text(json.dumps(spent))
    return found, spent


def averaged(ensemble: lr.Ensemble, data: lr.SequenceData, head: str) -> np.ndarray:
    """Rates of a head, averaged over members and draws, (trial, time, channel)."""
    return np.mean([member.posterior(data, device="cpu").rates(head, DRAWS).mean(0) for member in ensemble.members], 0)


def told(ensemble: lr.Ensemble, train: lr.SequenceData, way: str) -> lr.SequenceData:
    """Return the training trials, and after them `COPIES` of each that the ensemble made in this way."""
    rng = np.random.default_rng(0)
    counts = {head: [train.observations[head].double().numpy()] for head in ("shown", "hidden")}
    if way == "trials replicated":
        drawn = ensemble.posterior(train, device="cpu").predictive(COPIES)
        made = {head: list(drawn[head].double().numpy()) for head in counts}
    else:
        rates = {head: averaged(ensemble, train, head) for head in counts}
        made = {"shown": COPIES * counts["shown"], "hidden": COPIES * [rates["hidden"]]}
        if way == "all units drawn":
            made["shown"] = [rng.poisson(rates["shown"]).astype(float) for _ in range(COPIES)]
            heads = [{"shown": shown, "hidden": counts["hidden"][0]} for shown in made["shown"]]
            given = [lr.SequenceData.from_arrays(each, dt=0.02) for each in heads]
            made["hidden"] = [averaged(ensemble, each, "hidden") for each in given]
        made["hidden"] = [rng.poisson(each).astype(float) for each in made["hidden"]]
    arrays = {head: np.concatenate([*counts[head], *made[head]]) for head in counts}
    return lr.SequenceData.from_arrays(arrays, dt=0.02)


def distilled(ensemble: lr.Ensemble, parts: Parts, way: str, work: Path) -> list[str]:
    """Fit one model to what the ensemble made, and return its row, or what an earlier run left."""
    file = work / f"{way}.json"
    if not file.exists():
        data = told(ensemble, parts[0], way)
        start = time.process_time()
        student = lr.fit(*build(MODEL, data.spec), data, parts[1], seed=0, **QUIET)
        spent, taken = time.process_time() - start, int(student.history["step"][-1]) + 1
        cells = scored([expected(student, part) for part in parts[1:]], parts)
        file.write_text(json.dumps([f"distilled, {way}", *cells, f"{taken:,}", f"{spent:.0f} more"]))
    found: list[str] = json.loads(file.read_text())
    return found


def scored(rates: list[np.ndarray], parts: Parts) -> list[str]:
    """Return cells of the table: bits per spike of validation and test trials."""
    return [f"{bits(rates[0], parts[1])[0]:.4f}", "{:.4f} ({:.4f})".format(*bits(rates[1], parts[2]))]


def main() -> None:
    """Fit, average, distil, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "ensembles", help="where the ensemble is kept")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "ensembles.md")
    options = parser.parse_args()
    if not (folder() / "monkey_features_300.csv").exists():
        print(f"skipped: no monkey_features_300.csv in {folder()}; LATENTRNN_SHARED names the folder above data/")
        return
    torch.set_num_threads(1)
    parts = load()
    ensemble, seconds = fitted_ensemble(parts, options.work)
    print(f"ensemble: {seconds:.0f} s", [member.stop_reason for member in ensemble.members], flush=True)
    rates = [[expected(member, part) for part in parts[1:]] for member in ensemble.members]
    single = [(bits(valid, parts[1])[0], bits(test, parts[2])[0]) for valid, test in rates]
    steps = [int(member.history["step"][-1]) + 1 for member in ensemble.members]
    rows = [
        ["one member (mean, lowest to highest)"]
        + [f"{np.mean(each):.4f} ({min(each):.4f} to {max(each):.4f})" for each in zip(*single, strict=True)]
        + [f"{min(steps):,} to {max(steps):,}", f"{seconds / SEEDS:.0f}"]
    ]
    for count in (3, 5, SEEDS):
        mean = [np.mean(each[:count], 0) for each in zip(*rates, strict=True)]
        rows.append(
            [f"rates of the first {count}, averaged", *scored(mean, parts), "", f"{seconds * count / SEEDS:.0f}"]
        )
        print(rows[-1], flush=True)
    for way in WAYS:
        rows.append(distilled(ensemble, parts, way, options.work))
        print(rows[-1], flush=True)
        options.out.write_text(table(rows))
    print(options.out.read_text())


def table(rows: list[list[str]]) -> str:
    """Return the page."""
    lines = [
        "# Fits averaged, and one model that learns from the average",
        "",
        f"`python benchmarks/ensembles.py` on {platform.machine()}, one thread, torch {torch.__version__}:",
        f"co-smoothing of the monkey's reaches, default settings, {SEEDS} seeds of which none is dropped, their steps",
        "taken together. Bits per spike of hidden units, the standard error over trials in brackets. Seconds are the",
        "processor's, on a machine that other programs shared.",
        "",
        "| | validation | test | steps | seconds |",
        "|---|---|---|---|---|",
        *("| " + " | ".join(row) + " |" for row in rows),
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
