"""The example's figure: arrays in, a file out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np

import latentrnn as lr
from examples.simulate import Array
from examples.splice_junctions.data import BASES, KINDS, NEAR


def draw(path: Path, seen: Sequence[Array], shuffled: Sequence[Array], change: Array) -> None:
    """Draw the share of each position in the saliency, and what each base does to donors and acceptors.

    Args:
        path: of the file.
        seen, shuffled: saliencies, (position, class), of fits to labels as they are and to shuffled ones.
        change: of the log-odds of donors and of acceptors against neither, (kind, position near, base).
    """
    figure, (left, *right) = plt.subplots(1, 3, figsize=(12, 3), layout="constrained")
    place = np.arange(60) - 30
    for fits, colour, label in ((seen, "C0", "labels as they are"), (shuffled, "0.5", "labels shuffled")):
        lr.plotting.saliency(np.stack([each.sum(1) for each in fits]), time=place, label=label, color=colour, ax=left)
    left.set_xlabel("bases after the junction")
    left.legend(frameon=False, fontsize="small")
    for ax, kind, values in zip(right, KINDS, change, strict=False):
        lr.plotting.mutagenesis(values, symbols=BASES, time=place[NEAR], unit="bases after the junction", ax=ax)
        ax.set_title(f"log-odds of {kind}, in its windows", fontsize="medium")
    figure.savefig(path, dpi=130)
    plt.close(figure)
