"""The example's figure: arrays in, a file out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np

from examples.simulate import Array


def draw(path: Path, read: Array, arbitrary: Array, controls: Array, models: Sequence[str]) -> None:
    """Draw R2 of charge and of hydropathy by model, a point a seed, with arbitrary scales and other proteins beside.

    Args:
        path: of the file.
        read: (seed, model, variable).
        arbitrary: (seed, model, variable, scale).
        controls: the best of those of other proteins, (seed, model, variable).
        models: their names.
    """
    figure, panels = plt.subplots(1, 2, figsize=(8, 3), sharey=True, layout="constrained")
    for place, (ax, name) in enumerate(zip(panels, ("net charge", "hydropathy"), strict=True)):
        shown = (
            ("arbitrary scales", arbitrary[:, :, place].transpose(0, 2, 1).reshape(-1, len(models)), "0.6", 0.15),
            ("other proteins, best", controls[..., place], "C1", 0.3),
            (name, read[..., place], "C0", -0.15),
        )
        for label, values, colour, shift in shown:
            x = np.broadcast_to(np.arange(len(models)) + shift, values.shape)
            ax.scatter(x.ravel(), values.ravel(), s=14, color=colour, alpha=0.7, linewidths=0, label=label)
        ax.axhline(0.0, color="0.8", linewidth=0.8, zorder=0)
        ax.set_xticks(range(len(models)), models, fontsize="small")
        ax.set_title(f"{name} of the last nine residues", fontsize="medium")
        ax.legend(frameon=False, fontsize="small")
    panels[0].set_ylabel("R² of the probe")
    figure.savefig(path, dpi=130)
    plt.close(figure)
