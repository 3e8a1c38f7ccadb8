"""Iterated against direct forecasts: one model that runs on its own samples, or one model per horizon.

`python benchmarks/forecasts.py` writes `benchmarks/results/forecasts.md`. A van der Pol oscillator with noise in its
velocity, of which the position is observed with noise: 60 sequences of 60 steps to fit, 20 to decide when to stop, 200
to forecast once each. The iterated model feeds its own samples back; the direct one maps y_{<=t} to y_{t+h}. Both are
the same network with the same likelihood, without randomness in the state.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

import latentrnn as lr

HORIZONS, SAMPLES, PAST = (1, 4, 8, 16), 200, 60
SETTINGS = {
    "steps": 800,
    "batch_size": 30,
    "optimizer": lr.AdamW(learning_rate=0.01),
    "reporting": lr.Reporting(progress=False),
    "compute": lr.Compute(device="cpu"),
}


def simulate(rng: np.random.Generator, sequences: int, steps: int) -> NDArray[np.float64]:
    """Positions, (sequence, time, 1), with noise: dv = (mu (1 - x^2) v - x) dt + noise, at steps of 0.3."""
    x, v = rng.normal(size=(2, sequences)) * 1.5
    found, small = [], 0.03
    for _ in range((steps + 20) * 10):
        x, v = x + small * v, v + small * ((1 - x**2) * v - x) + 0.3 * small**0.5 * rng.normal(size=sequences)
        found.append(x)
    kept = np.stack(found[200:], 1)[:, 9::10, None]
    return kept + 0.1 * rng.normal(size=kept.shape)


def iterated(parts: list[NDArray[np.float64]], seed: int) -> dict[int, torch.Tensor]:
    """Samples of y_{T+h} for every horizon, (sample, sequence, 1, 1), from one model."""
    train, valid, test = (lr.SequenceData.from_arrays({"y": part[:, :PAST]}) for part in parts)
    model = lr.LatentRNN(
        train.spec,
        transition=lr.GRU(32),
        latent=lr.Deterministic(),
        observations={"y": lr.Gaussian(feedback=lr.History(1, filters=1))},
    )
    result = lr.fit(model, lr.Guide(model), train, valid, seed=seed, **SETTINGS)
    paths = result.posterior(test).forecast(max(HORIZONS), num_samples=SAMPLES).samples["y"]
    return {h: paths[:, :, h - 1 : h] for h in HORIZONS}


def direct(parts: list[NDArray[np.float64]], seed: int, horizon: int) -> torch.Tensor:
    """Samples of y_{T+h}, (sample, sequence, 1, 1), from a model of that horizon; it is fitted to y_{<=T} alone too."""

    def pairs(part: NDArray[np.float64], last: int) -> lr.SequenceData:
        return lr.SequenceData.from_arrays({"ahead": part[:, horizon:last]}, {"y": part[:, : last - horizon]})

    train, valid = (pairs(part, PAST) for part in parts[:2])
    test = pairs(parts[2], PAST + horizon)
    model = lr.LatentRNN(
        train.spec, transition=lr.GRU(32), latent=lr.Deterministic(), observations={"ahead": lr.Gaussian()}
    )
    result = lr.fit(model, lr.Guide(model), train, valid, seed=seed, **SETTINGS)
    return result.posterior(test).predictive(SAMPLES)["ahead"][:, :, -1:]


def main() -> None:
    """Fit, forecast and write the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=3)
    seeds = parser.parse_args().seeds
    torch.set_num_threads(1)
    rows: dict[int, list[list[float]]] = {h: [] for h in HORIZONS}
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        parts = [simulate(rng, count, PAST + max(HORIZONS)) for count in (60, 20, 200)]
        past = lr.SequenceData.from_arrays({"y": parts[2][:, :PAST]})
        naive, climate = lr.persistence(past, 16).samples["y"], lr.climatology(past, 16).samples["y"]
        paths = iterated(parts, seed)
        for h in HORIZONS:
            truth = parts[2][:, PAST + h - 1 : PAST + h]
            rivals = paths[h], direct(parts, seed, h), naive[:, :, h - 1 : h], climate[:, :, h - 1 : h]
            scores = [float(lr.crps(each, truth).mean()) for each in rivals]
            inside = [float(lr.coverage(each, truth, level=0.9).mean()) for each in rivals[:2]]
            rows[h].append(scores + inside)
            print(seed, h, [f"{value:.3f}" for value in rows[h][-1]], flush=True)
    table = [
        f"| {h} | " + " | ".join(f"{v:.3f}" for v in np.mean(found, 0)) + " | "
        f"{sum(row[0] < row[1] for row in found)} of {seeds} |"
        for h, found in rows.items()
    ]
    page = [
        "# Iterated against direct forecasts",
        "",
        f"`python benchmarks/forecasts.py`: CRPS of y_(T+h), mean over {seeds} seeds (data and fits), none dropped; in "
        "the units of the",
        "data, whose observation noise is 0.1. Smaller is better. Coverage is of the central 90% interval.",
        "",
        "| h | iterated | direct | persistence | climatology | iterated covers | direct covers | iterated better in |",
        "|---|---|---|---|---|---|---|---|",
        *table,
        "",
    ]
    (Path(__file__).parent / "results" / "forecasts.md").write_text("\n".join(page))


if __name__ == "__main__":
    main()
