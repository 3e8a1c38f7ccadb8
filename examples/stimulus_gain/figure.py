"""The example's figure: arrays in, a file out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np

from examples.simulate import Array


def draw(path: Path, dose: Array, gates: Sequence[Array], ahead: Mapping[tuple[str, int], tuple[float, float]]) -> None:
    """Draw the gate by dose, and how far a gated gain is ahead of others.

    Args:
        path: of the picture.
        dose: of each test trial, log10.
        gates: each test trial's gate under the odour, by seed.
        ahead: nats a trial and standard error, by rival and seed.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3.2), layout="constrained")
    doses = np.unique(dose)
    for seed, gate in enumerate(gates):
        left.plot(doses, [gate[dose == each].mean() for each in doses], "o-", color=f"C{seed}", label=f"seed {seed}")
    left.set(xlabel="dose (log10), told to no model", ylabel="gate under the odour", ylim=(0, 1.02))
    left.legend(fontsize=8)
    for place, rival in enumerate(("none", "linear")):
        values, errors = zip(*(found for (name, _), found in ahead.items() if name == rival), strict=True)
        right.errorbar(place + 0.1 * np.arange(len(values)), values, errors, fmt="o", color=f"C{place}")
    right.axhline(0.0, color="0.6", linewidth=0.8)
    right.set_xticks([0.1, 1.1], ["no gain", "a gain that stands still"])
    right.set(ylabel="gated gain ahead of (nats a trial)", xlim=(-0.4, 1.7))
    figure.savefig(path, dpi=110)
