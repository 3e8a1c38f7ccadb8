"""The figure of docs/interpret.md on fits beside each other: `python docs/figures/interpret_replication.py`.

Two fits to the same turning states seen through six channels: one with two dimensions, one with four.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np

import latentrnn as lr
from latentrnn import plotting

rng = np.random.default_rng(0)
state, path = rng.normal(size=(30, 2)), []
turn = 0.99 * np.array([[np.cos(0.3), -np.sin(0.3)], [np.sin(0.3), np.cos(0.3)]])
for _ in range(20):
    state = state @ turn.T + 0.1 * rng.normal(size=state.shape)
    path.append(state)
seen = np.stack(path, 1) @ rng.normal(size=(2, 6))
data = lr.SequenceData.from_arrays({"y": seen + 0.5 * rng.normal(size=seen.shape)}, dt=0.01)


def fit(dim: int, seed: int) -> lr.Posterior:
    """A linear-Gaussian state-space model, summed out exactly."""
    heads = {"y": lr.Gaussian()}
    model = lr.LatentRNN(data.spec, transition=lr.Linear(dim), latent=lr.LinearGaussian(), observations=heads)
    quiet = lr.Reporting(progress=False)
    result = lr.fit(model, lr.Guide(model), data, steps=150, seed=seed, optimizer=lr.AdamW(5e-2), reporting=quiet)
    return result.posterior(data)


fits = [fit(2, 0), fit(2, 1), fit(4, 2)]
figure, (left, right) = plt.subplots(1, 2, figsize=(8.0, 3.3), layout="constrained")
found = lr.interpret.align(fits[1], fits[0])
print(found)
first, second = (each.latents(20)["states"].mean(0).numpy()[:4] for each in fits[:2])
plotting.alignment(first, found.apply(second), ax=left)
across = lr.interpret.replication(fits)
print(across)
plotting.replication(across.component_r2, across.component_effect, least_effect=across.attrs["least_effect"], ax=right)
left.set_title(f"two seeds, held-out R2 {found.r2():.3f}", fontsize="medium")
right.set_title("dimensions of three fits", fontsize="medium")
figure.savefig(Path(__file__).with_suffix(".png"), dpi=80)
