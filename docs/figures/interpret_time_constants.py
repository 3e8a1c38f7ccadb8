"""Draw interpret_time_constants.png: units of an LSTM that was fitted to a planted memory of 195 ms that also turns.

Run from the repository: `python docs/figures/interpret_time_constants.py`.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # where `latentrnn` is

import matplotlib

matplotlib.use("Agg")

import numpy as np
from matplotlib import pyplot

import latentrnn as lr


def planted(seed: int = 0, sequences: int = 60, steps: int = 100, dt: float = 0.01) -> lr.SequenceData:
    """Two memories of a noisy stimulus: one leaks with 195 ms, the other also turns at 3 Hz."""
    rng = np.random.default_rng(seed)
    stimulus = rng.normal(size=(sequences, steps))
    kept = np.exp(-dt / 0.195)
    turn = kept * np.exp(2j * np.pi * 3.0 * dt)
    leaky, turning = np.zeros((sequences, steps)), np.zeros((sequences, steps), complex)
    for t in range(steps):
        leaky[:, t] = stimulus[:, t] + (kept * leaky[:, t - 1] if t else 0)
        turning[:, t] = stimulus[:, t] + (turn * turning[:, t - 1] if t else 0)
    values = np.stack([leaky, turning.real, turning.imag], -1) + 0.2 * rng.normal(size=(sequences, steps, 3))
    return lr.SequenceData.from_arrays({"v": values}, {"stimulus": stimulus[..., None]}, dt=dt)


def main() -> None:
    """Fit, measure and draw."""
    data = planted()
    heads = {"v": lr.Gaussian()}
    model = lr.LatentRNN(data.spec, transition=lr.LSTM(6), latent=lr.Deterministic(), observations=heads)
    fitted = lr.fit(
        model,
        lr.Guide(model),
        data,
        steps=1500,
        seed=0,
        optimizer=lr.AdamW(2e-2),
        reporting=lr.Reporting(progress=False),
    )
    posterior = fitted.posterior(data[:10])
    found = lr.interpret.time_constants(posterior, num_samples=1, disagreement=None)
    modes = lr.interpret.spectrum(posterior, num_samples=1).isel(time=slice(20, None, 5))
    print(f"median tau: {found.tau.median(('sample', 'sequence', 'time')).values.round(3)}")
    print(
        f"by the Jacobians: {float(found.jacobian_tau.median()):.3f} s, gates' over theirs {found.disagreement.values}"
    )
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(8.0, 3.0), layout="constrained")
    taus = found.tau.values.reshape(-1, found.sizes["unit"])
    lr.plotting.time_constants(taus, jacobian=found.jacobian_tau.values, plausible=(0.1, 0.4), ax=left)
    lr.plotting.spectrum(modes.frequency.values, modes.time_constant.values, ax=right)
    right.plot([0.0, 3.0], [0.195, 0.195], "+", color="black", markersize=12, label="planted")
    right.legend(fontsize="small", frameon=False)
    figure.savefig(Path(__file__).with_suffix(".png"), dpi=110)
    pyplot.close(figure)


if __name__ == "__main__":
    main()
