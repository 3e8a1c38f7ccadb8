"""Layouts of a forecast say what is known when, and the theory is that of simulated series."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from examples.forecast_horizons.baselines import slopes
from examples.forecast_horizons.data import as_last_windows, as_pairs, as_windows, written
from examples.forecast_horizons.theory import correlations, crossover, excess
from examples.simulate import autoregression

VALUES = np.arange(20.0).reshape(2, 10, 1)


def test_direct_pairs_are_so_many_steps_apart(tmp_path: Path) -> None:
    found = as_pairs(written(VALUES, tmp_path / "series.csv"), (1, 4))
    ahead, past = found.observations["ahead"], found.covariates["past"]
    assert torch.equal(ahead[:, :9, 0], past[:, :9, 0] + 1)
    assert torch.equal(ahead[:, :6, 1], past[:, :6, 0] + 4)
    assert found.masks["ahead"].sum((0, 1)).tolist() == [18, 12]
    assert not found.masks["ahead"][:, 9].any()  # of the last step nothing is known, but forecasts begin there


def test_windows_show_the_source_alone(tmp_path: Path) -> None:
    table = written(VALUES, tmp_path / "series.csv")
    found = as_windows(table, past=3, horizon=2, every=2)
    assert len(found) == 2 * 3
    starts = torch.tensor([5.0, 15.0, 3.0, 13.0, 1.0, 11.0])
    assert torch.equal(found.covariates["past"][:, 0, 0], starts)
    assert torch.equal(found.observations["y"][:, 3:, 0], starts[:, None] + torch.tensor([3.0, 4.0]))
    assert torch.equal(found.masks["y"][0, :, 0], torch.arange(5) >= 3)
    assert not found.covariates["past"][:, 3:].any()
    last = as_last_windows(table, past=3, horizon=2)
    assert torch.equal(last.covariates["past"][:, :3, 0], torch.tensor([[7.0, 8.0, 9.0], [17.0, 18.0, 19.0]]))
    assert not last.masks["y"].any()


@pytest.mark.parametrize("noise", [0.0, 0.5])
def test_slopes_of_many_series_cost_what_theory_says(noise: float) -> None:
    horizons, steps = np.array([1.0, 4.0, 10.0]), 800
    each = np.stack([slopes(autoregression(s, 1, steps, noise=noise), (1, 4, 10)) for s in range(300)])
    best = correlations(horizons, 0.9, noise)
    iterated, direct = excess(horizons, 0.9, noise, steps)
    np.testing.assert_allclose(((each[:, :1] ** horizons - best) ** 2).mean(0), iterated, rtol=0.35)
    np.testing.assert_allclose(((each - best) ** 2).mean(0), direct, rtol=0.35)


def test_a_crossover_lies_where_the_lines_cross() -> None:
    horizons = np.array([1.0, 2.0, 4.0])
    assert crossover(horizons, np.array([0.0, 3.0, 1.0]), np.array([1.0, 2.0, 2.0])) == 3.0
    assert crossover(horizons, np.array([0.0, 1.0, 1.0]), np.array([0.0, 2.0, 2.0])) == 1.0
    assert crossover(horizons, np.array([0.0, 3.0, 3.0]), np.array([1.0, 2.0, 2.0])) == np.inf
