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
# # A tour in ten minutes
#
# A population of twelve neurons is driven by a stimulus, and by something that nobody recorded. We simulate it, so
# that every answer can be held against what was planted; then we declare a model, fit it, ask what it found,
# criticise it, compare it with a rival, open it, and save it. Every block of this page ran when the page was built.

# %%
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import latentrnn as lr

rng = np.random.default_rng(0)
trials, steps, neurons, dt = 90, 60, 12, 0.02

# %% [markdown]
# ## Data
#
# In each trial a stimulus comes on for 0.3 s. A hidden input, which fluctuates with a time constant of 0.2 s, adds to
# it.

# %%
time = np.arange(steps) * dt
stimulus = np.zeros((trials, steps, 1))
for trial, onset in enumerate(rng.integers(5, 35, trials)):
    stimulus[trial, onset : onset + 15] = rng.uniform(0.5, 1.5)
kept = np.exp(-dt / 0.2)
hidden = rng.normal(size=(trials, steps, 1))
for step in range(1, steps):
    hidden[:, step] = (
        kept * hidden[:, step - 1] + np.sqrt(1 - kept**2) * hidden[:, step]
    )
response, loading = rng.normal(0.8, 0.4, neurons), rng.normal(0.0, 0.6, neurons)
planted = 0.4 * np.exp(
    stimulus * response + hidden * loading
)  # expected counts per bin
counts = rng.poisson(planted)

data = lr.SequenceData.from_arrays(
    {"spikes": counts}, covariates={"stimulus": stimulus}, dt=dt
)
train, valid, test = data.split(0.7, 0.15, 0.15, seed=0)
data

# %% [markdown]
# Observations and covariates are `(sequence, time, channel)`, or lists where sequences are of unequal lengths;
# missing entries are NaN. Tables, labelled arrays and spike times come in by `from_dataframe`, `from_xarray`,
# `from_pynapple` and `from_spike_times`.

# %%
fig, (left, right) = plt.subplots(1, 2, figsize=(9, 3), layout="constrained")
image = left.imshow(
    counts[0].T,
    aspect="auto",
    cmap="Greys",
    extent=(0, steps * dt, neurons - 0.5, -0.5),
    interpolation="none",
)
fig.colorbar(image, ax=left, label="spikes per bin of 20 ms")
left.set(xlabel="time (s)", ylabel="neuron", title="one trial")
right.plot(time, stimulus[0, :, 0], label="stimulus, which the model is given")
right.plot(time, hidden[0, :, 0], label="hidden input, which it is not")
right.set(xlabel="time (s)", title="what drives it", ylim=(None, 3.5))
right.legend(loc="upper left", frameon=False)
plt.show()

# %% [markdown]
# ## Model and guide
#
# A model is a transition, a latent (where randomness enters), and a head for each kind of observation. Here a gated
# recurrent unit is driven by the stimulus and by one unknown input, `Innovations`, and counts are Poisson given its
# state. A guide is the variational posterior: a network that reads the counts in both directions and says what they
# tell of the unknown input.

# %%
model = lr.LatentRNN(
    data.spec,
    transition=lr.GRU(16),
    latent=lr.Innovations(1, prior="ar1"),
    observations={"spikes": lr.Poisson()},
)
guide = lr.Guide(model, encoder=lr.RNNEncoder(24, direction="bidirectional"))
model

# %% [markdown]
# ## Fit
#
# `fit` maximises the evidence lower bound (ELBO) and leaves its inputs untouched. Without a number of steps it goes
# on until validation stops improving, beyond what its error explains; here a fixed number keeps the page quick.

# %%
quiet = lr.Reporting(progress=False)
result = lr.fit(
    model, guide, train, validation=valid, seed=0, steps=400, reporting=quiet
)
print(result.stop_reason)
lr.plotting.history(result.history)
plt.show()

# %% [markdown]
# ## What did it find?
#
# A posterior is a fit with data. Whatever is asked of it comes with its uncertainty. The hidden input stands in
# nobody's file, and yet the posterior's rates follow the planted ones, in trials that the fit has never seen:

