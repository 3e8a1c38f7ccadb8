"""Draw interpret_gate_sensitivity.png: what a fitted LSTM's input gate lets in, with gates held and with gates free.

Run from the repository: `python docs/figures/interpret_gate_sensitivity.py`.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # where `latentrnn` and `examples` are

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot

import latentrnn as lr
from examples.input_attention.demo import opened
from examples.simulate import attention


def main() -> None:
    """Fit a memory into which a cue and the stimulus itself let the stimulus, and draw."""
    found = opened(attention(0, 100, own=3.0), seed=0, steps=600)
    paths = {"gates held": found["held"][:20], "gates free": found["free"][:20]}
    panels = lr.plotting.gate_sensitivity(found["gate"][:20], paths, name="input gate")
    panels[0].figure.savefig(Path(__file__).with_suffix(".png"), dpi=90)
    pyplot.close(panels[0].figure)


if __name__ == "__main__":
    main()
