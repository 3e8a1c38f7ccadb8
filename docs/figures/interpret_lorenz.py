"""Draw `interpret_lorenz.png`: two fits to the spikes of the Lorenz benchmark, laid on each other.

`python docs/figures/interpret_lorenz.py`. Spikes and model are those of `benchmarks/lorenz.py`, with smaller networks
and on windows of half a second; one fit has three dimensions, the other, of another seed, five, which is two too many.
Both are asked of test trials.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import torch
from fits import lorenz_spikes
from matplotlib import pyplot

import latentrnn as lr
from benchmarks import lorenz

torch.set_num_threads(1)
fits = [lorenz_spikes(3, 0), lorenz_spikes(5, 1)]
found = lr.interpret.align(fits[1], fits[0])  # of five dimensions, as far as they lie in three
for way in ("procrustes", "linear"):
    print(way, {direction: round(found.r2(way, direction), 3) for direction in ("b from a", "a from b")})
print("canonical", found.dataset.canonical.mean("fold").values.round(3))
across = lr.interpret.replication(fits)
for name in ("r2", "effect", "idle", "component_r2", "component_effect", "component_replicates", "agreement"):
    print(name, across[name].values.astype(float).round(3).tolist())

figure, (left, right) = pyplot.subplots(1, 2, figsize=(9.0, 3.8), layout="constrained")
first, second = (each.latents(20)["states"].mean(0).double().numpy() for each in fits)
half = len(first) // 2  # the map is of one half of the trials, what is drawn of the other
drawn = lorenz.linear_map(second[:half], first[:half])(second)
lr.plotting.alignment(first[-4:], drawn[-4:], ax=left)
left.set_title(f"two seeds, R2 {found.r2('linear'):.3f} by a linear map", fontsize="medium")
lr.plotting.replication(
    across.component_r2, across.component_effect, least_effect=across.attrs["least_effect"], ax=right
)
right.set_title("components; the second fit has two too many", fontsize="medium")
figure.savefig(Path(__file__).with_suffix(".png"), dpi=100)
