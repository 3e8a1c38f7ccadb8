"""What a fit's settings are worth on data of different kinds: one changed at a time, all else at its default.

`python benchmarks/settings.py` writes `benchmarks/results/settings.md`. Every fit ends by itself, with validation
sequences. Settings are compared by the ELBO with 20 draws, nats per sequence: on the validation sequences, which choose
the best of the design, and on test sequences, which judge what was chosen; errors are paired by sequence. Outcomes are
kept in `--work`, so that a run that was stopped goes on where it was, and the table has all of them. Data that are
absent are left out.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch

import latentrnn as lr
from benchmarks import convergence, recorded
from benchmarks.convergence import DRAWS, Case, Parts

ROOT = Path(__file__).resolve().parents[1]
CASES: dict[str, Case] = {
    name: convergence.CASES[name]
    for name in (
        "monkey reaches", "locust odours", "chorales", "counts, 20 channels", "weekly, 10 series", "oscillators, binary"
    )
} | recorded.CASES  # fmt: skip
DEFAULT = "default"
SETTINGS: dict[str, dict[str, Any]] = {
    DEFAULT: {},
    "weight decay 0.03": {"optimizer": lr.AdamW(weight_decay=0.03)},
    "weight decay 1": {"optimizer": lr.AdamW(weight_decay=1.0)},
    "learning rate 0.003": {"optimizer": lr.AdamW(learning_rate=0.003)},
    "learning rate 0.01": {"optimizer": lr.AdamW(learning_rate=0.01)},
    "batches of 64": {"batch_size": 64},
    "batches of 48": {"batch_size": 48},
    "batches of 16": {"batch_size": 16},
    "batches of 12": {"batch_size": 12},
    "batches of 4": {"batch_size": 4},
    "averaging 0.98": {"optimizer": lr.AdamW(averaging=0.98)},
    "averaging 0.999": {"optimizer": lr.AdamW(averaging=0.999)},
}
HISTORY = "## How the defaults came about"  # what the page has from here on was written by hand, and stays


@dataclass(frozen=True)
class Outcome:
    """One fit: ELBO by sequence of validation and test, nats, steps, seconds of the processor, and why it ended."""

    valid: list[float]
    test: list[float]
    steps: int
    seconds: float
    reason: str


def fitted(case: Case, parts: Parts, settings: Mapping[str, Any], seed: int, limit: int) -> Outcome:
    """Fit one data set under settings, and score it."""
    train, valid, test = parts
    model, guide = case.build(train)
    begun = time.process_time()
    result = lr.fit(
        model, guide, train, valid, seed=seed, stopping=lr.EarlyStopping(max_steps=limit), compute=lr.Compute("cpu"),
        reporting=lr.Reporting(progress=False), **settings,
    )  # fmt: skip
    spent = time.process_time() - begun
    scores = [result.posterior(part, device="cpu").evidence("elbo", DRAWS).values.tolist() for part in (valid, test)]
    return Outcome(*scores, int(result.history["step"][-1]) + 1, spent, result.stop_reason.partition(":")[0])


def kept(work: Path, name: str, setting: str, seed: int) -> Path:
    """Where an outcome is kept."""
    return work / name / f"{setting}, seed {seed}.json"


def known(work: Path) -> dict[tuple[str, int], dict[str, Outcome]]:
    """What is known, by data set and seed and then by setting; where the default is not, nothing is compared."""
    found: dict[tuple[str, int], dict[str, Outcome]] = {}
    seeds = sorted({int(file.stem.rpartition(" ")[2]) for file in work.glob("*/*.json")})
    for name, seed in product(CASES, seeds):
        files = {setting: kept(work, name, setting, seed) for setting in SETTINGS}
        each = {key: Outcome(**json.loads(file.read_text())) for key, file in files.items() if file.exists()}
        if DEFAULT in each:
            found[name, seed] = each
    return found


def gain(own: list[float], other: list[float]) -> tuple[float, float]:
    """Return the average difference by sequence and its standard error."""
    difference = np.subtract(own, other)
    return float(difference.mean()), float(difference.std(ddof=1)) / len(difference) ** 0.5


def above(own: list[float], other: list[float]) -> str:
    """Return that in words."""
    return "{:+.2f} ({:.2f})".format(*gain(own, other))


def best(found: Mapping[str, Outcome]) -> str:
    """Return the setting of the design with the best validation ELBO."""
    return max(found, key=lambda setting: float(np.mean(found[setting].valid)))


def summary(name: str, seed: int, found: Mapping[str, Outcome]) -> str:
    """One line of the first table."""
    default, chosen = found[DEFAULT], best(found)
    other, mean = found[chosen], float(np.mean(default.test))
    error = float(np.std(default.test, ddof=1)) / len(default.test) ** 0.5
    ahead = gain(other.test, default.test)
    gains = ["", ""] if other is default else [above(other.valid, default.valid), above(other.test, default.test)]
    cells = [
        name, f"{seed}", f"{mean:.2f} ({error:.2f})", f"{len(found) - 1}", chosen, *gains,
        "yes" if ahead[0] <= error else "**no**", "yes" if ahead[0] <= ahead[1] else "**no**",
        f"{default.seconds / other.seconds:.2f}", default.reason,
    ]  # fmt: skip
    return f"| {' | '.join(cells)} |"


def row(name: str, seed: int, setting: str, found: Mapping[str, Outcome]) -> str:
    """One line of the second table."""
    own, default = found[setting], found[DEFAULT]
    parts = [(own.valid, default.valid), (own.test, default.test)]
    cells = [f"{np.mean(mine):.2f}" if own is default else above(mine, theirs) for mine, theirs in parts]
    return f"| {name} | {seed} | {setting} | {' | '.join(cells)} | {own.steps:,} | {own.seconds:.0f} | {own.reason} |"


def page(found: Mapping[tuple[str, int], Mapping[str, Outcome]], earlier: str) -> str:
    """Return both tables, and what was written by hand."""
    lines = [
        "# What settings are worth, one changed at a time",
        "",
        f"`python benchmarks/settings.py` on {platform.machine()}, one thread, torch {torch.__version__}.",
        "",
        f"ELBO with {DRAWS} draws, nats per sequence (exact where nothing is random), standard errors over sequences "
        "in brackets, those of differences paired. Every fit ends by itself. The best setting of the design is the one "
        "with the best validation score, of the default and so many changes of one setting; what it has above the "
        "default is judged on the test. Within its error: whether that is no more than the standard error of the "
        "default's score, and, far stricter, of the difference itself. Time is the processor's, the default's over "
        "that of the best setting.",
        "",
        "So that a fit takes a minute or two at most, chorales (40 pieces of 229), charts (600 patients of 2,198), "
        "influenza (40 districts of 140, two years) and the reaches (48 of 640, a third of the units) are cut down.",
        "",
        "| data | seed | default, test | changes tried | best by validation | ahead, validation | ahead, test "
        "| within the score's error | within the difference's | time | default ended |",
        "|" + "---|" * 11,
        *[summary(*key, each) for key, each in found.items()],
        "",
        "## All fits",
        "",
        "Of the default the score, of others what they have above it. Seconds are the processor's, on a machine that "
        "other programs shared.",
        "",
        "| data | seed | setting | validation | test | steps | seconds | ended |",
        "|" + "---|" * 8,
        *[row(*key, setting, each) for key, each in found.items() for setting in each],
    ]
    return "\n".join(lines) + "\n" + earlier


def main() -> None:
    """Fit what has not been fitted, and write the tables as they grow."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="*", default=list(CASES), choices=list(CASES))
    parser.add_argument("--settings", nargs="*", default=list(SETTINGS), choices=list(SETTINGS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=20_000, help="limit of a fit")
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "settings", help="where outcomes are kept")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "settings.md")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for name in options.data:
        files = {setting: kept(options.work, name, setting, options.seed) for setting in options.settings}
        missing = {setting: file for setting, file in files.items() if not file.exists()}
        try:
            parts = CASES[name].load() if missing else None
        except FileNotFoundError as error:
            print(f"{name} is left out: {error}", flush=True)
            continue
        for setting, file in missing.items():
            outcome = fitted(CASES[name], parts, SETTINGS[setting], options.seed, options.steps)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(asdict(outcome)))
            print(f"{name}, {setting}: {outcome.steps:,} steps, {outcome.seconds:.0f} s, {outcome.reason}", flush=True)
    _, mark, history = options.out.read_text().partition(HISTORY) if options.out.exists() else ("", "", "")
    options.out.write_text(page(known(options.work), f"\n{mark}{history}" if mark else ""))


if __name__ == "__main__":
    main()
