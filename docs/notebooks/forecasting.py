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
# # Forecasts from a CSV file
#
# One long series, monthly, with dates: how warm the sea off Peru was, 1950 to 2010, where El Niño shows. We read it
# from a CSV file, fit a network to the first 46 years, forecast a year ahead from each January of the years after,
# and ask two things of the forecasts: are they better than naive ones, and do their intervals hold what they say?

# %%
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from statsmodels.datasets import elnino

import latentrnn as lr

wide = elnino.load_pandas().data.set_index("YEAR")  # a row a year, a column a month
long = wide.rename_axis(columns="MONTH").stack().rename("temperature").reset_index()
dates = pd.to_datetime(long.YEAR.astype(int).astype(str) + long.MONTH, format="%Y%b")
path = Path(tempfile.mkdtemp()) / "sea.csv"
pd.DataFrame({"date": dates.dt.date, "temperature": long.temperature}).to_csv(
    path, index=False
)
print(path.read_text()[:80])

# %% [markdown]
# ## From the file to sequences
#
# Dates in a column become the clock, whose steps are months of a calendar. The time of the year is a covariate, known
# in advance, as two numbers that close the circle.


# %%
def calendar(date):
    angle = 2 * np.pi * (date.month - 1) / 12
    return np.stack([np.sin(angle), np.cos(angle)], -1)


frame = pd.read_csv(path, parse_dates=["date"])
frame[["sin", "cos"]] = calendar(pd.DatetimeIndex(frame.date))
data = lr.SequenceData.from_dataframe(
    frame,
    {"sea": "temperature"},
    {"season": ["sin", "cos"]},
    time="date",
    standardise=["sea"],
)
data

# %% [markdown]
# Learning is from windows of the first 46 years, of five years each, with two more before them that set the state and
# are not scored; every fourth window is kept back, to say when to stop.

# %%
learn = 46 * 12
windows = data.time_slice(0, learn).windows(60, context=24)
kept = np.arange(len(windows)) % 4 == 3
train, valid = windows[np.flatnonzero(~kept)], windows[np.flatnonzero(kept)]
train, valid

# %% [markdown]
# ## A model that feeds on its own past
#
# The state is a gated recurrent unit that reads the season and the last months of the series itself. What is random
# is each month's value given the state, with tails as heavy as the data ask for; a forecast feeds its own samples
# back, so that uncertainty grows with the horizon.

# %%
model = lr.LatentRNN(
    data.spec,
    transition=lr.GRU(16),
    latent=lr.Deterministic(),
    observations={"sea": lr.StudentT(feedback=lr.History(2))},
)
result = lr.fit(
    model,
    lr.Guide(model),
    train,
    validation=valid,
    seed=0,
    reporting=lr.Reporting(progress=False),
)
print(result.stop_reason)

# %% [markdown]
# ## A year ahead
#
# A forecast starts from all that was seen until its origin. Its frame has the dates.

# %%
HORIZON = 12


def season_after(origin):
    months = pd.date_range(frame.date[origin], periods=HORIZON, freq="MS")
    return {"season": calendar(months)[None]}


origins = range(learn + 12, learn + 12 * 14, 12)
forecasts = [
    result.posterior(data.time_slice(0, origin)).forecast(
        HORIZON, season_after(origin), num_samples=300
    )
    for origin in origins
]
forecasts[0].to_dataframe().head()

# %%
fig, ax = plt.subplots(figsize=(9, 3.2), layout="constrained")
seen = frame[learn - 24 :]
ax.plot(seen.date, seen.temperature, "k", linewidth=0.8, label="what came")
for origin, forecast in zip(origins, forecasts, strict=True):
    low, median, high = forecast.quantiles("sea", [0.05, 0.5, 0.95])[:, 0, :, 0].numpy()
    months = pd.date_range(frame.date[origin], periods=HORIZON, freq="MS")
    first = origin == origins[0]
    ax.fill_between(
        months,
        low,
        high,
        color="C0",
        alpha=0.3,
        linewidth=0,
        label="90%" if first else None,
    )
    ax.plot(months, median, "C0", label="forecast, median" if first else None)
ax.set(ylabel="sea surface (°C)", title="each January the year to come")
ax.legend(frameon=False, ncols=3, loc="upper left")
ax.set_ylim(None, ax.get_ylim()[1] + 1)
plt.show()

# %% [markdown]
# ## Better than nothing?
#
# The continuous ranked probability score is the absolute error of a forecast that is a distribution, in degrees.
# Beside ours: the same month of last year, and the same month of all the years that were learned from.

# %%
values = frame.temperature.to_numpy()
came = np.stack(
    [values[origin : origin + HORIZON] for origin in origins]
)  # (origin, month)
ours = np.stack(
    [
        f.crps("sea", c[None, :, None])[0, :, 0]
        for f, c in zip(forecasts, came, strict=True)
    ]
)
last_year = np.abs(
    np.stack([values[origin - 12 : origin] for origin in origins]) - came
)
by_month = values[:learn].reshape(
    -1, 1, 12, 1
)  # (year, 1, month, 1): samples of each month
climate = np.stack([lr.crps(by_month, c[None, :, None])[0, :, 0] for c in came])

scores = {"network": ours, "last year": last_year, "climate of the month": climate}
ahead = {"1 month ahead": 0, "3 months": 2, "6 months": 5, "12 months": 11}
table = pd.DataFrame(
    {
        name: [score.mean(), *score[:, list(ahead.values())].mean(0)]
        for name, score in scores.items()
    },
    index=["all months", *ahead],
)
table.round(3)


# %%
def paired(name, rival):
    difference = (rival - ours).mean(1)  # a number for each year
    error = difference.std(ddof=1) / np.sqrt(len(difference))
    print(
        f"gained on {name}: {difference.mean():.3f} +- {error:.3f} degrees, over {len(difference)} years"
    )


paired("last year", last_year)
paired("climate of the month", climate)

# %% [markdown]
# So it is worth most in the first months, and no more than the climate half a year ahead: that is how long this sea
# remembers. Whether a difference means anything, its standard error says.
#
# ## Honest intervals?

# %%
inside = np.stack(
    [
        f.coverage("sea", c[None, :, None], level=0.9)[0, :, 0]
        for f, c in zip(forecasts, came, strict=True)
    ]
)
print(f"90% intervals held {inside.sum():.0f} of {inside.size} months")
