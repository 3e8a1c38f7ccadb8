"""The example's figure: what was found in, a file out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np

import latentrnn as lr
from examples.fading_memory.restart import AROUND, Gates
from examples.simulate import Array


def draw(
    path: Path,
    lags: Sequence[int],
    flows: Mapping[str, Array],
    explained: Mapping[str, Sequence[float]],
    gates: Mapping[str, Sequence[Gates]],
) -> None:
    """Draw what is left of gradients, what was learned, and gates around a cue.

    Args:
        path: of the picture.
        lags: in steps.
        flows: norms by start, each (seed, lag).
        explained: variance by start, of each seed.
        gates: of each seed, by what the cue says.
    """
    figure, (left, middle, *right) = plt.subplots(
        1, 4, figsize=(13, 3.4), layout="constrained", width_ratios=(3, 3, 2, 2)
    )
    lr.plotting.gradient_flow(lags, {name: flow for name, flow in flows.items() if "GRU" not in name}, ax=left)
    for place, scores in enumerate(explained.values()):
        middle.plot(scores, [place] * len(scores), "o", color="#0072B2", alpha=0.6)
    middle.set_yticks(range(len(explained)), list(explained))
    middle.set_xlabel("variance explained of the value 60 steps back")
    for ax, gate in zip(right, ("reset", "update"), strict=True):
        for (told, fits), colour in zip(gates.items(), ("#D55E00", "0.5"), strict=True):
            curves = np.stack([getattr(fit, gate) for fit in fits])
            ax.plot(AROUND, curves.T, color=colour, linewidth=0.8, alpha=0.6)
            ax.plot(AROUND, curves.mean(0), "o-", color=colour, markersize=3, label=told)
        ax.set(xlabel="steps after a cue", ylabel=f"{gate} gate, mean of units", ylim=(0, 1))
    right[0].legend(frameon=False, fontsize="small", loc="upper left")
    figure.savefig(path, dpi=90)
    plt.close(figure)
