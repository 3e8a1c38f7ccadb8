"""Regressions on stimulus and spike history: what a state-space model has to beat.

    eta_t = b + sum_l k_l . stimulus_{t-l} + sum_m w_m counts_{t-m},   l = 0..29,  m = 1..20  (in bins)
    counts_t ~ Poisson(exp(eta_t)),  or, as no bin holds two spikes,  Bernoulli(sigmoid(eta_t))

`python examples/grasshopper/baselines.py` prints the table for both recordings.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import bernoulli, poisson
from sklearn.linear_model import LogisticRegression, PoissonRegressor
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

Array = NDArray[np.float64]

STIMULUS_LAGS = 30  # bins, the present one included
HISTORY_LAGS = 20  # bins, the present one excluded
RIDGES = tuple(float(r) for r in np.logspace(-6, -1, 11))  # penalties on the standardised weights
LOG_PROB = {"poisson": poisson.logpmf, "bernoulli": bernoulli.logpmf}
BLOCK = 100  # bins per block of the standard error: much longer than the receptor's memory for its own spikes


@dataclass(frozen=True)
class Baseline:
    """A regression scored one step ahead on the test stretch. Log-probabilities are in nats per bin."""

    name: str
    rate: Array  # (test time,) expected count per bin given the stimulus and the spikes before the bin
    log_prob: Array  # (test time,)
    null_log_prob: Array  # (test time,) under the mean rate of the test stretch
    num_spikes: int
    ridge: float
    validation_bits_per_spike: float

    @property
    def bits_per_spike(self) -> float:
        """Gain in log-probability over the mean rate, in bits per spike."""
        return float((self.log_prob - self.null_log_prob).sum() / (self.num_spikes * np.log(2)))

    @property
    def standard_error(self) -> float:
        """Standard error of ``bits_per_spike`` over blocks of bins."""
        return block_standard_error((self.log_prob - self.null_log_prob) / np.log(2), self.num_spikes)


def design(counts: Array, stimulus: Array, *, stimulus_lags: int, history_lags: int) -> Array:
    """Regressors (time, feature): stimulus at lags 0, 1, ..., counts at lags 1, 2, ...; zeros before the start.

    Args:
        counts: spikes per bin, (time,).
        stimulus: stimulus features, (time, feature).
        stimulus_lags: number of bins of stimulus, the present one included.
        history_lags: number of bins of past counts; 0 for none.
    """
    columns = [_delayed(stimulus, lag) for lag in range(stimulus_lags)]
    columns += [_delayed(counts[:, None], lag) for lag in range(1, history_lags + 1)]
    return np.concatenate(columns, axis=1)


def fit_baseline(
    name: str,
    counts: NDArray[np.integer],
    stimulus: Array,
    *,
    train: slice,
    validation: slice,
    test: slice,
    history_lags: int = 0,
    family: str = "poisson",
    stimulus_lags: int = STIMULUS_LAGS,
    ridges: tuple[float, ...] = RIDGES,
) -> Baseline:
    """Choose the ridge on the validation stretch, refit on training and validation together, score the test stretch.

    Args:
        name: how the table calls it.
        counts: spikes per bin, (time, 1).
        stimulus: stimulus features, (time, feature).
        train, validation, test: consecutive slices of bins.
        history_lags: bins of spike history; 0 for none.
        family: "poisson" or "bernoulli".
        stimulus_lags: bins of stimulus history, the present one included.
        ridges: penalties on the standardised weights to choose from.
    """
    y = counts[:, 0].astype(float)
    x = design(y, stimulus, stimulus_lags=stimulus_lags, history_lags=history_lags)
    # The first bins have no full history to regress on.
    train = slice(train.start + max(stimulus_lags, history_lags), train.stop)
    chosen_on = {
        ridge: _bits(_fit(x[train], y[train], ridge, family)(x[validation]), y[validation], family) for ridge in ridges
    }
    ridge = max(chosen_on, key=chosen_on.__getitem__)
    both = slice(train.start, validation.stop)
    rate = _fit(x[both], y[both], ridge, family)(x[test])
    log_prob = LOG_PROB[family]
    return Baseline(
        name=name,
        rate=rate,
        log_prob=log_prob(y[test], rate),
        null_log_prob=log_prob(y[test], y[test].mean()),
        num_spikes=int(y[test].sum()),
        ridge=ridge,
        validation_bits_per_spike=chosen_on[ridge],
    )


def grasshopper_baselines(
    counts: NDArray[np.integer], stimulus: Array, *, train: slice, validation: slice, test: slice
) -> list[Baseline]:
    """The rows of the table: mean amplitude alone or with its logarithm, without and with history; Bernoulli last.

    Args:
        counts: spikes per bin, (time, 1).
        stimulus: mean amplitude and mean log amplitude per bin, (time, 2).
        train, validation, test: consecutive slices of bins.
    """
    rows = [
        fit_baseline(
            f"GLM, {stimulus_name}" + (", spike history" if history_lags else ""),
            counts,
            features,
            train=train,
            validation=validation,
            test=test,
            history_lags=history_lags,
        )
        for stimulus_name, features in [("amplitude", stimulus[:, :1]), ("amplitude and log amplitude", stimulus)]
        for history_lags in (0, HISTORY_LAGS)
    ]
    last = fit_baseline(
        f"{rows[-1].name}, Bernoulli",
        counts,
        stimulus,
        train=train,
        validation=validation,
        test=test,
        history_lags=HISTORY_LAGS,
        family="bernoulli",
    )
    return [*rows, last]


def block_standard_error(gains: Array, num_spikes: int, block: int = BLOCK) -> float:
    """Standard error of ``gains.sum() / num_spikes`` from the scatter of consecutive blocks, taken as independent.

    Args:
        gains: per-bin gains or paired differences, (time,); a last incomplete block is left out of the scatter.
        num_spikes: spikes in the scored stretch.
        block: bins per block.
    """
    blocks = gains[: len(gains) // block * block].reshape(-1, block).sum(axis=1)
    return float(np.sqrt(len(blocks) * blocks.var(ddof=1)) / num_spikes)


def format_table(baselines: list[Baseline]) -> str:
    """One line per regression: bits per spike on the test stretch with its block standard error."""
    width = max(len(baseline.name) for baseline in baselines)
    lines = [f"{'model':<{width}}  bits/spike  (s.e.)  validation  ridge"]
    for b in baselines:
        lines.append(
            f"{b.name:<{width}}  {b.bits_per_spike:10.3f}  ({b.standard_error:.3f}) "
            f" {b.validation_bits_per_spike:9.3f}  {b.ridge:g}"
        )
    return "\n".join(lines)


def _fit(x: Array, y: Array, ridge: float, family: str) -> Callable[[Array], Array]:
    """Fit, and return the expected count as a function of the regressors."""
    if family == "poisson":
        return (
            make_pipeline(StandardScaler(), PoissonRegressor(alpha=ridge, solver="newton-cholesky")).fit(x, y).predict
        )
    # scikit-learn penalises the sum of losses by 1 / (2 C) here and their mean by alpha / 2 there
    classifier = LogisticRegression(C=1 / (ridge * len(y)), solver="newton-cholesky", max_iter=1000)
    fitted: Pipeline = make_pipeline(StandardScaler(), classifier).fit(x, y)
    return lambda inputs: fitted.predict_proba(inputs)[:, 1]


def _bits(rate: Array, y: Array, family: str) -> float:
    gain = LOG_PROB[family](y, rate) - LOG_PROB[family](y, y.mean())
    return float(gain.sum() / (y.sum() * np.log(2)))


def _delayed(values: Array, lag: int) -> Array:
    return np.concatenate([np.zeros((lag, values.shape[1])), values[: len(values) - lag]])


def main() -> None:
    """Print the table of both recordings."""
    from data import load_recordings, stretches  # beside this file: it is on the path when this one runs as a script

    for recording in load_recordings():
        parts = stretches(len(recording.counts))
        rows = grasshopper_baselines(
            recording.counts, recording.stimulus, train=parts.train, validation=parts.validation, test=parts.test
        )
        print(f"{recording.name}: one step ahead on the last {len(rows[0].rate)} bins, {rows[0].num_spikes} spikes")
        print(format_table(rows), end="\n\n")


if __name__ == "__main__":
    main()
