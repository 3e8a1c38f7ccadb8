"""The history of a fit under way as plain text, beside its checkpoints."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence

from latentrnn.inference.fitting.history import by_step

METRICS = "metrics.csv"


def metrics_table(history: Mapping[str, Sequence[float]]) -> str:
    """Return a history as a table of comma-separated values: a row for each step at which anything was noted.

    Args:
        history: as of `FitResult`, nats per sequence.

    Returns:
        The column `step`, those of reports and those of evaluations, which are empty at steps of the other alone.

    Example:
        >>> history = {"step": [0, 2], "elbo": [-3.0, -2.0], "validation_step": [2], "validation_elbo": [-2.5]}
        >>> print(metrics_table(history))
        step,elbo,validation_elbo
        0,-3.0,
        2,-2.0,-2.5
        <BLANKLINE>
    """
    names, rows = by_step(history)
    file = io.StringIO()
    writer = csv.DictWriter(file, ["step", *names], lineterminator="\n")
    writer.writeheader()
    writer.writerows({"step": step, **row} for step, row in rows.items())
    return file.getvalue()
