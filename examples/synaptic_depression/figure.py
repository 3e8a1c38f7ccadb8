"""The example's figure: arrays in, a file out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np

from examples.simulate import Array


def draw(
    path: Path,
    seen: Array,
    rates: Array,
    ends: Array,
    needs: Mapping[int, Array],
    gates: Sequence[Array],
    probes: Sequence[Array],
    planted: float,
) -> None:
    """Draw the synapse's recovery, and time constants by number of trials, and by the gates of LSTMs.

    Args:
        path: of the picture.
        seen: delay, mean and standard error of what probes evoked, (3, delay).
        rates: draws of the same, (draw, delay).
        ends: interval of the time constant, ms, (3,).
        needs: the same by number of trials.
        gates: time constants of forget gates, ms, by LSTM.
        probes: what LSTMs predict of the probes, by LSTM.
        planted: time constant, ms.
    """
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(11, 3.4), layout="constrained")
    delays, means, errors = seen
    low, high = np.quantile(rates, [0.05, 0.95], axis=0)
    left.fill_between(delays, low, high, color="C0", alpha=0.35, linewidth=0, label="inferred, 90%")
    for index, probe in enumerate(probes):
        left.plot(delays, probe, color="gray", linewidth=0.7, label=None if index else "LSTMs")
    left.errorbar(delays, means, errors, fmt="k.", label="seen")
    left.set(xlabel="pause before the probe (s)", ylabel="spikes evoked by the probe")
    left.legend(fontsize=8, loc="lower right")
    numbers, by_number = list(needs), np.array(list(needs.values()))
    middle.fill_between(numbers, by_number[:, 0], by_number[:, 2], color="C0", alpha=0.35, linewidth=0)
    middle.plot(numbers, by_number[:, 1], "o-", color="C0", markersize=4)
    middle.set(xscale="log", yscale="log", xlabel="trials", ylabel="time constant (ms), 90% interval")
    middle.set_xticks(numbers, [str(number) for number in numbers])
    middle.set_xticks([], minor=True)
    for seed, gate in enumerate(gates):
        right.plot(np.full(len(gate), seed), gate, "o", color="gray", label=None if seed else "units of LSTMs")
    right.axhspan(ends[0], ends[2], color="C0", alpha=0.35, linewidth=0, label="inferred, 90%")
    right.set(yscale="log", xlabel="LSTM, by seed", ylabel="time constant of a forget gate (ms)")
    right.set_xticks(range(len(gates)))
    for axes in (middle, right):
        axes.axhline(planted, color="k", linestyle="--", linewidth=1, label="planted")
    middle.set_ylim(50, 500)
    middle.set_yticks([50, 100, 200, 500], ["50", "100", "200", "500"])
    middle.set_yticks([], minor=True)
    right.set_ylim(5, 1000)
    right.legend(fontsize=8, loc="upper center", ncols=2)
    figure.savefig(path, dpi=110)
