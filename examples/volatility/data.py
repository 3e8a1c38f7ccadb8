"""Daily returns of a currency and of a stock index."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from arch.data import sp500

from examples.simulate import Array


def bitcoin(folder: Path) -> Array:
    """Return log-returns of bitcoin in dollars, September 2014 to August 2021, from the folder `bitcoin_daily`.

    Four days have no price; the return after them is over the gap.
    """
    prices = np.genfromtxt(folder / "BTC-USD.csv", delimiter=",", skip_header=1, usecols=4)
    return np.diff(np.log(prices[np.isfinite(prices)]))


def stocks() -> Array:
    """Return log-returns of the S&P 500, 1999 to 2018, which the package arch ships."""
    return np.diff(np.log(sp500.load()["Adj Close"].to_numpy()))


def hundred_days(folder: Path) -> Array:
    """Return 100 centred log-returns of the S&P 500, which lie in none of these years: of a test of samplers.

    They are those of the stochastic volatility model in the Inference Gym of TensorFlow Probability.
    """
    found = json.loads((folder / "stochastic_volatility_log_sp500_small.json").read_text())
    return np.array(found["data"]["centered_returns"])


def standard(returns: Array) -> tuple[Array, float]:
    """Return these without the mean of the first three fifths, in units of the standard deviation there; the unit."""
    first = returns[: round(0.6 * len(returns))]
    return (returns - first.mean()) / first.std(), float(first.std())
