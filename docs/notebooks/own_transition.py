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
# # A transition of your own
#
# Networks learn what you cannot write down. What you can write down belongs into the model: an equation is a class
# with a `step`, its numbers have names, units and priors, and everything else (fits, chains, forecasts, checks,
# interpretation, saving) works as with a GRU. Here: a cell that adapts. Its drive follows the light within tens of
# milliseconds, and a slower current holds it back:
#
# $$
# x_t = k_x x_{t-1} + (1 - k_x) (s_t - w\, a_{t-1}), \qquad
# a_t = k_a a_{t-1} + (1 - k_a) x_t, \qquad k = e^{-dt / \tau}
# $$
#
# We simulate it, so that we know what is to be found.

# %%
from typing import ClassVar

import matplotlib.pyplot as plt
import numpy as np
import pyro.distributions as dist
import torch
from torch import Tensor, nn

import latentrnn as lr

DT, TAU_FAST, TAU_SLOW, HOLD = 0.01, 0.03, 0.25, 1.5  # seconds, seconds, seconds, gain


# %% [markdown]
# ## The class
#
# The state is `[x, a]`; readouts see `x` alone, as `output` says. `declared` says which number of science each tensor
# stands for: the time constants are kept as logarithms, and known by their names, in seconds.


# %%
class AdaptingCell(lr.Transition):
    """A fast drive that a slow current holds back; readouts see the drive."""

    declared: ClassVar = {
        "tau_fast": lr.ParameterSpec.positive("log_tau_fast", unit="seconds"),
        "tau_slow": lr.ParameterSpec.positive("log_tau_slow", unit="seconds"),
        "hold": lr.ParameterSpec.positive("log_hold"),
    }

    def __init__(self, dt: float, **shared) -> None:
        super().__init__(**shared)
        self.dt = dt
        self.hidden_size, self.state_size = 1, 2

    def build(self, input_size: int) -> None:
        self.log_tau_fast = nn.Parameter(torch.full((1,), -3.0))
        self.log_tau_slow = nn.Parameter(torch.full((1,), -1.0))
        self.log_hold = nn.Parameter(torch.zeros(1))

    def step(self, state: Tensor, inputs: Tensor) -> Tensor:
        drive, current = state.chunk(2, -1)
        keep_fast = self.gate(
            "fast", torch.exp(-self.dt / self.log_tau_fast.exp()).expand_as(drive)
        )
        keep_slow = self.gate(
            "slow", torch.exp(-self.dt / self.log_tau_slow.exp()).expand_as(drive)
        )
        light = inputs.sum(-1, keepdim=True)
        drive = keep_fast * drive + (1 - keep_fast) * (
            light - self.log_hold.exp() * current
        )
        current = keep_slow * current + (1 - keep_slow) * drive
        return torch.cat([drive, current], -1)

    def output(self, state: Tensor) -> Tensor:
        return state[..., :1]


# %% [markdown]
# ## Data with a truth
#
# Forty trials of one and a half seconds, steps of light at random levels, spikes of six cells that share the drive.

# %%
rng = np.random.default_rng(1)
trials, steps, cells = 40, 150, 6
light = np.zeros((trials, steps, 1))
for trial in range(trials):
    for onset in (10, 60, 105):
        light[trial, onset + rng.integers(0, 15) :] = rng.uniform(0, 2)
drive, current = np.zeros(trials), np.zeros(trials)
planted = np.zeros((trials, steps))
keep_fast, keep_slow = np.exp(-DT / TAU_FAST), np.exp(-DT / TAU_SLOW)
for t in range(steps):
    drive = keep_fast * drive + (1 - keep_fast) * (light[:, t, 0] - HOLD * current)
    current = keep_slow * current + (1 - keep_slow) * drive
    planted[:, t] = drive
weight = rng.uniform(0.8, 1.6, cells)
counts = rng.poisson(np.exp(np.log(0.15) + planted[..., None] * weight))

data = lr.SequenceData.from_arrays({"spikes": counts}, {"light": light}, dt=DT)
train, test = data[:30], data[30:]

# %% [markdown]
# ## Priors, and a posterior
#
# What has a prior becomes a Pyro site with a posterior. Nothing is random in this model besides its fifteen numbers,
# so that Laplace's approximation around their mode is quick and good. `lr.sample` would run NUTS on the same model,
# `lr.fit` a variational posterior.

# %%
priors = {
    "tau_fast": dist.LogNormal(np.log(0.05), 0.7),
    "tau_slow": dist.LogNormal(np.log(0.3), 0.7),
    "hold": dist.LogNormal(0.0, 0.7),
}
head = lr.Poisson(
    priors={"weight": dist.Normal(0.0, 2.0), "baseline": dist.Normal(0.0, 3.0)}
)
model = lr.LatentRNN(
    data.spec,
    transition=AdaptingCell(DT, priors=priors),
    latent=lr.Deterministic(fixed={"initial_state": 0.0}),
    observations={"spikes": head},
)
model.parameters_table()

# %%
result = lr.laplace(model, train)
posterior = result.posterior(test)
posterior.summary(num_samples=400).round(3).head(3)

# %%
drawn = posterior.parameters(400)
fig, axes = plt.subplots(1, 3, figsize=(9, 2.6), layout="constrained")
for ax, (name, truth) in zip(
    axes,
    {"tau_fast": TAU_FAST, "tau_slow": TAU_SLOW, "hold": HOLD}.items(),
    strict=True,
):
    values = drawn[f"transition.{name}"].flatten().numpy()
    ax.hist(values, bins=30, color="C0", alpha=0.6, density=True)
    ax.axvline(truth, color="k", linestyle="--")
    ax.set(xlabel=f"{name} ({'s' if name != 'hold' else 'gain'})", yticks=[])
axes[0].set_title("posterior, and the planted value", loc="left", fontsize=10)
plt.show()

# %% [markdown]
# ## Does the equation pay?
#
# A GRU can learn the same from the same trials, with some three hundred numbers. In trials that neither has seen, the
# equation is as good within the error (`dse`), and its numbers mean something:

# %%
free = lr.LatentRNN(
    data.spec,
    transition=lr.GRU(8),
    latent=lr.Deterministic(),
    observations={"spikes": lr.Poisson()},
)
quiet = lr.Reporting(progress=False)
rival = lr.fit(
    free, lr.Guide(free), train[:24], validation=train[24:], seed=0, reporting=quiet
)
lr.compare({"equation": posterior, "GRU": rival.posterior(test)}).round(2)

# %% [markdown]
# ## What it keeps of the rest
#
# Gates that pass through `self.gate` are recorded, clamped and summarised by name, whatever the class. What would the
# cell do if the slow current could not build up?

# %%
held = lr.interpret.intervene(
    posterior, lr.interpret.clamp("slow", 1.0), num_samples=50
)
as_it_was = posterior.rates("spikes", num_samples=50)[:, 0, :, 0].mean(0) / DT
ax = plt.figure(figsize=(6, 3), layout="constrained").gca()
time = np.arange(steps) * DT
ax.plot(time, as_it_was, label="as it is")
ax.plot(
    time,
    held["spikes"].isel(sequence=0, spikes_channel=0).mean("sample") / DT,
    label="current held",
)
ax.set(xlabel="time (s)", ylabel="spikes per second")
ax.legend(frameon=False)
plt.show()

# %% [markdown]
# A fit of the class is saved and loaded like any other, as long as the class has been imported. More parts of your
# own, families, encoders, laws between heads: [Extending](../extending.md).
