"""Draw `interpret_probe.png`: what of a stimulus's past the state of a fitted LSTM holds, beside control tasks."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np
import torch

import latentrnn as lr

LAGS = (0, 1, 2, 4, 8)


def main() -> None:
    """Fit to counts that follow a leaky sum of the stimulus, probe its past and a random walk, and draw."""
    matplotlib.use("Agg")
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    stimulus = rng.normal(size=(60, 60, 1))
    drive = np.zeros((60, 60))
    for t in range(60):
        drive[:, t] = 0.8 * drive[:, t - 1] * (t > 0) + stimulus[:, t, 0]
    counts = rng.poisson(np.exp(0.4 * drive[..., None] + np.zeros(5)))
    data = lr.SequenceData.from_arrays({"spikes": counts}, {"stimulus": stimulus}, dt=0.01)
    heads = {"spikes": lr.Poisson()}
    model = lr.LatentRNN(data.spec, transition=lr.LSTM(4), latent=lr.Deterministic(), observations=heads)
    quiet = lr.Reporting(progress=False)
    result = lr.fit(model, lr.Guide(model), data, steps=300, seed=0, optimizer=lr.AdamW(1e-2), reporting=quiet)

    past = np.full((60, 60, len(LAGS) + 1), np.nan)
    for place, lag in enumerate(LAGS):
        past[:, lag:, place] = stimulus[:, : 60 - lag, 0]
    past[..., -1] = rng.normal(size=(60, 60)).cumsum(1)
    found = lr.interpret.probe(result.posterior(data), past, controls=20)
    names = ["now", *(f"{10 * lag} ms ago" for lag in LAGS[1:]), "random walk"]
    print(dict(zip(names, found.score.mean("fold").values.round(2).tolist(), strict=True)), found.p_value.values)

    from matplotlib import pyplot

    figure, ax = pyplot.subplots(figsize=(6.0, 2.8), layout="constrained")
    lr.plotting.probe(found.score, found.control_score, names=names, metric="R²", ax=ax)
    ax.set_ylim(bottom=-0.6)
    figure.savefig(Path(__file__).with_suffix(".png"), dpi=130)


if __name__ == "__main__":
    main()