# %%
posterior = result.posterior(test)
rates = posterior.rates(
    "spikes", num_samples=100
)  # (sample, sequence, time, channel), expected counts per bin
truth = planted[[int(name) for name in test.names]]
liveliest = int(truth[0].var(0).argmax())

ax = lr.plotting.rates(rates[:, 0], channel=liveliest, dt=dt, label="posterior, 90%")
ax.plot(time, truth[0, :, liveliest] / dt, "k--", linewidth=1, label="planted")
ax.set_title(f"neuron {liveliest}, a trial that was held out")
ax.legend(frameon=False)
plt.show()

unexplained = ((rates.mean(0).numpy() - truth) ** 2).mean() / truth.var()
print(f"rates against planted ones: R2 = {1 - unexplained:.2f}")

# %% [markdown]
# ## How far to trust it
#
# The evidence is the log marginal likelihood of each sequence, here by particle filters, with its Monte Carlo error.
# It says itself for which sequences the weights are too uneven for that error to be believed, and what to try.
# Predictive checks run free: replicates are drawn from the model alone, and statistics of the data that they miss are
# flagged.

# %%
posterior.evidence(lr.SMC(proposal="prior"), num_particles=512)

# %%
check = lr.posterior_predictive_check(posterior, num_samples=200)
print(check)
check.plot()
plt.show()

# %% [markdown]
# `lr.criticise(posterior)` runs every check that applies, and says in words what it found.
#
# ## A rival
#
# Would the stimulus alone have done? The same network with nothing random in its state can know nothing of the hidden
# input. On sequences that neither has seen, in nats, with the standard error of the paired difference (`dse`):

# %% tags=["remove-stderr"]
heads = {"spikes": lr.Poisson()}
simple = lr.LatentRNN(
    data.spec, transition=lr.GRU(16), latent=lr.Deterministic(), observations=heads
)
rival = lr.fit(
    simple,
    lr.Guide(simple),
    train,
    validation=valid,
    seed=0,
    steps=400,
    reporting=quiet,
).posterior(test)
lr.compare({"hidden input": posterior, "stimulus alone": rival}).round(1)

# %% [markdown]
# ## Open it
#
# Gates, memories and interventions are quantities with names, units and intervals. What does the stimulus do to the
# neuron of above, all else being as it was inferred? It is taken away (`do`), and the contrast is drawn, trial by
# trial:

# %%
effect = lr.interpret.contrast(
    posterior, lr.interpret.do("stimulus", 0.0), num_samples=100
)
interval = lr.interpret.summarise(-effect[["spikes"]] / dt)["spikes"].isel(
    sequence=0, spikes_channel=liveliest
)
without = planted[int(test.names[0]), :, liveliest] / np.exp(
    stimulus[int(test.names[0]), :, 0] * response[liveliest]
)

fig, ax = plt.subplots(figsize=(5, 3), layout="constrained")
ax.fill_between(
    time,
    interval.sel(statistic="lower"),
    interval.sel(statistic="upper"),
    alpha=0.3,
    label="posterior, 90%",
)
ax.plot(time, interval.sel(statistic="mean"))
ax.plot(
    time, (truth[0, :, liveliest] - without) / dt, "k--", linewidth=1, label="planted"
)
ax.set(xlabel="time (s)", ylabel="spikes per second", title="what the stimulus brings")
ax.legend(frameon=False)
plt.show()

# %% [markdown]
# ## Keep it
#
# A fit is saved as safetensors and JSON, and answers as before. A posterior becomes ArviZ's `InferenceData`
# (`to_arviz`) or labelled arrays (`to_xarray`), and `lr.report` makes one page of it that loads nothing.

# %%
folder = Path(tempfile.mkdtemp())
result.save(folder / "gru")
again = lr.load(folder / "gru").posterior(test)
assert again.evidence("elbo").total == posterior.evidence("elbo").total
posterior.to_xarray(num_samples=20)

# %% [markdown]
# Next: the page that is nearest to what you do, under
# [Start here](../start.md), or [which parts to choose](../choosing.md).
