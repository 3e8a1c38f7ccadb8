"""Small studies that tests start in processes of their own: `python -m tests.study.sweeps FOLDER [die]`."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

import latentrnn as lr

STEPS = 12
DIES_AT = 8  # step of the second run


def walks() -> tuple[lr.SequenceData, lr.SequenceData, lr.SequenceData]:
    values = np.random.default_rng(0).normal(size=(30, 6, 1)).cumsum(1)
    return lr.SequenceData.from_arrays({"y": values}).split(0.5, 0.2, 0.3, seed=0)


def rnn(data: Any, hidden: int = 2) -> lr.LatentRNN:
    heads = {"y": lr.Gaussian()}
    return lr.LatentRNN(data.spec, transition=lr.GRU(hidden), latent=lr.Deterministic(), observations=heads)


def linear(data: Any) -> lr.LatentRNN:
    heads = {"y": lr.Gaussian()}
    return lr.LatentRNN(data.spec, transition=lr.Linear(2), latent=lr.LinearGaussian(), observations=heads)


def study(folder: str | Path, **changes: Any) -> lr.Study:
    given: dict[str, Any] = {
        "seeds": [0, 1],
        "settings": {"hidden": [2, 3]},
        "fit": {"steps": STEPS, "batch_size": 8, "stopping.every": 4, "reporting.every": 2},
        "checkpoint_every": 0,
        "heartbeat": 1,
    }
    return lr.Study(folder, {"rnn": rnn, "linear": linear}, *walks(), **{**given, **changes})


class Dies:
    """Kills the process in the middle of its second fit."""

    def __init__(self) -> None:
        self.fits = 0

    def __call__(self, progress: lr.Progress, /) -> None:
        self.fits += progress.kind == "report" and progress.step < 2
        if self.fits == 2 and progress.step >= DIES_AT:
            os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    torch.set_num_threads(1)
    fit = {"steps": STEPS, "batch_size": 8, "stopping.every": 4}
    reporting = lr.Reporting(progress=False, every=2, callbacks=[Dies()] if "die" in sys.argv else [])
    study(sys.argv[1], fit=fit | {"reporting": reporting}).run(progress=False)
