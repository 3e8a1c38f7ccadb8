"""Data of short fits, and what makes two fits the same."""

from __future__ import annotations

import numpy as np
import torch

import latentrnn as lr


def make_data(
    sequences: int = 12, *, seed: int = 0, steps: int = 8, ragged: bool = True, dtype: torch.dtype = torch.float64
) -> lr.SequenceData:
    """Counts of two channels that follow a drive; of at least four steps each where ragged."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(4, steps + 1, sequences) if ragged else np.full(sequences, steps)
    drive = [rng.normal(size=(n, 1)) for n in lengths]
    counts = [rng.poisson(np.exp(0.5 + x @ np.ones((1, 2)))) for x in drive]
    return lr.SequenceData.from_arrays({"y": counts}, {"drive": drive}, dt=0.01, dtype=dtype)


def assert_same(found: lr.FitResult, expected: lr.FitResult) -> None:
    """The same weights, history and report, to the bit."""
    for a, b in ((found.model, expected.model), (found.guide, expected.guide)):
        for name, value in b.state_dict().items():
            assert torch.equal(a.state_dict()[name], value), name
    assert found.history == expected.history
    for name in ("best_step", "stop_reason", "seed", "settings", "used"):
        assert getattr(found, name) == getattr(expected, name), name
