"""Draw interpret_gradient_flow.png: planted memories, and what is left of a change of them by lag.

Run from the repository: `python docs/figures/interpret_gradient_flow.py`.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # where `latentrnn` and `tests` are

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot

import latentrnn as lr
from tests.interpret.planted import lstm, quiet, vanilla


def main() -> None:
    """Measure and draw."""
    data, lags = quiet(steps=100), [1, *range(5, 100, 5)]
    memories = {
        "vanilla RNN, radius 0.95": (vanilla(8, data, radius=0.95), "output"),
        "vanilla RNN, radius 1.05": (vanilla(8, data, radius=1.05), "output"),
        "LSTM, forget gate 0.962": (lstm(8, data, forget=0.962), "cell"),
        "LSTM, forget gate 0.999": (lstm(8, data, forget=0.999), "cell"),
    }
    norms = {}
    for name, (posterior, of) in memories.items():
        found = lr.interpret.gradient_flow(posterior, lags, of, num_samples=1)
        norms[name] = found.norm.mean("sequence").values
        print(f"{name}: {found.report}")
    ax = lr.plotting.gradient_flow(lags, norms)
    ax.set_ylim(top=5e3)
    ax.axvline(60, color="0.8", zorder=0)
    ax.figure.set_size_inches(5.0, 3.4)
    ax.figure.savefig(Path(__file__).with_suffix(".png"), dpi=110)
    pyplot.close(ax.figure)


if __name__ == "__main__":
    main()
