"""The figure of docs/interpret.md on traces and interventions: `python docs/figures/interpret_effects.py`.

Spikes of a cell that adapts to light by a time constant of 100 ms: the gates of an LSTM that was fitted to them, what a
step of light does in the model with that one memory, and what it does where its retention is held.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pyro.distributions as dist
import torch

import latentrnn as lr
from latentrnn import plotting
from latentrnn.interpret import adaptation, clamp, contrast, do, summarise, trace

TAU, DT = 0.1, 0.01
ON = slice(50, None)


def adapting(seed: int) -> lr.SequenceData:
    """Forty trials of flickering light, and spikes of exp(1 + 1.5 (x - h)), h an average of x over 100 ms."""
    rng = np.random.default_rng(seed)
    light = np.repeat(rng.random((40, 15, 1)) < 0.5, 10, axis=1).astype(float)
    level, averages = np.zeros((40, 1)), []
    for x in light.transpose(1, 0, 2):
        level = np.exp(-DT / TAU) * level + (1 - np.exp(-DT / TAU)) * x
        averages.append(level)
    spikes = rng.poisson(np.exp(1.5 * (light - np.stack(averages, 1))))
    return lr.SequenceData.from_arrays({"spikes": spikes.astype(float)}, {"light": light}, dt=DT, dtype=torch.float64)


def one_memory(data: lr.SequenceData) -> lr.Posterior:
    """The posterior of the planted equation, by Laplace's approximation."""
    memory = lr.LeakyIntegrator(
        1, average=True, priors={"time_constant": dist.LogNormal(-2.0, 1.0)}, fixed={"input_weight": 1.0}
    )
    priors = {name: dist.Normal(0.0, 3.0) for name in ("weight", "baseline", "covariate_weight")}
    model = lr.LatentRNN(
        data.spec,
        transition=memory,
        latent=lr.Deterministic(fixed={"initial_state": 0.0}),
        observations={"spikes": lr.Poisson(covariates=["light"], priors=priors)},
        inputs=["light"],
    )
    return lr.laplace(model, data).posterior(data[:4])


def main() -> None:
    """Fit, ask, and draw."""
    torch.set_num_threads(1)
    data = adapting(0)
    heads = {"spikes": lr.Poisson()}
    model = lr.LatentRNN(data.spec, transition=lr.LSTM(16), latent=lr.Deterministic(), observations=heads)
    result = lr.fit(model, lr.Guide(model), data, steps=300, seed=0, reporting=lr.Reporting(progress=False))
    gates = trace(result.posterior(data[:1]), num_samples=1)["forget"].isel(sample=0, sequence=0)

    posterior = one_memory(data)
    dark, light = do("light", 0.0), do("light", 0.0) + do("light", 1.0, at=ON)
    step = contrast(posterior, light, dark, 200)
    found = summarise(adaptation(step, "spikes", 50))
    still = contrast(posterior, light + clamp("retention", 1.0, at=ON), dark, 200)

    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.1), layout="constrained")
    plotting.gate_map(gates.values, gates.time.values, label="forget gate", ax=left)
    left.set_title("an LSTM's forget gates, one trial", fontsize=10)
    for effect, label, color in ((step, "light on", "C0"), (still, "light on, memory held", "C1")):
        short = summarise(effect.mean("sequence"))["spikes"].isel(spikes_channel=0)
        bounds = [short.sel(statistic=name).values for name in ("mean", "lower", "upper")]
        plotting.band(short.time.values, *bounds, label=label, color=color, zero=color == "C0", ax=right)
    low, high = (1e3 * found.time_constant.sel(statistic=name).item() for name in ("lower", "upper"))
    right.set(ylabel="spikes per bin above dark", xlim=(0.4, 1.2))
    right.set_title(f"the rate adapts in {low:.0f} to {high:.0f} ms (90%)", fontsize=10)
    figure.savefig(Path(__file__).with_suffix(".png"), dpi=110)


if __name__ == "__main__":
    main()
