"""Draw `interpret_adaptation.png`: gain and adaptation of two recordings, as `benchmarks/adaptation.py` asks of them.

`python docs/figures/interpret_adaptation.py [seeds]` also writes that benchmark's table, of the same fits. The locust's
recordings are read from `../shared/data`, or the folder of LATENTRNN_SHARED; the grasshopper's come with nitime.
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import numpy as np
import torch
from fits import adapting
from matplotlib import pyplot
from matplotlib.axes import Axes

import latentrnn as lr
from benchmarks import adaptation
from benchmarks.network_priors import locust_counts

COLOURS = {"free readout": "C0", "held back readout": "C2"}
TITLES = {"grasshopper": "receptor, level 6 dB higher", "locust": "antennal lobe, odour"}


def responses(several: dict[str, adaptation.Found], ax: Axes) -> None:
    """Responses with their 90% intervals."""
    for name, found in several.items():
        seconds = found.dt * np.arange(found.response.shape[1])
        shown = seconds < 1.0 if found.dt > 0.01 else seconds < 0.06
        low, middle, high = np.quantile(found.response / found.dt, [0.05, 0.5, 0.95], axis=0)[:, shown]
        color = COLOURS.get(name, "0.5")
        lr.plotting.band(1e3 * seconds[shown], middle, low, high, label=name, color=color, zero=name in COLOURS, ax=ax)
    ax.set(xlabel="time after the onset (ms)", ylabel="rate above that without (1/s)")
    ax.legend(fontsize="x-small", frameon=False)


def intervals(key: str, label: str, systems: dict[str, dict[str, adaptation.Found]], ax: Axes) -> None:
    """Medians and 90% intervals of what is said."""
    place, ticks = 0, []
    for system, several in systems.items():
        for name, found in several.items():
            said = adaptation.numbers(system, found)
            if key in said:
                middle, low, high = adaptation.interval(said[key])
                ax.errorbar(
                    [middle], [place], xerr=[[middle - low], [high - middle]], fmt="o", capsize=3,
                    color=COLOURS.get(name, "0.5"),
                )  # fmt: skip
                ticks.append(f"{system},\n{name}")
                place -= 1
    ax.set_yticks(range(0, -len(ticks), -1), ticks, fontsize="x-small")
    ax.set_ylim(-len(ticks) + 0.5, 0.5)
    ax.set_xlabel(label)


def main() -> None:
    """Fit, ask, write the table and draw."""
    torch.set_num_threads(1)
    seeds, (counts, _) = int(sys.argv[1]) if len(sys.argv) > 1 else 3, locust_counts()
    systems: dict[str, dict[str, adaptation.Found]] = {"grasshopper": {}, "locust": {}}
    for kind in adaptation.READOUTS:
        systems["grasshopper"][f"{kind} readout"] = adaptation.ask_grasshopper(adapting("grasshopper", kind, seeds))
        systems["locust"][f"{kind} readout"] = adaptation.ask_locust(adapting("locust", kind, seeds), counts)
    systems["grasshopper"]["regression"] = adaptation.regression()
    systems["locust"]["average of trials"] = adaptation.averaged(counts)
    text = adaptation.report(systems, seeds)
    (Path(adaptation.ROOT) / "benchmarks" / "results" / "adaptation.md").write_text(text)
    print(text)

    figure, panels = pyplot.subplots(2, 2, figsize=(8.8, 6.0), layout="constrained")
    for ax, (system, several) in zip(panels[0], systems.items(), strict=True):
        responses(several, ax)
        ax.set_title(TITLES[system], fontsize="medium")
    intervals("tau", "time constant of adaptation (ms)", systems, panels[1, 0])
    panels[1, 0].set_xscale("log")
    intervals("gain", "share of the response that is gain", systems, panels[1, 1])
    panels[1, 1].axvline(0.0, color="0.7", linewidth=0.8)
    figure.savefig(Path(__file__).with_suffix(".png"), dpi=100)


if __name__ == "__main__":
    main()
