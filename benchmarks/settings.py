"""What a fit's settings are worth on data of different kinds: one changed at a time, all else at its default.

`python benchmarks/settings.py` writes `benchmarks/results/settings.md`. Data and models are those of
`benchmarks/convergence.py`. Every fit ends by itself, with validation sequences, under a limit of `--seconds`. Settings
are compared by the ELBO with 20 draws, nats per sequence: on the validation sequences, which may choose, and on test
sequences, which judge what was chosen; errors are paired by sequence. Data that are absent are left out.
"""

from __future__ import annotations

import argparse
import platform
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import latentrnn as lr
from benchmarks.convergence import CASES, DRAWS

ROOT = Path(__file__).resolve().parents[1]
DEFAULT = "default"
SETTINGS: dict[str, dict[str, Any]] = {
    DEFAULT: {},
    "former default": {"optimizer": lr.AdamW(0.003, weight_decay=0.01, averaging=0.98), "batch_size": 64},
    "weight decay 0.1": {"optimizer": lr.AdamW(weight_decay=0.1)},
    "weight decay 1": {"optimizer": lr.AdamW(weight_decay=1.0)},
    "averaging 0.98": {"optimizer": lr.AdamW(averaging=0.98)},
    "batches of 64": {"batch_size": 64},
    "learning rate 0.003": {"optimizer": lr.AdamW(learning_rate=0.003)},
    "learning rate 0.01": {"optimizer": lr.AdamW(learning_rate=0.01)},
}


@dataclass(frozen=True)
class Outcome:
    """One fit: ELBO by sequence of validation and test, nats, steps, seconds of the processor, and why it ended."""

    valid: torch.Tensor
    test: torch.Tensor
    steps: int
    seconds: float
    reason: str


def fitted(name: str, settings: dict[str, Any], seconds: float) -> Outcome:
    """Fit one data set under settings, and score it."""
    case = CASES[name]
    train, valid, test = case.load()
    model, guide = case.build(train)
    begun = time.process_time()
    result = lr.fit(
        model, guide, train, valid, seed=0, stopping=lr.EarlyStopping(max_time=seconds), compute=lr.Compute("cpu"),
        reporting=lr.Reporting(progress=False), **settings,
    )  # fmt: skip
    spent = time.process_time() - begun
    scores = [result.posterior(part, device="cpu").evidence("elbo", DRAWS).values.double() for part in (valid, test)]
    return Outcome(*scores, int(result.history["step"][-1]) + 1, spent, result.stop_reason.partition(":")[0])


def row(name: str, setting: str, outcome: Outcome, default: Outcome) -> str:
    """One line of the table."""
    cells = []
    for own, other in ((outcome.valid, default.valid), (outcome.test, default.test)):
        gain = own - other
        error = float(gain.std()) / len(gain) ** 0.5
        cells.append(f"{float(own.mean()):.2f}" if outcome is default else f"{float(gain.mean()):+.2f} +- {error:.2f}")
    return (
        f"| {name} | {setting} | {' | '.join(cells)} | {outcome.steps:,} | {outcome.seconds:.0f} | {outcome.reason} |"
    )


def main() -> None:
    """Fit everything, and write the table as it grows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="*", default=list(CASES), choices=list(CASES))
    parser.add_argument("--seconds", type=float, default=120.0, help="limit of a fit")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "settings.md")
    options = parser.parse_args()
    torch.set_num_threads(1)
    lines = [
        "# What settings are worth, one changed at a time",
        "",
        f"`python benchmarks/settings.py` on {platform.machine()}, one thread, torch {torch.__version__}.",
        "",
        f"ELBO with {DRAWS} draws, nats per sequence: of the default fit, and what others have above it, with the "
        "paired standard error over sequences. One seed. Seconds are the processor's; a fit may take "
        f"{options.seconds:.0f} s.",
        "",
        "| data | setting | validation | test | steps | seconds | ended |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in options.data:
        found: dict[str, Outcome] = {}
        for setting, settings in SETTINGS.items():
            try:
                found[setting] = fitted(name, settings, options.seconds)
            except FileNotFoundError as error:
                print(f"{name} is left out: {error}", flush=True)
                break
            lines.append(row(name, setting, found[setting], found[DEFAULT]))
            print(lines[-1], flush=True)
            options.out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
