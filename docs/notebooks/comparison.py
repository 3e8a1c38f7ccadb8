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
# # Comparing models
#
# Which of several models would make new data like these? We plant one, a rotation with noise in its state, and see
# whether held-out evidence finds it, how sure it is, and what a rival from outside is worth in the same table.

# %%
import matplotlib.pyplot as plt
import numpy as np
import scipy.stats

import latentrnn as lr

rng = np.random.default_rng(0)
trials, steps, channels = 120, 40, 6
turn = 0.95 * np.array([[np.cos(0.3), -np.sin(0.3)], [np.sin(0.3), np.cos(0.3)]])
state, states = rng.normal(size=(trials, 2)), []
for _ in range(steps):
    state = state @ turn.T + 0.3 * rng.normal(size=(trials, 2))
    states.append(state)
values = np.stack(states, 1) @ rng.normal(size=(2, channels)) + 0.5 * rng.normal(
    size=(trials, steps, channels)
)
data = lr.SequenceData.from_arrays({"y": values})
train, valid, test = data.split(0.5, 0.17, 0.33, seed=0)

# %% [markdown]
# ## Three models
#
# The one that made the data, summed out exactly by a Kalman filter; a network that is pushed at random in every step;
# and the same with nothing random in its state besides its start.

# %%
quiet = lr.Reporting(progress=False)


def posterior_of(transition, latent, steps=300, encoder=None):
    model = lr.LatentRNN(
        data.spec,
        transition=transition,
        latent=latent,
        observations={"y": lr.Gaussian()},
    )
    guide = lr.Guide(model, encoder=encoder)
    settings = {
        "seed": 0,
        "steps": steps,
        "optimizer": lr.AdamW(1e-2),
        "reporting": quiet,
    }
    return lr.fit(model, guide, train, validation=valid, **settings).posterior(test)


entries = {
    "linear, noise in the state": posterior_of(lr.Linear(2), lr.LinearGaussian()),
    "GRU, noise in the state": posterior_of(
        lr.GRU(16), lr.Innovations(2), encoder=lr.RNNEncoder(16)
    ),
    "GRU, random start": posterior_of(
        lr.GRU(16), lr.InitialState(2), encoder=lr.RNNEncoder(16)
    ),
}

# %% [markdown]
# ## Held-out evidence
#
# Nats over the held-out sequences; `dse` is the standard error of the paired difference to the best, over sequences;
# `mc_se` what is left of Monte Carlo in the evidence, and `warning` says where either may decide the order.

# %% tags=["remove-stderr"]
table = lr.compare(entries)
table.round(2)

# %% [markdown]
# The network is as flexible as the truth, and pays for what it had to learn from sixty sequences in 300 steps. The
# one with a random start alone is refuted, however wrong its evidence may still be.

# %%
fig, ax = plt.subplots(figsize=(8, 2.5), layout="constrained")
lr.plotting.comparison(table, ax=ax)
plt.show()

# %% [markdown]
# `weight` is the share that each has in the best mixture of their predictions (stacking), not a probability of being
# true.
#
# ## One step ahead, and a rival from outside
#
# Whatever gives densities stands in the same table: here an autoregression of each channel on its own last value,
# fitted by least squares.

# %%
learned = train.observations["y"].numpy()
past, now = learned[:, :-1], learned[:, 1:]
slope = (past * now).sum((0, 1)) / (past**2).sum((0, 1))
spread = (now - slope * past).std((0, 1))
seen = test.observations["y"].numpy()
before = np.concatenate([np.zeros((len(seen), 1, channels)), seen[:, :-1]], 1)
width = np.where(
    np.arange(steps)[:, None] == 0, learned.std((0, 1)), spread
)  # nothing is known before the first step

ours = entries["linear, noise in the state"].one_step_ahead("y")
densities = scipy.stats.norm.logpdf(seen, slope * before, width)
if ours.log_prob.shape[-1] == 1:  # of all channels of a step together
    densities = densities.sum(-1, keepdims=True)
theirs = lr.score_of(densities, like=ours)
scores = [lr.one_step_ahead_log_likelihood(answer) for answer in (ours, theirs)]
for name, score in zip(
    ["linear, noise in the state", "autoregression"], scores, strict=True
):
    print(f"{name:28} {score}")
print(f"{'difference':28} {lr.paired_difference(*scores)}")

# %% [markdown]
# ## What would mislead is refused
#
# A fit knows by their content which sequences it has seen:

# %%
try:
    lr.compare({name: entry.result.posterior(train) for name, entry in entries.items()})
except ValueError as error:
    print(error)

# %% [markdown]
# Many models under many seeds and settings, each run a folder that survives being killed: `lr.Study`, or `latentrnn
# study` [from a shell](../reference/shell.rst). Ensembles of seeds are posteriors, too, and stand in the table as
# one: `lr.fit_ensemble`.
