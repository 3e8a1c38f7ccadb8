# %% [markdown]
# # Forecasts with intervals, checked on what came afterwards
#
# A noisy van der Pol oscillator, of which the position is observed with noise at every 0.3 time units. A GRU with a
# stochastic state is fitted to short recordings; then it sees 40 steps of new ones and says what the next 20 will be,
# as samples of whole paths:
#
#     h_t = GRU(h_{t-1}, z_t),   z_t ~ N(0, diag(scale^2)),   y_t ~ N(w . h_t + b, sigma^2)
#
# Are the intervals honest, and are the forecasts better than the naive ones? Simulated:
# `python examples/forecasting/demo.py --out build/forecasting`.

# %%
from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import torch
from numpy.typing import NDArray

import latentrnn as lr

PAST, HORIZON, SAMPLES = 40, 20, 200


# %%
def simulate(rng: np.random.Generator, sequences: int, steps: int) -> NDArray[np.float64]:
    """Positions, (sequence, time, 1), of dx = v dt, dv = ((1 - x^2) v - x) dt + 0.3 dW, every tenth step of 0.03."""
    x, v = 1.5 * rng.normal(size=(2, sequences))
    dt, path = 0.03, []
    for _ in range((steps + 20) * 10):
        x, v = x + dt * v, v + dt * ((1 - x**2) * v - x) + 0.3 * dt**0.5 * rng.normal(size=sequences)
        path.append(x)
    kept = np.stack(path[200:], 1)[:, 9::10, None]
    return kept + 0.1 * rng.normal(size=kept.shape)


# %%
def main() -> None:
    """Fit, forecast, and score the forecasts on what came afterwards."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, default=Path("build/forecasting"))
    parser.add_argument("--smoke", action="store_true", help="a few steps only: does it run at all?")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)

    rng = np.random.default_rng(0)
    train, validation = (lr.SequenceData.from_arrays({"y": simulate(rng, n, 60)}) for n in (200, 40))
    new = simulate(rng, 100, PAST + HORIZON)
    test, later = lr.SequenceData.from_arrays({"y": new[:, :PAST]}), torch.as_tensor(new[:, PAST:])

    model = lr.LatentRNN(
        train.spec, transition=lr.GRU(24), latent=lr.Innovations(2, initial=4), observations={"y": lr.Gaussian()}
    )
    guide = lr.Guide(model, encoder=lr.RNNEncoder(24), family=lr.Markov())
    result = lr.fit(
        model,
        guide,
        train,
        validation,
        steps=30 if options.smoke else 2000,
        optimizer=lr.AdamW(5e-3),
        reporting=lr.Reporting(progress=False),
    )
    print(result.stop_reason)

    forecast = result.posterior(test).forecast(HORIZON, num_samples=SAMPLES)
    inside = forecast.coverage("y", later, level=0.9).mean(0)[:, 0]  # share of sequences, by horizon
    ours = forecast.crps("y", later).mean(0)[:, 0]
    naive = lr.crps(persistence(train, test), later).mean(0)[:, 0]
    print("\nsteps ahead   CRPS   CRPS of persistence   90% intervals hold")
    for step in (1, 2, 5, 10, 20):
        print(f"{step:11d} {ours[step - 1]:6.3f} {naive[step - 1]:21.3f} {inside[step - 1]:20.2f}")
    print(f"all steps: {inside.mean():.3f} of 90% intervals hold what came")
    if not options.smoke:
        assert ours.mean() < naive.mean(), "forecasts should beat persistence"
        assert 0.8 < inside.mean() < 0.97, "90% intervals should hold about 90%"

    draw(forecast, new, options.out / "forecast.png")


def persistence(train: lr.SequenceData, test: lr.SequenceData) -> torch.Tensor:
    """Samples of the naive forecast: the last value, plus changes over as many steps that the training data show."""
    values, last = train.observations["y"], test.observations["y"][:, -1]
    draws = []
    for step in range(1, HORIZON + 1):
        changes = (values[:, step:] - values[:, :-step]).flatten()
        picked = changes[torch.linspace(0, len(changes) - 1, SAMPLES).long()].sort().values
        draws.append(last + picked[:, None, None])
    return torch.stack(draws, 2)


def draw(forecast: lr.Forecast, new: NDArray[np.float64], path: Path) -> None:
    """What came, in black, over the 50% and 90% intervals of four forecasts."""
    figure, rows = plt.subplots(2, 2, figsize=(9, 5), sharex=True, sharey=True, layout="constrained")
    low, lower, median, upper, high = forecast.quantiles("y", [0.05, 0.25, 0.5, 0.75, 0.95])[..., 0]
    past, ahead = np.arange(PAST), np.arange(PAST, PAST + HORIZON)
    for i, axes in enumerate(rows.flat):
        axes.plot(past, new[i, :PAST, 0], color="gray")
        axes.fill_between(ahead, low[i], high[i], color="C0", alpha=0.25, linewidth=0, label="90%")
        axes.fill_between(ahead, lower[i], upper[i], color="C0", alpha=0.4, linewidth=0, label="50%")
        axes.plot(ahead, median[i], color="C0", label="median")
        axes.plot(ahead, new[i, PAST:, 0], "k.", markersize=4, label="what came")
    rows[0, 0].legend(fontsize=8, loc="lower left")
    figure.supxlabel("step")
    figure.supylabel("position")
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()

# %% [markdown]
# What to try next: `latent=lr.Deterministic()` with `feedback=lr.History(1, filters=1)`, whose only noise is in what is
# fed back; covariates of the future through `forecast(covariates=...)`; the score of densities, `forecast.log_score`.
