"""The example's figure: what was found in, a file out."""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt

import latentrnn as lr
from latentrnn import plotting


def draw(
    path: Path,
    words: lr.Posterior,
    points: lr.interpret.FixedPoints,
    heading: lr.Posterior,
    ring: lr.interpret.FixedPoints,
) -> None:
    """Draw fixed and slow points among the trajectories, on their leading dimensions.

    Args:
        path: of the picture.
        words, points: of the bits.
        heading, ring: of the angle.
    """
    figure, panels = plt.subplots(1, 2, figsize=(8.5, 3.8), layout="constrained")
    shown = ((panels[0], words, points, "bits"), (panels[1], heading, ring, "a heading"))
    for ax, posterior, found, title in shown:
        paths = lr.interpret.trajectories(posterior, 2, num_samples=1).isel(sample=0)
        plotting.trajectories(paths.trajectory[:40], color="0.85", ax=ax)
        here = found.dataset.isel(sample=0)
        plotting.fixed_points(
            here.state, here.unstable, here.fixed == 1, directions=paths.direction, centre=paths.centre, ax=ax
        )
        ax.set_title(title, fontsize="medium")
    figure.savefig(path, dpi=90)
