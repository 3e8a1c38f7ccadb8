"""What averaging fits is worth, and whether one model that learns from the average keeps it: co-smoothing of reaches.

`python benchmarks/ensembles.py` writes `benchmarks/results/ensembles.md`. Data, model, guide and score are those of
`benchmarks/quality_time.py`; nothing is set but the seeds. Ten members take their steps together
(`fit_ensemble(vectorised=True)`), and their rates are averaged.

Then one model of the same kind is fitted with default settings to what the ensemble says of the training trials
(distillation), by one of two sets of trials:

- "hidden units drawn": the shown units as they were recorded, the hidden ones drawn from the ensemble's rates;
- "all units drawn": shown units drawn from its rates as well, and the hidden ones from its rates given these.

The recorded trials are among them both times. Validation trials, as recorded, say which is kept; the test is looked at
once for each row. The ensemble is kept in `--work`.

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
SEEDS, COPIES = 10, 4  # members, and drawn trials for each recorded one
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


def told(ensemble: lr.Ensemble, train: lr.SequenceData, *, anew: bool) -> lr.SequenceData:
    """Return training trials, and after them `COPIES` of each with hidden units drawn from the ensemble's rates.

    Args:
        anew: whether their shown units are drawn as well.
    """
    rng = np.random.default_rng(0)
    counts = {head: [train.observations[head].double().numpy()] for head in ("shown", "hidden")}
    rates = {head: averaged(ensemble, train, head) for head in counts}
    for _ in range(COPIES):
        shown = rng.poisson(rates["shown"]).astype(float) if anew else counts["shown"][0]
        drawn = lr.SequenceData.from_arrays({"shown": shown, "hidden": counts["hidden"][0]}, dt=0.02)
        hidden = rng.poisson(averaged(ensemble, drawn, "hidden") if anew else rates["hidden"]).astype(float)
        counts["shown"].append(shown), counts["hidden"].append(hidden)
    return lr.SequenceData.from_arrays({head: np.concatenate(each) for head, each in counts.items()}, dt=0.02)


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
    for name, anew in (("hidden units drawn", False), ("all units drawn", True)):
        drawn = told(ensemble, parts[0], anew=anew)
        start = time.process_time()
        student = lr.fit(*build(MODEL, drawn.spec), drawn, parts[1], seed=0, **QUIET)
        spent, taken = time.process_time() - start, int(student.history["step"][-1]) + 1
        cells = scored([expected(student, part) for part in parts[1:]], parts)
        rows.append([f"distilled, {name}", *cells, f"{taken:,}", f"{spent:.0f} more"])
        print(rows[-1], student.stop_reason, flush=True)
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
