"""Draw `interpret_reaches.png`: reaches of a monkey as an LSTM's factors tell them (98 units of motor cortex).

`python docs/figures/interpret_reaches.py`; recordings are read from `../shared/data`, or the
folder of LATENTRNN_SHARED.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import numpy as np
import torch
from fits import reaches, reaching
from matplotlib import pyplot

import latentrnn as lr
from examples.monkey_reach.demo import as_sequences, split

torch.set_num_threads(1)
found, test = reaches(), as_sequences(reaches())[2]
fits = [reaching(seed)[0].posterior(test) for seed in (0, 1)]
velocity, direction = split(found, found.velocity)[2], split(found, found.direction)[2]

figure, panels = pyplot.subplots(2, 2, figsize=(8.4, 6.2), layout="constrained")
(a, b), (c, d) = panels
paths = lr.interpret.trajectories(fits[0]).trajectory.mean("sample").values
for target in range(8):
    mean = paths[direction == target].mean(0, keepdims=True)
    lr.plotting.trajectories(mean, color=pyplot.cm.tab10(target), label=f"{target + 1}", ax=a)
a.set_ylim(top=4.2)
a.legend(title="target", fontsize="x-small", title_fontsize="x-small", frameon=False, ncols=4, loc="upper center")
a.set_title("states, averaged by target", fontsize="medium")

shares = lr.interpret.explained_variance(fits[0], "hidden")
lr.plotting.explained_variance(shares.alone, shares.lost, shares.leading, ax=b)
b.set_title("what units explain of hidden neurons", fontsize="medium")

told = lr.interpret.decode(fits[0], velocity, lags=range(3))
print("velocity", told.score.mean("fold").values.round(3), told.control_score.max("control").values.round(3))
lr.plotting.probe(told.score, told.control_score, names=["velocity x", "velocity y"], metric="R²", ax=c)
c.set_ylim(top=1.0)
c.set_title("hand velocity read off the state", fontsize="medium")

aligned, across = lr.interpret.align(*fits), lr.interpret.replication(fits)
print(aligned, across.component_replicates.sum("component").values, across.idle.sum("unit").values)
lr.plotting.replication(across.component_r2, across.component_effect, least_effect=across.attrs["least_effect"], ax=d)
d.set_title("principal components of two seeds", fontsize="medium")
figure.savefig(Path(__file__).with_suffix(".png"), dpi=100)
print(
    "factors", dict(fits[0].factors(5).sizes), "canonical", np.round(aligned.dataset.canonical.mean("fold").values, 2)
)
