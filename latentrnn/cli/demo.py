"""A tour of the commands on a small data set that it writes: counts that follow two rotating states."""

from __future__ import annotations

import csv
import shlex
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from latentrnn.cli.answers import Answer
from latentrnn.cli.parser import parse

TRIALS, STEPS, NEURONS = 60, 40, 8
MODELS = '''"""Two models of the same counts: `gru.py` and `gru.py:linear`."""

import latentrnn as lr


def model(data, hidden=16):
    return lr.LatentRNN(
        data.spec,
        transition=lr.GRU(hidden),
        latent=lr.InitialState(4),
        observations={"spikes": lr.Poisson()},
    )


def linear(data):
    return lr.LatentRNN(
        data.spec,
        transition=lr.Linear(4),
        latent=lr.InitialState(4),
        observations={"spikes": lr.Poisson()},
    )
'''


def run_demo(folder: Path, steps: int, commands: Mapping[str, Callable[[Any], Answer]], *, quiet: bool) -> Answer:
    """Write data and models to a folder, and run the commands that a user would, showing each."""
    folder.mkdir(parents=True, exist_ok=True)
    write_counts(folder / "trials.csv")
    (folder / "gru.py").write_text(MODELS)
    columns = ",".join(f"n{unit}" for unit in range(NEURONS))
    data = [f"{folder}/trials.csv", "--time", "t", "--group", "trial", "--observe", f"spikes={columns}"]
    lines = [
        ["info", f"{folder}/trials.csv"],
        ["fit", f"{folder}/gru.py", *data, "--steps", str(steps), "--out", f"{folder}/gru"],
        ["fit", f"{folder}/gru.py:linear", *data, "--steps", str(steps), "--out", f"{folder}/linear"],
        ["compare", f"{folder}/gru", f"{folder}/linear"],
        ["report", f"{folder}/gru", "--samples", "100"],
        ["forecast", f"{folder}/gru", "--horizon", "5", "--part", "test", "--out", f"{folder}/next.csv"],
    ]
    values: dict[str, Any] = {}
    said = []
    for line in lines:
        shown = f"$ latentrnn {shlex.join(line)}"
        if not quiet:
            print(shown, file=sys.stderr, flush=True)
        answer = commands[line[0]](parse([*line, *(["--quiet"] if quiet else [])]))
        said += [shown, answer.text, ""]
        values[shlex.join(line)] = answer.values
    said.append(f"All of it is in {folder}: change gru.py, and try again.")
    return Answer("\n".join(said), {"command": "demo", "folder": str(folder), "steps": values})


def write_counts(path: Path) -> None:
    """Write trials of counts whose rates follow a damped rotation, begun anew in each."""
    rng = np.random.default_rng(0)
    angle, damping = 0.3, 0.99
    turn = damping * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    weights = 0.8 * rng.normal(size=(2, NEURONS))
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["trial", "t", *(f"n{unit}" for unit in range(NEURONS))])
        for trial in range(TRIALS):
            state = rng.normal(size=2)
            for step in range(STEPS):
                rows.writerow([trial, f"{0.02 * step:.2f}", *rng.poisson(np.exp(state @ weights - 0.5)).tolist()])
                state = turn @ state
