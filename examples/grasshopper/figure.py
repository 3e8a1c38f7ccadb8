"""One figure of the demo: what went in, what came out, what the model believes, and whether to believe the model."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import torch
from data import Recording

import latentrnn as lr
from latentrnn import plotting

SHOWN = slice(600, 1000)  # bins of the test data that are drawn, the context included


def draw(
    recording: Recording,
    posterior: lr.Posterior,
    ahead: lr.OneStepAhead,
    check: lr.PredictiveCheck,
    rescaling: lr.TimeRescaling,
    path: Path,
) -> None:
    """Draw stimulus, spikes, rate with its band, gate, predictive check and time rescaling; save to `path`."""
    data, dt = posterior.data, recording.dt
    seconds = data.keys[0].start * dt - int(data.host_context[0]) * dt
    start = seconds + SHOWN.start * dt
    time = start + torch.arange(SHOWN.stop - SHOWN.start) * dt

    figure = plt.figure(figsize=(12, 9), layout="constrained")
    grid = figure.add_gridspec(5, 3, height_ratios=[1, 0.35, 1.3, 1, 1.7])
    stimulus, spikes, rate, gate = (figure.add_subplot(grid[row, :]) for row in range(4))
    for ax in (spikes, rate, gate):
        ax.sharex(stimulus)
    stimulus.plot(time, data.covariates["stimulus"][0, SHOWN, 0], color="0.3", linewidth=1)
    stimulus.set_ylabel("sound\namplitude")
    stimulus.set_title("A grasshopper's auditory receptor, held-out stretch", loc="left")

    plotting.raster(data.observations["spikes"][0, SHOWN], dt=dt, start=start, ax=spikes)
    spikes.set(ylabel="spikes", yticks=[], xlabel="")

    samples = posterior.rates("spikes", num_samples=200)[:, 0, SHOWN]
    plotting.rates(samples, dt=dt, start=start, label="predicted one step ahead, with 90% posterior band", ax=rate)
    rate.legend(loc="upper right", frameon=False)
    rate.set_xlabel("")

    gain = posterior.gain("spikes", num_samples=200)
    opening = gain.gate[:, 0, SHOWN, 0]
    low, high = opening.quantile(0.05, 0), opening.quantile(0.95, 0)
    gate.fill_between(time, low, high, color="C1", alpha=0.3, linewidth=0)
    gate.plot(time, opening.mean(0), color="C1", linewidth=1)
    gate.set(ylabel="gate of the\npresent amplitude", xlabel="time (s)", ylim=(0, 1.05))

    chosen = [item for item in check.discrepancies if item.observed.numel() == 1][:2]
    panels = [figure.add_subplot(grid[4, column]) for column in range(3)]
    for ax, item in zip(panels[:2], chosen, strict=False):
        ax.hist(item.replicated.flatten(), bins=25, color="0.75", label="replicates, free-running")
        ax.axvline(float(item.observed), color="C3", label="recording")
        ax.set_title(f"predictive check: {item.statistic}, p = {float(item.p_value):.2f}", fontsize="medium")
        ax.set_yticks([])
    panels[0].legend(fontsize="small", frameon=False)
    plotting.time_rescaling(rescaling, ax=panels[2])
    figure.savefig(path, dpi=120)
    plt.close(figure)
