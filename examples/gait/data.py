"""Gait and muscles as their owners keep them: an array of R, text files of an armband, a CSV file of a walkway."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

import latentrnn as lr
from examples.simulate import Gait

GAIT, MUSCLE = "gait_fda", "emg_myo"
GESTURES = ["rest", "flexion", "extension", "radial", "ulnar", "pronation", "supination", "fist"]
RATE, BIN, CHUNK = 200, 10, 200  # samples per second, samples in a bin of 50 ms, bins in a sequence of 10 s
ELECTRODES = [f"electrode {number}" for number in range(1, 9)]


def boys(data: Path) -> lr.SequenceData:
    """Return one gait cycle of each of 39 boys, 20 steps of hip and knee.

    Of the R package fda (Ramsay), `gait`; recorded at Children's Hospital, San Diego (Olshen, Biden, Wyatt, Sutherland.
    Gait analysis and the bootstrap. 1989).

    Raises:
        SystemExit: rdata, which reads files of R, is not installed.
    """
    try:
        import rdata
    except ImportError:
        raise SystemExit("gait: the recordings are a file of R; pip install rdata") from None
    values = rdata.read_rda(data / GAIT / "gait.rda")["gait"].rename(dim_0="cycle", dim_1="boy", dim_2="joint")
    table = values.to_dataframe("angle").reset_index()  # a row for each angle
    table["cycle"] = table["cycle"].astype(float)
    return lr.SequenceData.from_dataframe(
        table, {"knee": "Knee Angle"}, {"hip": "Hip Angle"}, time="cycle", group="boy", variable="joint", value="angle"
    )


def muscles(data: Path) -> lr.SequenceData:
    """Return the gestures of a forearm and its electromyogram, 10 s a sequence, 50 ms a step.

    Rectified averages of eight electrodes; one subject, a file of a minute for each gesture (public repository
    aljazfrancic/myo-readings-dataset).
    """
    parts = []
    for file in sorted((data / MUSCLE).glob("*_?.txt")):
        signal = pd.read_csv(file, header=None, names=[*ELECTRODES, "gesture"])
        bins = np.arange(len(signal)) // BIN
        table = signal[ELECTRODES].abs().groupby(bins).mean()
        table["gesture"] = [GESTURES[code] for code in signal["gesture"].groupby(bins).first()]
        table["file"] = file.stem
        table["chunk"] = table.index // CHUNK
        parts.append(table[table["chunk"] < len(table) // CHUNK])
    return lr.SequenceData.from_dataframe(
        pd.concat(parts),
        {"gesture": "gesture"},
        {"muscle": ELECTRODES},
        group=["file", "chunk"],
        dt=BIN / RATE,
        levels={"gesture": GESTURES},
    )


def walkers(found: Gait, file: Path) -> lr.SequenceData:
    """Write what a walkway would have measured as a CSV file, a row for each step, and read it."""
    number, steps = found.hip.shape[:2]
    walker, step = np.divmod(np.arange(number * steps), steps)
    angles = {name: np.round(getattr(found, name).ravel(), 3) for name in ("hip", "push", "knee")}
    pd.DataFrame({"walker": walker, "seconds": np.round(step * found.dt, 3)} | angles).to_csv(file, index=False)
    return lr.SequenceData.from_dataframe(
        pd.read_csv(file), {"knee": "knee"}, {"angles": ["hip", "push"]}, time="seconds", group="walker", dt=found.dt
    )
