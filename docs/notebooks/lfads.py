# ---
# jupyter:
#   jupytext:
#     text_representation:
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     name: python3
#   language_info:
#     name: python
#     pygments_lexer: ipython3
# ---

# %% [markdown]
# # For users of LFADS
#
# What you know has another name here, and stands in parts that can be exchanged. We go through it once, with a data
# set in a file of lfads-torch's form: counts that the encoder may see, and units that it may not.
#
# | LFADS | here |
# |---|---|
# | generator | `transition=lr.GRU(...)` |
# | controller and its inferred inputs | `latent=lr.Innovations(...)` with the guide's encoder |
# | initial condition encoder | `Innovations(..., initial=...)` |
# | autoregressive prior | `prior="ar1"`, its time constant learned, in seconds |
# | factors | `readout=lr.FactorReadout(...)` |
# | KL ramp, coordinated dropout | `objective=lr.ELBO(kl=lr.KLWarmUp(...), coordinated_dropout=...)` |
# | posterior sampling | `posterior.mean(...)`, `posterior.rates(...)` with every draw |

# %%
import tempfile
from pathlib import Path

import h5py
import matplotlib.pyplot as plt
import numpy as np

import latentrnn as lr

# %% [markdown]
# ## A file
#
# Twenty-five neurons follow a rotation that starts anywhere and is pushed once, at a time that nobody tells. Five of
# them are held out: they are in `recon_data` alone.

# %%
rng = np.random.default_rng(0)
trials, steps, units, seen, dt = 120, 60, 25, 20, 0.02
turn = 0.985 * np.array([[np.cos(0.2), -np.sin(0.2)], [np.sin(0.2), np.cos(0.2)]])
state, push = rng.normal(0, 0.7, (trials, 2)), rng.integers(15, 45, trials)
states = np.zeros((trials, steps, 2))
for t in range(steps):
    state = state @ turn.T + 1.5 * (push == t)[:, None] * np.array([1.0, 0.0])
    states[:, t] = state
planted = 0.3 * np.exp(
    states @ rng.normal(0, 0.6, (2, units))
)  # expected counts per bin
counts = rng.poisson(planted)

path = Path(tempfile.mkdtemp()) / "rotation.h5"
with h5py.File(path, "w") as file:
    for part, rows in {"train": slice(0, 90), "valid": slice(90, 120)}.items():
        file[f"{part}_encod_data"] = counts[rows, :, :seen]
        file[f"{part}_recon_data"] = counts[rows]

data = lr.datasets.lfads_file(path, dt=dt)
data

# %% [markdown]
# ## The model
#
# What the encoder may see is said by name, so that nothing of the held-out units leaks; they are driven by the same
# factors.

# %%
train, valid = data.where(part="train"), data.where(part="valid")
model = lr.LatentRNN(
    data.spec,
    transition=lr.GRU(32),
    latent=lr.Innovations(1, initial=8, prior="ar1"),
    observations={
        "heldin": lr.Poisson(readout=lr.FactorReadout(3)),
        "heldout": lr.Poisson(readout=lr.FactorReadout(3, of="heldin")),
    },
)
guide = lr.Guide(
    model, encoder=lr.RNNEncoder(32, direction="bidirectional", observes=["heldin"])
)
result = lr.fit(
    model,
    guide,
    train,
    validation=valid,
    seed=0,
    steps=600,
    objective=lr.ELBO(coordinated_dropout=0.3, kl=lr.KLWarmUp(0.3)),
    optimizer=lr.AdamW(5e-3),
    reporting=lr.Reporting(progress=False),
)
print(result.stop_reason)

# %% [markdown]
# The ELBO that is reported has a KL weight of one, whatever the warm-up.
#
# ## Rates, factors, inputs

# %%
posterior = result.posterior(valid)
rates = posterior.rates("heldout", num_samples=50)
score = lr.bits_per_spike(rates.mean(0), valid.observations["heldout"])
best = lr.bits_per_spike(planted[90:, :, seen:], valid.observations["heldout"])
print(
    f"held-out units: {score:.3f} bits per spike; the planted rates themselves have {best:.3f}"
)

# %%
time, trial = np.arange(steps) * dt, 0
order = [
    int(name.split("/")[1]) + 90 for name in valid.names
]  # rows of what was simulated
unit = int(planted[order[trial], :, seen:].var(0).argmax())
innovations = posterior.latents(50)["innovations"]  # (sample, sequence, time, dim)
size = np.abs(innovations.numpy()).mean(0)[..., 0]
aligned = np.stack(
    [row[at - 10 : at + 15] for row, at in zip(size, push[order], strict=True)]
)

fig, (left, right) = plt.subplots(1, 2, figsize=(9, 3), layout="constrained")
lr.plotting.rates(rates[:, trial], channel=unit, dt=dt, label="posterior, 90%", ax=left)
left.plot(
    time,
    planted[order[trial], :, seen + unit] / dt,
    "k--",
    linewidth=1,
    label="planted",
)
left.set_title("a unit that the encoder does not see")
left.legend(frameon=False)
right.plot(np.arange(-10, 15) * dt, aligned.mean(0))
right.axvline(0, color="k", linestyle=":", linewidth=1)
right.set(
    xlabel="time from the push (s)",
    ylabel="|inferred input|, mean over trials",
    ylim=(0, None),
)
right.set_title("when was it pushed?")
plt.show()

# %% [markdown]
# ## Out again
#
# `to_lfads` writes what scripts that read an LFADS's output look for, by its names; `to_nlb` writes a submission to
# the Neural Latents Benchmark.

# %%
out = lr.to_lfads(
    path.with_name("output.h5"),
    {"train": result.posterior(train), "valid": posterior},
    num_samples=10,
)
with h5py.File(out) as file:
    for name, item in file.items():
        if name.startswith("valid"):
            print(f"{name:22} {item.shape}")

# %% [markdown]
# ## What LFADS does not say
#
# How much of the evidence the encoder leaves on the table, whether replicates of the model look like the data, and
# what comes next given the past alone, which no smoothing posterior says:

# %%
print(posterior.evidence("elbo", num_particles=32))
print(lr.posterior_predictive_check(posterior, num_samples=200))

# %%
ahead = posterior.one_step_ahead("heldin", num_particles=64)
print(lr.one_step_ahead_bits_per_spike(ahead))

# %% [markdown]
# Sessions with units of their own, stitched: [Several sessions](../howto/sessions.md). What the generator has
# learned, as fixed points, time constants and Jacobians with intervals: [Opening a model](../interpret.md).
