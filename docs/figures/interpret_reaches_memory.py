"""Draw `interpret_reaches_memory.png`: how long an LSTM of reaches remembers, and what its heads ask of it.

`python docs/figures/interpret_reaches_memory.py`; recordings are read from `../shared/data`, or the folder of
LATENTRNN_SHARED.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import numpy as np
import torch
from fits import reaches, reaching
from matplotlib import pyplot
from matplotlib.ticker import NullFormatter

import latentrnn as lr
from examples.monkey_reach.demo import as_sequences

LAGS = (1, 2, 4, 6, 8, 12, 16)

torch.set_num_threads(1)
result, gradients = reaching(0)
posterior = result.posterior(as_sequences(reaches())[2][:20])

figure, panels = pyplot.subplots(2, 3, figsize=(10.2, 6.0), layout="constrained")
needed = lr.interpret.explained_variance(posterior, "hidden").lost.mean("sample").values
units = np.sort(np.argsort(-needed)[:10])
found = lr.interpret.time_constants(posterior, num_samples=5, disagreement=None)
taus = found.tau.median(("sequence", "time")).values[:, units]
lr.plotting.time_constants(
    taus, jacobian=found.jacobian_tau.median("sequence").values, names=[f"{unit}" for unit in units], ax=panels[0, 0]
)
panels[0, 0].set_title("forget gates of ten units", fontsize="medium")
print("gates", np.quantile(found.tau.values[np.isfinite(found.tau.values)], [0.05, 0.5, 0.95]).round(3))
print("jacobian", np.nanmedian(found.jacobian_tau), "gates' over theirs", np.nanmedian(found.disagreement))

modes = lr.interpret.spectrum(posterior, num_samples=1).isel(time=slice(4, None, 5))
lr.plotting.spectrum(modes.frequency.values, modes.time_constant.values, ax=panels[0, 1])
panels[0, 1].set_yscale("log")
panels[0, 1].set_title("modes of single steps", fontsize="medium")

flows = {
    label: lr.interpret.gradient_flow(posterior, LAGS, of=of, num_samples=5).norm.mean("sequence").values
    for label, of in (("output h", "output"), ("cell c", "cell"))
}
lr.plotting.gradient_flow(LAGS, flows, ax=panels[0, 2])
panels[0, 2].set_title("what is left of a change", fontsize="medium")

lr.plotting.head_gradients(
    gradients.step, gradients.norm, gradients.cosine, gradients["head"].values, axes=panels[1, :2]
)
slopes = lr.interpret.jacobians(posterior, "cell", "input", num_samples=1).isel(sample=0, of=needed.argmax())
moved = {path: np.linalg.norm(slopes[path].values, axis=-1) for path in ("direct", "total")}  # by all innovations
gate = lr.interpret.trace(posterior, 1)["input"].isel(sample=0, unit=needed.argmax()).values
for label, path in (("gates free", "total"), ("gates held", "direct")):
    [panel] = lr.plotting.gate_sensitivity(gate, {label: moved[path]}, name="input gate", axes=[panels[1, 2]])
    print(panel.get_title())
    if path == "total":
        panel.clear()
panel.set_ylabel("|d cell / d innovations|")
panel.set_xticks([0.2, 0.4, 0.8], ["0.2", "0.4", "0.8"])
panel.xaxis.set_minor_formatter(NullFormatter())
figure.savefig(Path(__file__).with_suffix(".png"), dpi=100)
