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
# # Several kinds of observation at once
#
# Spikes every 20 ms, a hand's velocity every 40 ms with stretches in which the tracker lost it, and one choice at the
# end of each trial: three heads on one state. What does one say of another? We plant a reach to the left or to the
# right, so that we know.

# %%
import matplotlib.pyplot as plt
import numpy as np

import latentrnn as lr

rng = np.random.default_rng(0)
trials, steps, cells, dt = 150, 50, 16, 0.02
time = np.arange(steps) * dt
side = rng.choice([-1.0, 1.0], trials)  # left or right
onset, vigour = rng.uniform(0.2, 0.5, trials), rng.gamma(8, 1 / 8, trials)
bump = np.exp(-0.5 * ((time - onset[:, None] - 0.2) / 0.1) ** 2)
velocity = (side * vigour)[:, None] * bump  # planted
log_rates = (
    -1.2
    + 1.5 * bump[..., None] * rng.uniform(0, 1, cells)
    + velocity[..., None] * rng.normal(0, 0.9, cells)
)
spikes = rng.poisson(np.exp(log_rates))

slow = velocity.reshape(trials, steps // 2, 2).mean(-1) + 0.1 * rng.normal(
    size=(trials, steps // 2)
)
lost = rng.integers(3, 18, trials)
for trial in range(trials):
    slow[trial, lost[trial] : lost[trial] + 6] = np.nan
choice = (side + 0.3 * rng.normal(size=trials) > 0).astype(float)

data = lr.SequenceData.from_arrays(
    {"spikes": spikes, "velocity": slow[..., None], "choice": choice[:, None]},
    dt=dt,
    clocks={"velocity": 2},
    per_sequence=["choice"],
)
train, valid, test = data.split(0.6, 0.15, 0.25, seed=0)
data

# %% [markdown]
# ## One state, three heads
#
# The encoder reads spikes alone, so that what the posterior says of velocity and choice is a prediction from spikes.
# The choice is read off the mean of all states.

# %%
model = lr.LatentRNN(
    data.spec,
    transition=lr.GRU(24),
    latent=lr.Innovations(2, initial=4, prior="ar1"),
    observations={
        "spikes": lr.Poisson(),
        "velocity": lr.Gaussian(),
        "choice": lr.Bernoulli(pooling="mean"),
    },
)
guide = lr.Guide(
    model, encoder=lr.RNNEncoder(24, direction="bidirectional", observes=["spikes"])
)
quiet = lr.Reporting(progress=False)
result = lr.fit(
    model, guide, train, validation=valid, seed=0, steps=500, reporting=quiet
)
print(result.stop_reason)

# %% [markdown]
# ## What do spikes say of the hand?

# %%
posterior = result.posterior(test)
drawn = posterior.rates(
    "velocity", num_samples=100
)  # expected velocity, (sample, sequence, frame, channel)
rows = [int(name) for name in test.names]
truth = velocity[rows].reshape(len(rows), steps // 2, 2).mean(-1)
mean = drawn.mean(0)[..., 0].numpy()
print(
    f"velocity from spikes, held-out trials: R2 = {1 - ((mean - truth) ** 2).sum() / (truth**2).sum():.2f}"
)

fig, axes = plt.subplots(1, 3, figsize=(9, 2.8), sharey=True, layout="constrained")
frames = time[::2] + dt / 2
for row, ax in enumerate(axes):
    low, high = np.quantile(drawn[:, row, :, 0], [0.05, 0.95], axis=0)
    lr.plotting.band(frames, mean[row], low, high, ax=ax)
    ax.plot(
        frames,
        test.observations["velocity"][row, :, 0].where(
            test.masks["velocity"][row, :, 0], np.nan
        ),
        "k.",
        markersize=3,
    )
    ax.plot(frames, truth[row], "k--", linewidth=0.8)
    ax.set(xlabel="time (s)", title=f"trial {rows[row]}")
axes[0].set_ylabel("velocity")
plt.show()

# %% [markdown]
# ## And of the choice?

# %%
probability = posterior.mean("choice", num_samples=100)
print("area under the ROC curve:", lr.auroc(probability, test.observations["choice"]))
print(
    "Brier score:             ",
    lr.brier_score(probability, test.observations["choice"]),
)

# %% [markdown]
# ## Filling the gaps
#
# Missing entries are drawn given all that was observed, noise of the tracker included: `impute`.

# %%
imputed = posterior.impute("velocity", num_samples=200)[..., 0].numpy()
missing = ~test.masks["velocity"][..., 0].numpy()
low, high = np.quantile(imputed, [0.05, 0.95], axis=0)
tracker = truth + 0.1 * rng.normal(size=truth.shape)  # what it would have said
inside = ((tracker >= low) & (tracker <= high))[missing]
error = np.sqrt(((imputed.mean(0) - truth)[missing] ** 2).mean())
print(
    f"error of the mean in the gaps: {error:.3f}, where velocities have a spread of {truth[missing].std():.3f}"
)
print(f"90% intervals hold {inside.sum()} of {inside.size} frames of the tracker")

# %% [markdown]
# Heads pull at shared weights with unlike force: `lr.interpret.HeadGradients` measures it during a fit, and
# `lr.ELBO(head_weights=...)` answers to it. What one head owes to another is `lr.interpret.mask_sensitivity`.
