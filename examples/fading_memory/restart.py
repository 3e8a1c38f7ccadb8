"""What the gates of a GRU do at a planted change, from which on the past is worth nothing."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from sklearn.linear_model import RidgeCV

import latentrnn as lr
from examples.simulate import Array, Restarts, restarts

AROUND = np.arange(-4, 7)  # steps from a cue


class Gates(NamedTuple):
    """What a fit does around a cue, means of all units."""

    reset: Array  # (step,), by `AROUND`: how much of the past the candidate hears
    update: Array  # (step,), the candidate's share in the new state
    passed: Array  # (step,), root mean square singular value of d h_t / d h_{t-1}: how much of the past gets through
    explained: float  # share of the memory's variance

    def change(self, gate: str) -> tuple[float, float]:
        """Before a cue, and at it."""
        values = getattr(self, gate)
        return float(values[AROUND < 0].mean()), float(values[AROUND == 0][0])


def around(values: Array, cue: Array) -> Array:
    """Average values, (trial, time), by steps from the cues that have no other one near, (step,)."""
    reach = max(-AROUND[0], AROUND[-1])
    alone = [
        (trial, t)
        for trial, t in np.argwhere(cue > 0)
        if reach <= t < cue.shape[1] - reach and cue[trial, t - reach : t + reach + 1].sum() == 1
    ]
    return np.mean([values[trial, t + AROUND] for trial, t in alone], 0)


def opened(seed: int, steps: int, *, informative: bool) -> Gates:
    """Fit a GRU to a memory that cues empty, or that goes on through them, and open it on trials of its own."""
    train, test = (restarts(each, 200, informative=informative) for each in (seed, seed + 100))
    seen = [
        lr.SequenceData.from_arrays({"response": each.response}, {"x": each.inputs, "cue": each.cue})
        for each in (train, test)
    ]
    heads = {"response": lr.Gaussian()}
    model = lr.LatentRNN(seen[0].spec, transition=lr.GRU(6), latent=lr.Deterministic(), observations=heads)
    optimizer, quiet = lr.AdamW(1e-2, weight_decay=0.0), lr.Reporting(progress=False)
    settings = {"batch_size": 50, "optimizer": optimizer, "reporting": quiet}
    result = lr.fit(model, lr.Guide(model), seen[0], steps=steps, seed=seed, **settings)
    posterior = result.posterior(seen[1])
    gates = lr.interpret.trace(posterior, 1).isel(sample=0)
    passed = lr.interpret.jacobians(posterior, "output", "state", num_samples=1).total[0]
    units, through = gates.sizes["unit"], np.linalg.norm(passed, axis=(-2, -1))
    of_all = (gates.reset.mean("unit").values, gates["update"].mean("unit").values, through / units**0.5)
    errors = posterior.mean("response", 1).numpy() - test.memory
    curves = (around(each, test.cue[..., 0]) for each in of_all)
    return Gates(*curves, float(1 - np.mean(errors**2) / test.memory.var()))


def by_regression(seed: int, lags: int = 40) -> float:
    """Variance of the memory that ridge regression on lags of inputs and cues explains, where cues tell."""

    def rows(found: Restarts) -> Array:
        x = np.concatenate([found.inputs, found.cue], -1)
        padded = np.concatenate([np.zeros((len(x), lags, 2)), x], 1)
        return np.concatenate([padded[:, lags - k : padded.shape[1] - k] for k in range(lags)], -1).reshape(
            -1, 2 * lags
        )

    train, test = restarts(seed, 200), restarts(seed + 100, 200)
    ridge = RidgeCV(np.logspace(-2, 4, 13)).fit(rows(train), train.response.ravel())
    return float(ridge.score(rows(test), test.memory.ravel()))
