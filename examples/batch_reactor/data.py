"""Batches as their owners keep them: a table with a row for each time of each batch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

import latentrnn as lr
from examples.simulate import Reactor

NYLON = "batch_process"
MEASURED = ["Tag02", "Tag03", "Tag08", "Tag09"]  # of nylon: what answers
GIVEN = ["Tag05", "Tag10"]  # what is set: an output of a controller, and steps as of a set point


def reactors(found: Reactor, file: Path) -> lr.SequenceData:
    """Write what a plant's historian and its laboratory would have as a CSV file, and read it."""
    batches, steps = found.added.shape[:2]
    batch, step = np.divmod(np.arange(batches * steps), steps)
    columns = {"added": found.added.ravel(), "product": found.product.ravel()}
    once = {"charge": found.charge[batch], "purity": found.purity[batch]}
    table = pd.DataFrame({"batch": batch, "minute": found.dt * (step + 1)} | columns | once).round(4)
    table.to_csv(file, index=False)
    table = pd.read_csv(file)
    table["since"] = pd.to_timedelta(table["minute"], unit="min")
    heads, covariates = {"product": "product", "purity": "purity"}, {"added": "added", "charge": "charge"}
    return lr.SequenceData.from_dataframe(
        table, heads, covariates, time="since", group="batch", per_sequence=["purity"], dt=f"{found.dt:g}min"
    )


def nylon(data: Path) -> lr.SequenceData:
    """Return 57 batches of an industrial nylon autoclave, 113 to 135 steps each: four tags, and what was set.

    Of the Python package process-improve (Dunn), `nylon.csv`; first in Kassidas (Fault detection and diagnosis in
    dynamic multivariable chemical processes using speech recognition methods. 1997). Nobody says what tags are;
    Tag01 is the phase, 1 to 5. Values are in thousands.
    """
    table = pd.read_csv(data / NYLON / "nylon.csv")
    table[[*MEASURED, *GIVEN]] /= 1000
    table["phase"] = "phase " + table["Tag01"].astype(str)
    heads, covariates = {"tags": MEASURED}, {"set": GIVEN, "phase": "phase"}
    return lr.SequenceData.from_dataframe(table, heads, covariates, group="batch_id")
