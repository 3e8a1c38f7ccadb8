# %% [markdown]
# # When is an input gate attention?
#
# The input gate i_t of an LSTM is often read as attention: how much of the stimulus gets in. If so, a small change of
# the stimulus should move the cell in proportion to it: one with the gates held where they were, or with gates free:
#
#     held: |d c_t / d x_t| = i_t (1 - g_t^2) |W_g|,   free: + f_t (1 - f_t) c_{t-1} W_f + i_t (1 - i_t) g_t W_i
#
# Two memories are planted. In one a cue alone opens the gate; in the other what stands out of the stimulus does so too:
#
#     m_t = exp(-dt / tau) m_{t-1} + a_t x_t,   a_t = sigmoid(4 cue_t + own * x_t),   y_t ~ Normal(m_t, 0.3)
#
# so that the true sensitivities are a_t with gates held, and a_t + own * x_t a_t (1 - a_t) with gates free. A fitted
# LSTM of one unit is asked for both. Simulated: `python examples/input_attention/demo.py --out build/attention`.

# %%
from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # where `examples` is

import numpy as np
from matplotlib import pyplot
from sklearn.linear_model import RidgeCV

import latentrnn as lr
from examples.gallery import Result, options
from examples.simulate import Array, Attention, attention

WORLDS = {"cue alone": 0.0, "cue and stimulus": 3.0}  # by name: `own`


def opened(found: Attention, seed: int, steps: int) -> dict[str, Array]:
    """Fit an LSTM, and return its input gate and how far the stimulus moves the cell, gates held and free."""
    covariates = {"stimulus": found.stimulus, "cue": found.cue}
    data = lr.SequenceData.from_arrays({"response": found.response}, covariates, dt=found.dt)
    heads = {"response": lr.Gaussian()}
    model = lr.LatentRNN(data.spec, transition=lr.LSTM(1), latent=lr.Deterministic(), observations=heads)
    settings = {"optimizer": lr.AdamW(2e-2, weight_decay=0.0), "reporting": lr.Reporting(progress=False)}
    result = lr.fit(model, lr.Guide(model), data, steps=steps, seed=seed, batch_size=128, **settings)
    posterior = result.posterior(data)
    slopes = lr.interpret.jacobians(posterior, "cell", "input", num_samples=1).isel(sample=0, of=0).sel(by="stimulus")
    gate = lr.interpret.trace(posterior, 1).input.values[0, ..., 0]
    return {"gate": gate, "held": slopes.direct.values, "free": slopes.total.values}


def on_logs(gate: Array, slope: Array) -> tuple[float, float]:
    """Correlation of a sensitivity's logarithm with the gate's, and the slope of the one on the other."""
    x, y = np.log(gate.ravel()), np.log(np.abs(slope).ravel())
    return float(np.corrcoef(x, y)[0, 1]), float(np.polyfit(x, y, 1)[0])


def agree(one: Array, other: Array) -> float:
    return abs(float(np.corrcoef(one.ravel(), other.ravel())[0, 1]))


def by_regression(found: Attention, lags: int = 20) -> Array:
    """Sensitivity of the response to the stimulus of the same bin by ridge regression on lags of x and of x * cue."""
    x = np.concatenate([found.stimulus, found.stimulus * found.cue], -1)
    padded = np.concatenate([np.zeros((len(x), lags, 2)), x], 1)
    rows = np.concatenate([padded[:, lags - lag : padded.shape[1] - lag] for lag in range(lags)], -1)
    weights = RidgeCV(np.logspace(-2, 4, 13)).fit(rows.reshape(-1, 2 * lags), found.response.ravel()).coef_
    return weights[0] + weights[1] * found.cue[..., 0]


def spread(values: Sequence[float], form: str = ".3f") -> str:
    return f"{np.mean(values):{form}} [{min(values):{form}}, {max(values):{form}}]"


def main() -> None:
    """Fit both worlds, check the claim, and draw."""
    given = options(__file__)
    (trials, seeds, steps), told, baselines, drawn = (60, 1, 500) if given.smoke else (100, 3, 600), [], [], {}
    for world, own in WORLDS.items():
        found = attention(0, trials, own=own) if own else attention(0, trials)
        truth = found.gate[..., 0]
        whole = truth + own * found.stimulus[..., 0] * truth * (1 - truth)
        fits = [opened(found, seed, steps) for seed in range(seeds)]
        held, free = ([on_logs(fit["gate"], fit[path]) for fit in fits] for path in ("held", "free"))
        attends = [agree(fit["gate"], truth) for fit in fits]
        answers = [agree(fit["free"], whole) for fit in fits]
        drawn[world], ridge = fits[0], by_regression(found)
        (rs, slopes), (rs_free, _) = zip(*held, strict=True), zip(*free, strict=True)
        told.append(
            f"{world}: held r {spread(rs)}, slope {spread(slopes, '.2f')}; free r {spread(rs_free)}; input gate "
            f"against planted gate r {spread(attends)}, free path against planted derivative r {spread(answers)}"
        )
        baselines.append(f"{world}: r {agree(ridge, truth):.3f} and {agree(ridge, whole):.3f}")
        print(told[-1], "; regression", baselines[-1], flush=True)
        assert min(attends) > (0.9 if given.smoke else 0.95), f"{world}: the input gate should be the planted attention"
        assert min(rs) > (0.98 if given.smoke else 0.99), f"{world}: held, it should be the input gate"
        assert max(abs(slope - 1) for slope in slopes) < 0.1, f"{world}: its slope should be one"
        assert not own or max(rs_free) < 0.95, "with gates free it should be another"
        assert min(answers) > (0.85 if given.smoke else 0.95), f"{world}: free, it should be the response's derivative"

    figure, axes = pyplot.subplots(1, 4, figsize=(13, 3.2), layout="constrained")
    for panels, (world, fit) in zip((axes[:2], axes[2:]), drawn.items(), strict=True):
        paths = {"gates held": fit["held"], "gates free": fit["free"]}
        lr.plotting.gate_sensitivity(fit["gate"], paths, name=f"input gate, {world}", axes=panels)
    figure.savefig(given.out / "input_attention.png", dpi=80)
    Result(
        claim="with gates held the cell's sensitivity to the stimulus is its input gate; with gates free it is not, "
        "where the gate reads the stimulus, but the response's derivative (mean [lowest, highest] of seeds)",
        found="; ".join(told),
        baseline="ridge regression on lags of stimulus and of stimulus times cue, against planted gate and derivative: "
        + "; ".join(baselines),
    ).write(given.out)


if __name__ == "__main__":
    main()

# %% [markdown]
# So an input gate is attention in one sense: it says what is let in of a stimulus as it is. It does not say how the
# response would change with another stimulus, where the gate listens to that stimulus itself: ask for the total path.
#
# What to try next: more units, of which some saturate; `lr.interpret.clamp("input", 1.0)`, full attention.
