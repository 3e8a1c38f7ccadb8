"""The example's figure: arrays in, a file out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np

from examples.simulate import Array


def draw(path: Path, dose: Array, gate: Array, ahead: Mapping[str, tuple[float, float]]) -> None:
    """Draw the gate by dose, and how far a gated gain is ahead of others.

    Args:
        path: of the picture.
        dose: of each test trial, log10.
        gate: each test trial's gate under the odour.
        ahead: nats a trial and standard error, by rival.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3.2), layout="constrained")
    scatter = np.random.default_rng(0).uniform(-0.12, 0.12, len(dose))
    left.plot(dose + scatter, gate, ".", color="0.6", label="test trials")
    doses = np.unique(dose)
    left.plot(doses, [gate[dose == each].mean() for each in doses], "o-", color="C0", label="mean")
    left.set(xlabel="dose (log10), not told to the model", ylabel="gate under the odour", ylim=(0, 1.02))
    left.legend(fontsize=8)
    for place, (gained, error) in enumerate(ahead.values()):
        right.errorbar([place], [gained], [2 * error], fmt="o", color="C0", capsize=3)
    right.axhline(0.0, color="0.6", linewidth=0.8)
    right.set_xticks(range(len(ahead)), list(ahead))
    right.set(ylabel="gated gain ahead (nats a trial, two s.e.)", xlim=(-0.5, len(ahead) - 0.5))
    figure.savefig(path, dpi=110)
