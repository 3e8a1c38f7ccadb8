"""The example's figure: arrays in, a file out."""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np

from examples.batch_reactor.scores import Bands
from examples.simulate import Array


def draw(
    path: Path,
    minutes: Array,
    added: Array,
    product: Bands,
    course: Array,
    purity: Bands,
    tags: Bands | None,
    name: str,
) -> None:
    """Draw two held-out batches, purity of all of them, and of recorded batches one channel.

    Args:
        path: of the picture.
        minutes: of the steps, (time,).
        added: of B, (batch, time, 1), mol/l in each step.
        product, purity: what is predicted.
        course: of the product, without errors of samples, (batch, time, 1).
        tags: of recorded batches; None where there are none.
        name: of their first channel.
    """
    columns = 3 if tags is None else 4
    figure, axes = plt.subplots(1, columns, figsize=(3.7 * columns, 3.5), layout="constrained")
    which = np.argsort(added.sum((1, 2)))[[len(added) // 10, -len(added) // 10]]  # little and much added
    for ax, batch in zip(axes, which, strict=False):
        ax.bar(minutes, added[batch, :, 0], 2.0, color="C1", label="added in a step")
        ax.fill_between(
            minutes, product.low[batch, :, 0], product.high[batch, :, 0], color="C0", alpha=0.35, linewidth=0
        )
        ax.plot(minutes, product.mean[batch, :, 0], color="C0", label="predicted, 90%")
        ax.plot(minutes, course[batch, :, 0], "k--", linewidth=1, label="course")
        ax.plot(minutes, product.measured[batch, :, 0], "k.", markersize=4, label="samples, not seen")
        ax.set(xlabel="minutes", ylabel="product (mol/l)", ylim=(0, None))
    axes[0].legend(fontsize=7)
    low, mean, high, seen = (each[:, 0, 0] for each in purity)
    axes[2].errorbar(seen, mean, np.abs(np.stack([mean - low, high - mean])), fmt="o", markersize=3, linewidth=0.8)
    axes[2].plot([seen.min(), seen.max()], [seen.min(), seen.max()], "k--", linewidth=1)
    axes[2].set(xlabel="purity, measured", ylabel="predicted, 90%")
    if tags is not None:
        last = axes[3]
        last.fill_between(np.arange(tags.low.shape[1]), tags.low[0, :, 0], tags.high[0, :, 0], alpha=0.35, linewidth=0)
        last.plot(tags.mean[0, :, 0], color="C0", label="predicted, 90%")
        last.plot(tags.measured[0, :, 0], "k--", linewidth=1, label="a held-out batch")
        last.set(xlabel="step", ylabel=f"nylon, {name} (thousands)")
        last.legend(fontsize=7)
    figure.savefig(path, dpi=110)
