"""The posterior of a stochastic volatility's three numbers, without sampling: quadrature over a filter on a grid.

`python benchmarks/volatility_quadrature.py` writes `benchmarks/results/volatility_quadrature.md`, in a minute.
The models are those of the two volatilities of `benchmarks/reference_posteriors.py`:

    x_1 ~ Normal(mu, s^2 / (1 - phi^2)),  x_t ~ Normal(mu + phi (x_{t-1} - mu), s^2),  y_t ~ Normal(0, exp(x_t))
    (phi + 1) / 2 ~ Beta(20, 1.5),  mu ~ Cauchy(0, 5),  s ~ HalfCauchy(2)

p(y | mu, phi, s) is a sum over x on a grid 0.12 apart, which the trapezoidal rule gets right to rounding where s is
above 0.13, step by step; the three numbers lie on a grid in log(1 - phi), log(s) and arcsinh((mu - m) / 0.6). NumPy and
the statement alone: nothing of the library is in it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[1]
FOLDER = Path(os.environ.get("LATENTRNN_SHARED", ROOT.parent / "shared")) / "reference_posteriors"
NAMES = ("stochastic_volatility_sp500_small", "stochastic_volatility_log_sp500_small")
STEP, BEYOND = 0.12, 4.5  # of the grid of x, and how far it goes beyond the reference's means
UNIT, FARTHEST = 0.6, 80.0  # mu is even-spaced within the first, and goes as far as the second
FAR = 5.0  # from the mean of mu
Array = NDArray[np.float64]


def log_evidence(y: Array, x: Array, mu: Array, phi: float, s: float) -> Array:
    """Return log p(y | mu, phi, s) for every mu, up to what depends on y alone."""
    likelihood = np.exp(-0.5 * x - 0.5 * y[:, None] ** 2 * np.exp(-x))
    likelihood /= likelihood.max(1, keepdims=True)
    location = (1 - phi) * mu[:, None] + phi * x  # (mu, x)
    density = STEP / (s * np.sqrt(2 * np.pi))
    moves = density * np.exp(-0.5 * ((x - location[:, :, None]) / s) ** 2)
    start = s / np.sqrt(1 - phi**2)
    weights = STEP / (start * np.sqrt(2 * np.pi)) * np.exp(-0.5 * ((x - mu[:, None]) / start) ** 2) * likelihood[0]
    total = np.zeros(len(mu))
    for now in likelihood[1:]:
        mass = np.maximum(weights.sum(1), 1e-300)
        total += np.log(mass)
        weights = np.matmul((weights / mass[:, None])[:, None], moves)[:, 0] * now
    found: Array = total + np.log(np.maximum(weights.sum(1), 1e-300))
    return found


def posterior(y: Array, x: Array, middle: float, sizes: tuple[int, int, int]) -> tuple[Array, Array, Array, Array]:
    """Return weights of the grid, (phi, s, mu), adding up to one, and the values of each number on it."""
    log_rest = np.linspace(np.log(1e-6), np.log(0.6), sizes[0])
    log_s = np.linspace(np.log(0.13), np.log(1.8), sizes[1])
    arc = np.linspace(-1, 1, sizes[2]) * np.arcsinh(FARTHEST / UNIT)
    mu = middle + UNIT * np.sinh(arc)
    found = np.array([[log_evidence(y, x, mu, 1 - np.exp(rest), np.exp(s)) for s in log_s] for rest in log_rest])
    rest, s = np.exp(log_rest)[:, None, None], np.exp(log_s)[:, None]
    found += 19 * np.log(1 - rest / 2) + 0.5 * np.log(rest) - np.log1p((s / 2) ** 2) - np.log1p((mu / 5) ** 2)
    found += np.log(rest) + np.log(s) + np.log(np.cosh(arc))  # volume of the grid's cells
    weights = np.exp(found - found.max())
    return weights / weights.sum(), 1 - rest, s, mu


def rows(name: str, sizes: tuple[int, int, int]) -> list[str]:
    """Return the table's rows of one reference."""
    given = json.loads((FOLDER / f"{name}.json").read_text())
    reference, states = given["reference"], given["reference"]["log_volatility"]["mean"]
    x = np.arange(min(states) - BEYOND, max(states) + BEYOND, STEP)
    y = np.asarray(given["data"]["centered_returns"], dtype=float)
    weights, phi, s, mu = posterior(y, x, reference["mean_log_volatility"]["mean"], sizes)
    found = []
    values = {"mean_log_volatility": mu, "persistence_of_volatility": phi, "white_noise_shock_scale": s}
    for number, value in values.items():
        mean = float((weights * value).sum())
        spread = float(np.sqrt((weights * (value - mean) ** 2).sum()))
        known = reference[number]
        found.append(f"| {name} | {number} | {mean:.4f} | {spread:.4f} | {known['mean']:.4f} | {known['sd']:.4f} | |")
    middle = float((weights * mu).sum())
    far = np.abs(mu - middle) > FAR
    variance = (weights * (mu - middle) ** 2).sum()
    share, of_variance = float((weights * far).sum()), float((weights * far * (mu - middle) ** 2).sum() / variance)
    found[0] = found[0][:-2] + f" {100 * share:.1f}% of the mass, {100 * of_variance:.0f}% of the variance |"
    return found


def main() -> None:
    """Integrate, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs=3, default=(28, 16, 51), help="of the grid: phi, s, mu")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "volatility_quadrature.md")
    options = parser.parse_args()
    start, sizes = time.process_time(), tuple(options.sizes)
    lines = [line for name in NAMES for line in rows(name, sizes)]
    head = [
        "# Stochastic volatility by quadrature",
        "",
        f"`python benchmarks/volatility_quadrature.py --sizes {' '.join(map(str, sizes))}`: the posterior by a "
        "filter on a grid of states within a grid of the three numbers, beside the reference; how much of it lies more "
        f"than {FAR:g} from the mean. numpy {np.__version__}, {platform.machine()}, "
        f"{time.process_time() - start:.0f} s of one core.",
        "",
        "| posterior | number | mean | sd | reference's mean | its sd | far out |",
        "|---|---|---|---|---|---|---|",
    ]
    options.out.write_text("\n".join([*head, *lines]) + "\n")


if __name__ == "__main__":
    main()
