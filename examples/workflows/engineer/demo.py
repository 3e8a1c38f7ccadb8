# %% [markdown]
# # From CSV files to intervals with dates, and to alarms
#
# 26 lines of code between the marks. `UnobservedComponents` of statsmodels needs about 35 for the same, counted by
# its documented calls and not run here: a loop over pumps, each sorted and on a regular index, `fit`,
# `get_forecast(...).conf_int()`, `append` for every new row, thresholds of residuals by hand, tables put together;
# and it follows each pump alone. Hourly temperatures come from CSV files that the script simulates first: two weeks
# of 16 pumps, rows in any order, some values missing; then a day of two of them, one of which runs hot.

# %%
from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import numpy as np
import pandas as pd


def recorded(folder: Path) -> None:
    """Write the files: temperatures that follow the load of the last hours, and noise of 0.5 degrees."""
    rng = np.random.default_rng(0)
    when = pd.date_range("2024-03-01", periods=15 * 24, freq="h")
    parts = []
    for pump in range(16):
        load = np.repeat(rng.integers(0, 3, 15 * 6), 4).astype(float)
        heat, hot = np.empty(len(when)), 0.0
        for hour in range(len(when)):
            hot = 0.8 * hot + load[hour]
            heat[hour] = 40 + 1.5 * hot
        heat += 0.5 * rng.normal(size=len(when)) + (6.0 * (np.arange(len(when)) >= 14 * 24 + 10) if pump == 1 else 0.0)
        parts.append(pd.DataFrame({"pump": f"pump {pump}", "when": when, "load": load, "heat": heat.round(2)}))
    rows = pd.concat(parts)
    new = (rows["when"] >= "2024-03-15") & rows["pump"].isin(["pump 0", "pump 1"])
    past = rows[rows["when"] < "2024-03-15"]
    past = past.assign(heat=past["heat"].mask(rng.random(len(past)) < 0.03)).sample(frac=1.0, random_state=0)
    past.to_csv(folder / "history.csv", index=False)
    rows[new].to_csv(folder / "today.csv", index=False)


parser = argparse.ArgumentParser()
parser.add_argument("--out", type=Path, default=Path("build/engineer"))
parser.add_argument("--smoke", action="store_true", help="fewer steps")
given = parser.parse_args()
given.out.mkdir(parents=True, exist_ok=True)
recorded(given.out)

# %% counted from here
import latentrnn as lr

columns = {"time": "when", "group": "pump", "dt": "1h"}
history = pd.read_csv(given.out / "history.csv")
data = lr.SequenceData.from_dataframe(history, ["heat"], ["load"], **columns, standardise=["heat", "load"])
train, valid, usual = data.split(0.5, 0.25, 0.25, seed=0)
model = lr.LatentRNN(data.spec, transition=lr.GRU(8), latent=lr.Deterministic(), observations={"heat": lr.Gaussian()})
quiet = lr.Reporting(progress=False)
steps = 300 if given.smoke else None
result = lr.fit(model, lr.Guide(model), train, valid, seed=0, steps=steps, optimizer=lr.AdamW(1e-2), reporting=quiet)

today = pd.read_csv(given.out / "today.csv").sort_values("when")
pumps = [name for name in data.names if name in set(today["pump"])]
known = data[[data.names.index(name) for name in pumps]]
ahead = {"load": np.stack([today.loc[today["pump"] == name, ["load"]] for name in pumps])}
forecast = result.posterior(known).forecast(24, ahead)
forecast.to_dataframe().to_csv(
    given.out / "forecast.csv", index=False
)  # mean and 90% interval of each hour, with its date
dates = forecast.axes["heat"].dates[0]
ax = lr.plotting.forecast_fan(forecast.samples["heat"][:, 0, :, 0], dates, label="heat (degrees)")
ax.figure.savefig(given.out / "forecast.png", dpi=110)

alarm = lr.calibrate_alarm(lr.OnlineFilter(result, num_particles=1), usual, rate=0.002)
online = lr.OnlineFilter(result, streams=pumps, num_particles=1)
list(online.follow(known))  # up to now
hours = [(when, alarm(online.update(rows.set_index("pump")[["heat", "load"]]))) for when, rows in today.groupby("when")]
raised = pd.DataFrame([each.raised[:, 0].tolist() for _, each in hours], [when for when, _ in hours], pumps)
raised.to_csv(given.out / "alarms.csv", index_label="when")
# %% to here

print(pd.read_csv(given.out / "forecast.csv").head(3).to_string())
late = raised.iloc[10:]
print(f"alarms: {raised.sum().to_dict()}; the first at {raised.index[raised['pump 1']].min()}")
assert late["pump 1"].mean() > 0.5, "a pump that is six degrees too hot should raise alarms"
assert raised["pump 0"].sum() <= 2, "one that is not should raise few"
assert raised["pump 1"].iloc[:10].sum() <= 2, "and there should be few before it ran hot"
