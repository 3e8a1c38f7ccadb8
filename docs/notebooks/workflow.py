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
# # A whole workflow, on a recording
#
# Ten seconds of a locust's auditory receptor under a tone of varying amplitude (nitime ships them): from the
# recording to a model, what the checks say of it, a model that answers to that, a comparison, and what its parts are.
# It is the order of Gelman et al. (Bayesian workflow, 2020): no model is the first one.

# %%
import matplotlib.pyplot as plt
import numpy as np

import latentrnn as lr

data = lr.datasets.grasshopper(1)
data

# %% [markdown]
# ## Look, and set aside
#
# One recording is cut in time: what is fitted, in windows; what says when to stop; and two seconds that are scored
# once. A stretch keeps half a second before it, which sets the state and is not scored.

# %%
train, stop, judge = data.split(0.64, 0.16, 0.20, along="time", context=500)
learn = train.windows(100, context=50)

spikes = np.flatnonzero(data.observations["spikes"][0, :200, 0])
fig, ax = plt.subplots(figsize=(9, 2.4), layout="constrained")
ax.plot(
    np.arange(200) / 1000, data.covariates["stimulus"][0, :200, 0], label="amplitude"
)
ax.plot(spikes / 1000, np.full(len(spikes), -0.05), "k|", label="spikes")
ax.set(xlabel="time (s)", ylabel="amplitude (scaled)")
ax.legend(frameon=False, ncols=2, loc="upper right")
ax.set_ylim(-0.1, 1.2)
plt.show()

# %% [markdown]
# ## A first model, and what is wrong with it
#
# Counts given the state of a network that hears the amplitude. What would its priors say? Only what is interpreted
# has a prior here; the check of priors before a fit is `lr.check_priors`.

# %%
quiet = lr.Reporting(progress=False)


def fitted(head, steps=500):
    model = lr.LatentRNN(
        data.spec,
        transition=lr.GRU(24),
        latent=lr.Deterministic(),
        observations={"spikes": head},
        inputs=["stimulus"],
    )
    settings = {
        "seed": 0,
        "steps": steps,
        "batch_size": 4,
        "optimizer": lr.AdamW(5e-3),
        "reporting": quiet,
    }
    return lr.fit(model, lr.Guide(model), learn, validation=stop, **settings)


first = fitted(lr.Poisson()).posterior(judge)
check = lr.posterior_predictive_check(first, num_samples=600)
print(check)
check.plot()
plt.show()

# %% [markdown]
# What is flagged is about the moments after a spike: replicates have spikes right after spikes (the autocorrelation
# at lag 1), and so counts and intervals that scatter far more than the receptor's.
#
# ## A model that answers to that
#
# A bin holds one spike or none, so the family is Bernoulli; and the network is told of the last bin (`History`), so
# that it can be refractory.

# %%
head = lr.Bernoulli(feedback=lr.History(steps=1, filters=1))
second = fitted(head, steps=700).posterior(judge)
print(lr.posterior_predictive_check(second, num_samples=600))

# %% [markdown]
# Counts and intervals scatter as the receptor's do now. What is still flagged is the rate: running free, the model
# fires a tenth too often, of six seconds that it learned from it is too sure.
#
# ## Compare
#
# One step ahead, in bits per spike above a constant rate, with an error from blocks of a tenth of a second: a
# recording is one sequence, whose bins are not independent.

# %%
scores = {
    name: lr.one_step_ahead_bits_per_spike(
        posterior.one_step_ahead("spikes"), block_length=100
    )
    for name, posterior in {
        "Poisson": first,
        "Bernoulli, history": second,
    }.items()
}
for name, score in scores.items():
    print(f"{name:20} {score}")
print("difference          ", lr.paired_difference(*reversed(scores.values())))

# %% [markdown]
# ## Is it calibrated?
#
# Intervals between spikes, on the clock that the model's own rates make of time, are uniform where the rates are
# right. They are not: the curve leaves the band. More of the recording, or a prior on the readout, is what to try
# next.

# %%
rescaled = lr.time_rescaling(second.one_step_ahead("spikes"))
print(rescaled)
rescaled.plot()
plt.show()

# %% [markdown]
# ## Open it
#
# What has it learned of the moments after a spike? Its expectations around each, one step ahead, averaged. Nobody
# told it that a receptor is refractory.

# %%
rate = (
    1000 * second.one_step_ahead("spikes").mean[0, -2000:, 0].numpy()
)  # per second, bins of 1 ms
events = np.flatnonzero(judge.observations["spikes"][0, -2000:, 0])
lags = np.arange(-5, 25)
events = events[(events + lags[0] >= 0) & (events + lags[-1] < 2000)]
around = np.stack([rate[event + lags] for event in events])

fig, ax = plt.subplots(figsize=(5, 3), layout="constrained")
low, high = np.quantile(around, [0.25, 0.75], axis=0)
ax.fill_between(lags, low, high, alpha=0.3, label="half of the spikes")
ax.plot(lags, around.mean(0), label="mean")
ax.axvline(0, color="k", linestyle=":", linewidth=1)
ax.set(xlabel="ms from a spike", ylabel="expected spikes per second", ylim=(0, None))
ax.legend(frameon=False)
plt.show()
print(
    f"expected 1 to 3 ms after a spike: {around[:, 6:9].mean():.1f} per second; overall {rate.mean():.1f}"
)

# %% [markdown]
# Regressions with the same inputs, history and family do as well on this recording
# ([table](../../benchmarks/results/grasshopper.md)): what the network adds is not bits, but that its refractoriness
# was learned and can be read off. `lr.report(second, "receptor.html")` makes a page of all that.
