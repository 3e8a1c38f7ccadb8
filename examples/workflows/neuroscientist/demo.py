# %% [markdown]
# # From trials in pynapple to rates, trajectories and an NWB file
#
# 22 lines of code between the marks. lfads-torch needs about 50 for the same, counted by its documented calls and not
# run here: spikes counted in trials and written to the HDF5 that its data module reads, YAML of a data module and of
# a model, `run_model`, its output read, rasters, PSTHs and a PCA of factors by hand, pynwb for the file; it has no
# intervals. Spikes of 30 units in 90 reaches are simulated first, as an NWB file would give them: a `TsGroup`, and
# trials as an `IntervalSet`.

# %%
from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pynapple as nap


def recorded() -> tuple[nap.TsGroup, nap.IntervalSet]:
    """Spikes of units that a rotation drives, whose start the target decides; trials of 0.8 s."""
    rng = np.random.default_rng(0)
    target, fine = np.resize([0, 1, 2], 90), 0.001
    time = np.arange(0.0, 0.8, fine)
    phase = 2 * np.pi * target[:, None] / 3 + 5.0 * time
    state = np.stack([np.cos(phase), np.sin(phase)], -1) * (1 - np.exp(-time / 0.15))[:, None]
    rate = 12 * np.exp(state @ rng.normal(size=(2, 30)))
    starts = 2.0 * np.arange(90) + 1.0
    trial, step, unit = np.nonzero(rng.random(rate.shape) < rate * fine)
    at = starts[trial] + time[step]
    units = nap.TsGroup(
        {k: nap.Ts(np.sort(at[unit == k])) for k in range(30)}, time_support=nap.IntervalSet(0.0, 200.0)
    )
    names = np.array(["left", "middle", "right"])[target]
    return units, nap.IntervalSet(starts, starts + 0.8, metadata={"target": names})


parser = argparse.ArgumentParser()
parser.add_argument("--out", type=Path, default=Path("build/neuroscientist"))
parser.add_argument("--smoke", action="store_true", help="fewer steps")
given = parser.parse_args()
given.out.mkdir(parents=True, exist_ok=True)
units, trials = recorded()

# %% counted from here
import latentrnn as lr

data = lr.SequenceData.from_pynapple({"spikes": units}, dt=0.02, trials=trials)
train, valid, test = data.split(0.6, 0.15, 0.25, seed=0, stratify="target")
latent = lr.Innovations(2, initial=8)
heads = {"spikes": lr.Poisson(readout=lr.FactorReadout(3))}
model = lr.LatentRNN(data.spec, transition=lr.GRU(24), latent=latent, observations=heads)
guide = lr.Guide(model, encoder=lr.RNNEncoder(24))
quiet = lr.Reporting(progress=False)
result = lr.fit(model, guide, train, valid, seed=0, steps=200 if given.smoke else None, reporting=quiet)

posterior = result.posterior(test)
rates, target = posterior.mean("spikes", 50), test.metadata["target"]
counts, factors = test.observations["spikes"], posterior.factors(50)["spikes"].mean("sample")
figure, axes = plt.subplots(2, 3, figsize=(13, 7), layout="constrained")
lr.plotting.trial_raster(counts[..., 0], target, dt=0.02, ax=axes[0, 0])
lr.plotting.psth(counts[..., 0], target, rates=rates[..., 0], dt=0.02, smooth=3, ax=axes[0, 1])
lr.plotting.rate_map(rates[0], dt=0.02, sort=True, ax=axes[0, 2])
lr.plotting.condition_trajectories(factors, target, ax=axes[1, 0])
lr.plotting.inferred_inputs(posterior.latents(50)["innovations"], target, dt=0.02, ax=axes[1, 1])
lr.plotting.history(result.history, ax=axes[1, 2])
figure.savefig(given.out / "trials.png", dpi=90)
lr.to_nwb(given.out / "results.nwb", posterior)
bits = lr.bits_per_spike(rates, counts)
# %% to here

there = nap.load_file(str(given.out / "results.nwb"))["rates_spikes"]
print(f"{bits:.3f} bits per spike of reconstructed test trials; the NWB file has {there.shape} rates")
assert bits > 0.05, "rates should tell more than the mean of each unit"
assert there.shape == (rates.shape[0] * rates.shape[1], 30), "and they should be in the file"
