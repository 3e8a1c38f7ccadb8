"""A slope for each horizon, or one slope taken h times, from one short series each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyro.distributions as dist

import latentrnn as lr
from examples.forecast_horizons.baselines import slopes
from examples.forecast_horizons.data import as_pairs, written
from examples.forecast_horizons.theory import correlations, crossover, excess
from examples.simulate import Array

HORIZONS = (1, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 24)
WAYS = ("iterated", "direct")


class Costs(NamedTuple):
    """Squared errors of slopes, in variances of the series, and the horizon from which on iterated ones are smaller."""

    found: dict[str, Array]  # by way, (series, horizon)
    expected: dict[str, Array]  # by theory, (horizon,)
    crossover: float
    expected_crossover: float
    squares_crossover: float  # of least squares without the package


def costs(simulate: Callable[..., Array], repeats: int, phi: float, noise: float, steps: int, file: Path) -> Costs:
    """Estimate slopes from as many series, and compare them with those that `phi` and `noise` make the best."""
    horizons, ours, squares = np.array(HORIZONS, dtype=float), [], []
    best = correlations(horizons, phi, noise)
    for repeat in range(repeats):
        values = simulate(1000 + repeat, 1, steps, noise=noise)
        for kept, each in ((ours, by_model(written(values, file))), (squares, slopes(values, HORIZONS))):
            kept.append(np.stack([each[0] ** horizons - best, each - best]) ** 2)
    expected, found = excess(horizons, phi, noise, steps), np.stack(ours, 1)
    crossings = [crossover(horizons, *each) for each in (found.mean(1), expected, np.mean(squares, 0))]
    return Costs(dict(zip(WAYS, found, strict=True)), dict(zip(WAYS, expected, strict=True)), *crossings)


def by_model(table: pd.DataFrame) -> Array:
    """Return the slope of every horizon, (horizon,), by a linear model of what comes given what is there."""
    data = as_pairs(table, HORIZONS)
    known = {"weight": 0.0, "input_weight": 1.0, "bias": 0.0}
    priors = {"weight": dist.Normal(0.0, 10.0), "baseline": dist.Normal(0.0, 10.0)}
    model = lr.LatentRNN(
        data.spec,
        transition=lr.Linear(1, fixed=known),
        latent=lr.Deterministic(fixed={"initial_state": 0.0}),
        observations={"ahead": lr.Gaussian(priors=priors)},
    )
    ends = as_pairs(pd.DataFrame({"series": [0, 1], "step": 0, "y": [0.0, 1.0]}), HORIZONS)
    at_zero, at_one = lr.laplace(model, data).posterior(ends).mean("ahead", 1000)[:, 0].numpy()
    return np.asarray(at_one - at_zero)
