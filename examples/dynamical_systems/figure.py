"""The example's figure: what was found in, a file out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt

import latentrnn as lr
from examples.dynamical_systems.opened import Drift, Heading, Words
from latentrnn import plotting

LITERATURE = (0.906, 0.0, -14.572)  # Lyapunov exponents of Lorenz's system


def draw(path: Path, words: Words, heading: Heading, drifts: Sequence[Drift]) -> None:
    """Draw fixed and slow points among the trajectories, on their leading dimensions, and what goes by itself.

    Args:
        path: of the picture.
        words, heading: memories.
        drifts: Lorenz's system, of each seed.
    """
    figure, panels = plt.subplots(1, 4, figsize=(14, 3.4), layout="constrained", width_ratios=(3, 3, 3, 2))
    shown = ((words.posterior, words.points, "bits"), (heading.posterior, heading.ring, "a heading"))
    for ax, (posterior, found, title) in zip(panels, (*shown, (drifts[0].posterior, None, "Lorenz")), strict=False):
        paths = lr.interpret.trajectories(posterior, 2, num_samples=1).isel(sample=0)
        plotting.trajectories(paths.trajectory[:40], color="0.85" if found else "0.4", ax=ax)
        if found:
            here = found.dataset.isel(sample=0)
            plotting.fixed_points(
                here.state, here.unstable, here.fixed == 1, directions=paths.direction, centre=paths.centre, ax=ax
            )
        ax.set_title(title, fontsize="medium")
    for number, each in enumerate(drifts):
        plotting.lyapunov(each.exponents, each.errors, label=f"seed {number}", ax=panels[3])
    panels[3].plot((1, 2, 3), LITERATURE, "_", color="black", markersize=16, label="literature")
    panels[3].set_yscale("symlog", linthresh=1.0)
    panels[3].legend(frameon=False, fontsize="small")
    figure.savefig(path, dpi=70)
    plt.close(figure)
