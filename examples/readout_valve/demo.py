# %% [markdown]
# # An output gate as a valve between memory and response
#
# Working memory can be held without being acted upon: something decides when it is read. In an LSTM the output gate o_t
# is said to be that valve. If so, its effect on a neuron's log rate is known in closed form, and can be measured too:
#
#     log rate_t = b + sum_j w_j h_tj,   h_t = o_t tanh(c_t),   d log rate_t / d logit(o_t) = w tanh(c_t) o_t (1 - o_t)
#
# The gate matters most when it is half open and much is held, and not at all when it is shut or wide open. A memory and
# a valve that a cue opens are planted:
#
#     m_t = exp(-dt / tau) m_{t-1} + x_t / 2,   g_t = sigmoid(4 cue_t),   y_t ~ Poisson(exp(1.5 g_t tanh(m_t)))
#
# An LSTM of two units, fitted to counts, is asked for both. Simulated: `python examples/readout_valve/demo.py`.

# %%
from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # where `examples` is

import numpy as np
import torch
from matplotlib import pyplot
from sklearn.linear_model import PoissonRegressor

import latentrnn as lr
from examples.gallery import Result, options
from examples.simulate import Array, Valve, valve

WEIGHT = 1.5  # planted
QUIET = lr.Reporting(progress=False)


def as_sequences(found: Valve) -> lr.SequenceData:
    covariates = {"stimulus": found.stimulus, "cue": found.cue}
    return lr.SequenceData.from_arrays({"spikes": found.counts}, covariates, dt=found.dt, dtype=torch.float64)


def opened(found: Valve, others: Valve, seed: int, steps: int) -> tuple[Array, Array, float]:
    """Output gates of an LSTM (of three starts the best on other trials), the log rate's slope by them, its error."""
    data, heads = as_sequences(found), {"spikes": lr.Poisson()}
    model = lr.LatentRNN(data.spec, transition=lr.LSTM(2), latent=lr.Deterministic(), observations=heads).double()
    settings = {"batch_size": 256, "optimizer": lr.AdamW(2e-2, weight_decay=0.0), "reporting": QUIET}
    guide, starts = lr.Guide(model).double(), range(3 * seed, 3 * seed + 3)
    fits = [lr.fit(model, guide, data, steps=steps, seed=start, **settings) for start in starts]
    best = max(fits, key=lambda fit: float(fit.posterior(as_sequences(others)).evidence("exact").values.sum()))
    posterior = best.posterior(data)
    measured = lr.interpret.head_sensitivity(posterior, "spikes", "output", num_samples=1).isel(sample=0, output=0)
    traces = lr.interpret.trace(posterior, 1).isel(sample=0)
    weight = posterior.model.observations["spikes"].readout.weight.detach().numpy()[0]
    formula = weight * np.tanh(traces.cell) * traces.output * (1 - traces.output)
    return traces.output.values, measured.sensitivity.values, float(np.abs(measured.sensitivity - formula).max())


def by_regression(found: Valve, lags: int = 20) -> Array:
    """Slope of the log rate by the cue, by Poisson regression on lags of the stimulus and of stimulus times cue."""
    padded = np.concatenate([np.zeros((len(found.cue), lags, 1)), found.stimulus], 1)
    past = np.concatenate([padded[:, lags - lag : padded.shape[1] - lag] for lag in range(lags)], -1)
    rows = np.concatenate([past, past * found.cue], -1).reshape(-1, 2 * lags)
    fits = [PoissonRegressor(alpha=alpha, max_iter=1000) for alpha in (1e-4, 1e-3, 1e-2)]
    half = len(rows) // 2  # the penalty is chosen on the second half of the trials
    counts = found.counts.ravel()
    best = max(fits, key=lambda fit: fit.fit(rows[:half], counts[:half]).score(rows[half:], counts[half:]))
    return past @ best.fit(rows, counts).coef_[lags:]


def agree(one: Array, other: Array) -> float:
    return float(np.corrcoef(one.ravel(), other.ravel())[0, 1])


def spread(values: Sequence[float]) -> str:
    return f"{np.mean(values):.3f} [{min(values):.3f}, {max(values):.3f}]"


def main() -> None:
    """Fit, measure, check the claim, and draw."""
    given = options(__file__)
    trials, seeds, steps = (100, given.seeds(1), 400) if given.smoke else (150, given.seeds(3), 500)
    found, others = valve(0, trials), valve(1, 50)
    gate, memory = found.gate[..., 0], found.memory[..., 0]
    planted = WEIGHT * np.tanh(memory) * gate * (1 - gate)
    gates, slopes, errors = zip(*(opened(found, others, seed, steps) for seed in seeds), strict=True)
    opens = [max(agree(each[..., unit], gate) for unit in range(2)) for each in gates]
    follows = [agree(slope.sum(-1), planted) for slope in slopes]
    baseline = agree(by_regression(found), planted)
    print(f"off by {max(errors):.1e}; gates {spread(opens)}, slopes {spread(follows)}; regression {baseline:.3f}")

    assert max(errors) < 1e-6, "the derivative should be w tanh(c) o (1 - o)"
    assert min(opens) > (0.85 if given.smoke else 0.95), "an output gate should be the planted valve"
    assert np.mean(follows) > (0.75 if given.smoke else 0.9), "and its effect should be the planted one"
    assert given.smoke or min(follows) > baseline, "which it should be in every seed more than a regression's"

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(8, 3.2), layout="constrained")
    left.plot(planted.ravel()[::3], slopes[0].sum(-1).ravel()[::3], ".", color="#0072B2", markersize=3, alpha=0.3)
    left.axline((0, 0), slope=1, color="#D55E00", linewidth=1)
    left.set(xlabel="planted d log rate / d logit", ylabel="measured, sum over units")
    shown = right.scatter(gate.ravel()[::3], slopes[0].sum(-1).ravel()[::3], 3, memory.ravel()[::3], cmap="cividis")
    right.set(xlabel="planted valve", ylabel="measured d log rate / d logit")
    figure.colorbar(shown, ax=right, label="memory")
    figure.savefig(given.out / "readout_valve.png", dpi=80)
    Result(
        claim="the measured derivative of the log rate by the logit of an LSTM's output gate is w tanh(c) o (1 - o) to "
        "1e-6, and follows that of the planted valve (mean [lowest, highest] of seeds, each the best of three starts)",
        found=f"off by at most {max(errors):.0e}; output gate against the planted valve r {spread(opens)}; derivative "
        f"against the planted one r {spread(follows)}",
        baseline="Poisson regression on lags of stimulus and of stimulus times cue: derivative by the cue against the "
        f"planted one r {baseline:.3f}",
    ).write(given.out)


if __name__ == "__main__":
    main()

# %% [markdown]
# What to try next: one unit alone, which one of two seeds fitted by its other gates; `clamp("output", 0.0)`.
