"""Draw `interpret_locust.png`: the dynamics that a GRU learned of a locust's antennal lobe, with odour and without.

`python docs/figures/interpret_locust.py`; recordings are read from `../shared/data`, or the
folder of LATENTRNN_SHARED.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import numpy as np
import torch
from fits import odours
from matplotlib import pyplot

import latentrnn as lr

torch.set_num_threads(1)
posterior = odours()
paths = lr.interpret.trajectories(posterior, num_samples=10).mean("sample")

figure, panels = pyplot.subplots(1, 3, figsize=(11.4, 3.9), layout="constrained")
for ax, level, title in ((panels[0], 0.0, "without odour"), (panels[1], 1.0, "odour")):
    field = lr.interpret.phase_portrait(posterior, {"stimulus": level}).isel(sample=0)
    points = lr.interpret.fixed_points(posterior, {"stimulus": level}, num_starts=100)
    print(title, points)
    lr.plotting.phase_portrait(field.position_x, field.position_y, field.velocity_x, field.velocity_y, ax=ax)
    here = points.dataset.isel(sample=0)
    there = here.speed.notnull().values
    lr.plotting.fixed_points(
        here.state.values[there], here.unstable.values[there], here.fixed.values[there] == 1,
        directions=field.direction.values, centre=field.centre.values, ax=ax,
    )  # fmt: skip
    ax.set_title(title, fontsize="medium")
states = posterior.latents(10)["states"].mean(0).double().numpy()
states = states.reshape(20, -1, *states.shape[1:]).mean(1)  # averaged by odour, (odour, time, unit)
for ax in panels[:2]:
    path = (states - field.centre.values) @ field.direction.values.T
    lr.plotting.trajectories(path, color="C1", label="average trials of odours", ax=ax)
    ax.legend(fontsize="x-small", framealpha=0.95, loc="lower left")

for level, label in ((0.0, "without odour"), (1.0, "odour")):
    found = lr.interpret.lyapunov(
        posterior, {"stimulus": level}, num_exponents=6, num_runs=8, steps=400, burn_in=100
    ).isel(sample=0)
    print(label, found.exponent.values.round(2))
    lr.plotting.lyapunov(found.exponent, found.standard_error, label=label, ax=panels[2])
panels[2].legend(fontsize="small", frameon=False)
figure.savefig(Path(__file__).with_suffix(".png"), dpi=100)
print("share of two dimensions", np.round(paths.share.values, 2))
