"""Draw `interpret_attention.png`: what attention reads, where that was planted, and in recorded splice junctions.

`python docs/figures/interpret_attention.py`; junctions are read from `../shared/data`, or the
folder of LATENTRNN_SHARED.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import numpy as np
import torch
from fits import junctions
from matplotlib import pyplot

import latentrnn as lr
from examples.splice_junctions.data import KINDS

LAG = 8


def delayed() -> lr.SequenceData:
    """Responses to a stimulus of eight steps before, with noise."""
    rng = np.random.default_rng(0)
    stimulus = rng.normal(size=(200, 40, 1))
    response = 0.2 * rng.normal(size=(200, 40, 1))
    response[:, LAG:] += stimulus[:, :-LAG]
    return lr.SequenceData.from_arrays({"response": response}, {"stimulus": stimulus})


def main() -> None:
    """Fit both, ask what is read, and draw."""
    torch.set_num_threads(1)
    data = delayed()
    heads = {"response": lr.Gaussian(readout=lr.WindowedAttention(12, size=8))}
    memory = lr.LeakyIntegrator(4, tau=0.2, learned=False)  # steps: the state itself forgets at once
    model = lr.LatentRNN(data.spec, transition=memory, latent=lr.Deterministic(), observations=heads)
    quiet = lr.Reporting(progress=False)
    result = lr.fit(model, lr.Guide(model), data, steps=400, seed=0, optimizer=lr.AdamW(2e-2), reporting=quiet)
    planted = lr.interpret.attention(result.posterior(data[:1]), "response", num_samples=1).weight[0, 0, :, 0].values
    print("weight of the planted lag", np.diagonal(planted, -LAG)[4:].mean().round(3))

    posterior = junctions()
    weight = lr.interpret.attention(posterior, "kind", num_samples=1).weight[0].values  # (sequence, source)
    kind = posterior.data.observations["kind"][:, 0].numpy()

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(9.0, 3.4), layout="constrained")
    lr.plotting.attention(planted, ax=left)
    left.set_title(f"planted: the stimulus of {LAG} steps before", fontsize="medium")
    place = np.arange(60) - 30
    names = {"EI": "donors (EI)", "IE": "acceptors (IE)", "N": "neither"}
    for number, color in ((0, "C0"), (1, "C1"), (2, "0.5")):
        rows = weight[kind == number]
        low, high = np.quantile(rows, [0.05, 0.95], axis=0)
        lr.plotting.band(place, rows.mean(0), low, high, label=names[KINDS[number]], color=color, ax=right)
        print(KINDS[number], "within five bases", rows[:, 25:35].sum(1).mean().round(3))
    right.set(xlabel="bases after the junction", ylabel="weight", ylim=(0, None))
    right.set_title("pooling over 60 bases, recorded", fontsize="medium")
    figure.savefig(Path(__file__).with_suffix(".png"), dpi=110)


if __name__ == "__main__":
    main()
