# %% [markdown]
# # A notebook in the Bayesian workflow: does a cue leave a memory, and for how long?
#
# 29 lines of code between the marks. PyMC 5 needs about 40 for the same, counted by its documented calls and not run
# here: a `scan` for the memory, two models with their priors, `sample_prior_predictive`, `sample`,
# `sample_posterior_predictive`, held-out data by `set_data`, `compute_log_likelihood`, `az.summary`, `az.compare`;
# checks and the page to send are then still missing. Counts of 40 patients over 60 days come from a CSV file that the
# script simulates first.

# %%
from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import numpy as np
import pandas as pd


def recorded(path: Path) -> None:
    """Write the counts: rates follow doses that fade with a time constant of 5 days."""
    rng = np.random.default_rng(0)
    dose = (rng.random((40, 60)) < 0.15).astype(float)
    level = np.zeros_like(dose)
    for day in range(60):
        level[:, day] = (np.exp(-1 / 5) * level[:, day - 1] if day else 0.0) + dose[:, day]
    patient, day = np.divmod(np.arange(2400), 60)
    events = rng.poisson(np.exp(0.2 + 0.5 * level)).ravel()
    pd.DataFrame({"patient": patient, "day": day, "dose": dose.ravel(), "events": events}).to_csv(path, index=False)


parser = argparse.ArgumentParser()
parser.add_argument("--out", type=Path, default=Path("build/bayesian"))
parser.add_argument("--smoke", action="store_true", help="fewer draws")
given = parser.parse_args()
given.out.mkdir(parents=True, exist_ok=True)
recorded(given.out / "patients.csv")
draws = 100 if given.smoke else 1000

# %% counted from here
import arviz as az
import pyro.distributions as dist

import latentrnn as lr

frame = pd.read_csv(given.out / "patients.csv")
data = lr.SequenceData.from_dataframe(frame, ["events"], ["dose"], time="day", group="patient", dt=1.0)
train, test = data[:30], data[30:]


def model(memory: lr.Transition) -> lr.LatentRNN:
    head = lr.Poisson(priors={"weight": dist.Normal(0.0, 1.0), "baseline": dist.Normal(0.0, 1.0)})
    start = lr.Deterministic(fixed={"initial_state": 0.0})
    return lr.LatentRNN(data.spec, transition=memory, latent=start, observations={"events": head})


fading = lr.LeakyIntegrator(1, priors={"time_constant": dist.LogNormal(1.0, 1.0)}, fixed={"input_weight": 1.0})
models = {
    "fading": model(fading),
    "at once": model(lr.LeakyIntegrator(1, 1e-3, learned=False, fixed={"input_weight": 1.0})),
}
print(lr.prior_predictive_check(models["fading"].prior_predictive(train, 200)))
fits = {
    name: lr.sample(each, train, num_samples=draws, warmup=draws, chains=2, progress=False)
    for name, each in models.items()
}
print(fits["fading"].summary())  # mean, interval, R-hat, effective draws
idata = fits["fading"].to_arviz()
az.plot_trace(idata)
held_out = {name: posterior.result.posterior(test) for name, posterior in fits.items()}
table = lr.compare(held_out)
print(table)
found = lr.criticise(held_out["fading"])
print(found)
lr.report(held_out["fading"], given.out / "report.html")
# %% to here

tau = fits["fading"].summary().filter(like="time_constant", axis=0).iloc[0]
print(f"time constant {tau['mean']:.2f} days, 90% {tau['5%']:.2f} to {tau['95%']:.2f}; planted: 5")
assert tau["5%"] < 5.0 < tau["95%"], "the planted time constant should be in its interval"
assert tau["r_hat"] < 1.05, "chains should have mixed"
assert table.index[0] == "fading", "the model that made the data should be first"
