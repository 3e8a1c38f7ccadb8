"""Gain and adaptation of two recordings, as fits open them: which share is gain, how fast the response adapts.

`python benchmarks/adaptation.py` writes `benchmarks/results/adaptation.md`. The locust's spikes are read from the
folder LATENTRNN_SHARED or ../shared, data/locust_odour; the grasshopper's come with nitime.

- A receptor of a grasshopper (recording 1): its stimulus is a tone whose level is noise of 6 dB. Asked is what the rate
  does if from some step on the level is 6 dB higher, averaged over 196 stretches of the recorded noise.
- The antennal lobe of a locust, 20 odours of 25 trials, which odour is told to no model: what odour does to those units
  that it excites, up to its end after 1 s.

Models are GRUs with a gated stimulus gain, `lr.fit_ensemble` with all settings at their defaults; a weight of the
readout is free, or held back by a prior, Normal(0, 0.1), so that the gain can say what the readout can say as well.
Beside them stand estimates without a state: the average of the locust's test trials, trials drawn anew; of the
grasshopper, whose stimulus has no steps, a Poisson regression on the stimulus's past, blocks of 500 ms drawn anew, its
lags and penalty chosen on the validation stretch. Intervals are of 90%; those of fits are over draws and seeds.
"""

from __future__ import annotations

import argparse
import platform
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # where `examples` is

import numpy as np
import pyro.distributions as dist
import torch
import xarray
from numpy.typing import NDArray
from scipy.optimize import curve_fit
from sklearn.linear_model import PoissonRegressor

import latentrnn as lr
from benchmarks.network_priors import BIN, TRIALS, locust_counts
from examples.grasshopper import data as receptor
from examples.grasshopper.models import CONTEXT, WARM_UP, WINDOW, as_sequences
from latentrnn.interpret import adaptation, contrast, do, gain_share

ROOT = Path(__file__).resolve().parents[1]
Array = NDArray[np.float64]
QUIET = lr.Reporting(progress=False)
READOUTS = {"free": {}, "held back": {"weight": dist.Normal(0.0, 0.1)}}  # priors of what the gain competes with
BINS = {"grasshopper": {"steady": 50, "within": 30}, "locust": {"steady": 5, "within": 12}}  # of plateau and peak
STRETCH, STEP, EVERY = 250, 100, 50  # bins of a stretch of noise, before its level rises, and from one to the next
DECIBELS = 6 * np.log(10.0) / 20  # by so much, in logarithms of an amplitude
LAGS = (30, 100)  # bins, of the regression
PENALTIES = (0.003, 0.01, 0.03, 0.1, 0.3)
ODOUR = slice(10, 30)  # bins of a trial in which it is there


class Found(NamedTuple):
    """What a kind of fit, or an estimate without a state, says of a response, by draw."""

    response: Array  # (sample, time) from the onset on, expected spikes per bin above those without it
    speed: xarray.Dataset  # of `adaptation`
    share: Array  # (sample,), of the linear predictor's variance that the gain makes; empty without a gain
    dt: float


def found_of(system: str, response: Array, dt: float, share: Array | None = None) -> Found:
    """Ask `adaptation` of responses that begin at their onset."""
    axes = ("sample", "sequence", "time", "rate_channel")
    time = {"time": dt * np.arange(response.shape[1])}
    effect = xarray.Dataset({"rate": (axes, response[:, None, :, None])}, time)
    return Found(response, adaptation(effect, "rate", 0, **BINS[system]), np.empty(0) if share is None else share, dt)


# -- the grasshopper's receptor ---------------------------------------------------------------------------------------


def fit_grasshopper(seeds: range, readout: str) -> lr.Ensemble:
    """Fit to 6.4 s, stopping by 1.6 s."""
    record = receptor.load_recording(1)
    data = as_sequences(record.counts, record.stimulus, record.dt, receptor.stretches(len(record.counts)).train)
    train, valid, _ = data.split(receptor.TRAIN, receptor.VALIDATION, receptor.TEST, along="time", context=CONTEXT)
    gain = lr.StimulusGain("stimulus", priors={"beta": dist.Normal(0.0, 1.0)})
    heads = {"spikes": lr.Poisson(gain=gain, priors=dict(READOUTS[readout]))}
    model = lr.LatentRNN(
        train.spec, transition=lr.GRU(64), latent=lr.Deterministic(), observations=heads, inputs=["stimulus"]
    )
    windows = train.windows(WINDOW, context=WARM_UP)
    return lr.fit_ensemble(model, lr.Guide(model), windows, valid, seeds=seeds, reporting=QUIET)


def ask_grasshopper(fits: lr.Ensemble, samples: int = 60) -> Found:
    """What the fits say of a level that rises by 6 dB, and of the share of gain in the last 2 s."""
    record = receptor.load_recording(1)
    parts = receptor.stretches(len(record.counts))
    data = as_sequences(record.counts, record.stimulus, record.dt, parts.train)
    shares = (receptor.TRAIN, receptor.VALIDATION, receptor.TEST)
    share = gain_share(fits.posterior(data.split(*shares, along="time", context=CONTEXT)[2]), "spikes", samples).share
    noise, louder = stretches_of_noise(record.stimulus)
    reference = record.stimulus[parts.train]
    stretches = lr.SequenceData.from_arrays(
        {"spikes": np.zeros((*noise.shape[:2], 1))},  # the state sees the stimulus alone
        {"stimulus": noise},
        dt=record.dt,
        feature_names={"stimulus": list(receptor.FEATURES)},
        standardise={"stimulus": (reference.mean(0), reference.std(0))},
    )
    rise = do("stimulus", louder, at=slice(STEP, None))
    effect = contrast(fits.posterior(stretches), rise, do("stimulus", noise, at=slice(STEP, None)), samples)
    response = effect.spikes.values[:, :, STEP:, 0].mean(1)
    return found_of("grasshopper", response, record.dt, share.values[:, 0])


def stretches_of_noise(stimulus: Array) -> tuple[Array, Array]:
    """The recorded stimulus in stretches, (stretch, time, feature), and the same whose level rises by 6 dB."""
    starts = range(0, len(stimulus) - STRETCH + 1, EVERY)
    noise = np.stack([stimulus[start : start + STRETCH] for start in starts])
    louder = noise.copy()
    louder[:, STEP:, 0] *= np.exp(DECIBELS)
    louder[:, STEP:, 1] += DECIBELS
    return noise, louder


def regression(resamples: int = 40, seed: int = 0) -> Found:
    """The same question to a Poisson regression on the past of the stimulus."""
    record = receptor.load_recording(1)
    parts = receptor.stretches(len(record.counts))
    mean, spread = record.stimulus[parts.train].mean(0), record.stimulus[parts.train].std(0)
    noise, louder = ((part - mean) / spread for part in stretches_of_noise(record.stimulus))
    counts = record.counts[:, 0]

    def past(stimulus: Array, lags: int) -> Array:
        before = np.concatenate([np.repeat(stimulus[..., :1, :], lags - 1, -2), stimulus], -2)
        windows = np.lib.stride_tricks.sliding_window_view(before, lags, axis=-2)
        return windows.reshape(*windows.shape[:-2], -1)

    def fitted(rows: Array, chosen: Array, penalty: float) -> PoissonRegressor:
        return PoissonRegressor(alpha=penalty, solver="newton-cholesky").fit(rows[chosen], counts[chosen])

    def score(lags: int, penalty: float) -> float:
        rows = past((record.stimulus - mean) / spread, lags)
        rate = fitted(rows, np.arange(parts.train.stop), penalty).predict(rows[parts.validation])
        return float((counts[parts.validation] * np.log(rate) - rate).sum())

    lags, penalty = max(((lags, penalty) for lags in LAGS for penalty in PENALTIES), key=lambda pair: score(*pair))
    rows = past((record.stimulus - mean) / spread, lags)
    arms = [past(part, lags)[:, STEP:] for part in (louder, noise)]
    rng, blocks = np.random.default_rng(seed), np.arange(parts.train.stop // 500 * 500).reshape(-1, 500)
    responses = []
    for _ in range(resamples):
        model = fitted(rows, blocks[rng.integers(0, len(blocks), len(blocks))].ravel(), penalty)
        rates = [model.predict(arm.reshape(-1, rows.shape[1])).reshape(arm.shape[:2]).mean(0) for arm in arms]
        responses.append(rates[0] - rates[1])
    return found_of("grasshopper", np.stack(responses), record.dt)


# -- the locust's antennal lobe ---------------------------------------------------------------------------------------


def folds(trials: int) -> tuple[Array, Array, Array]:
    """Training, validation and test trials, alike of every odour."""
    place = np.arange(trials) % TRIALS
    return tuple(np.flatnonzero(which) for which in (place % 3 == 0, place % 6 == 1, np.isin(place % 6, (2, 4, 5))))  # type: ignore[return-value]


def trials_of(counts: Array) -> lr.SequenceData:
    """Trials with the odour as their stimulus."""
    there = np.zeros((*counts.shape[:2], 1))
    there[:, ODOUR] = 1.0
    return lr.SequenceData.from_arrays({"spikes": counts}, {"stimulus": there}, dt=BIN)


def fit_locust(counts: Array, seeds: range, readout: str) -> lr.Ensemble:
    """Fit to a third of the trials, stopping by a sixth."""
    data = trials_of(counts)
    train, valid, _ = (data[rows.tolist()] for rows in folds(len(counts)))
    gain = lr.StimulusGain("stimulus", priors={"beta": dist.Normal(0.0, 1.0)})
    heads = {"spikes": lr.Poisson(gain=gain, priors=dict(READOUTS[readout]))}
    model = lr.LatentRNN(
        train.spec, transition=lr.GRU(16), latent=lr.InitialState(4), observations=heads, inputs=["stimulus"]
    )
    guide = lr.Guide(model, encoder=lr.RNNEncoder(16))
    return lr.fit_ensemble(model, guide, train, valid, seeds=seeds, reporting=QUIET)


def ask_locust(fits: lr.Ensemble, counts: Array, samples: int = 60) -> Found:
    """What the fits say of the odour, and of the share of gain, in the other trials, of the units that it excites."""
    posterior = fits.posterior(trials_of(counts)[folds(len(counts))[2].tolist()])
    none, units = do("stimulus", 0.0), excited(counts)
    effect = contrast(posterior, none + do("stimulus", 1.0, at=ODOUR), none, samples)
    response = effect.spikes.values[..., units].sum(-1).mean(1)[:, ODOUR]
    return found_of("locust", response, BIN, gain_share(posterior, "spikes", samples).share.values[:, units].mean(1))


def excited(counts: Array) -> NDArray[np.int_]:
    """Units that fire more from 0.1 to 0.4 s after the onset than before it, by three standard errors in training."""
    known = counts[folds(len(counts))[0]]
    rise = known[:, ODOUR.start + 2 : ODOUR.start + 8].mean(1) - known[:, : ODOUR.start].mean(1)
    return np.flatnonzero(rise.mean(0) > 3 * rise.std(0, ddof=1) / len(rise) ** 0.5)


def averaged(counts: Array, resamples: int = 400, seed: int = 0) -> Found:
    """The average of the test trials less its level before the odour; trials drawn anew."""
    total = counts[folds(len(counts))[2]][..., excited(counts)].sum(-1)
    drawn = total[np.random.default_rng(seed).integers(0, len(total), (resamples, len(total)))].mean(1)
    return found_of("locust", drawn[:, ODOUR] - drawn[:, : ODOUR.start].mean(1, keepdims=True), BIN)


# -- what is said of them ---------------------------------------------------------------------------------------------


def exponential(found: Found, steady: int, within: int) -> Array:
    """Time constants of the exponentials nearest to what is above the plateau from the peak on, (sample,), seconds."""
    taus = []
    for response in found.response:
        above = (response - response[-steady:].mean())[response[:within].argmax() :]
        time = found.dt * np.arange(len(above))
        bounds = ([0.0, found.dt / 10], [np.inf, 10 * time[-1]])
        start = (max(above[0], 1e-6), time[-1] / 4)
        taus.append(curve_fit(lambda t, a, tau: a * np.exp(-t / tau), time, above, start, bounds=bounds)[0][1])
    return np.array(taus)


def interval(draws: Array) -> tuple[float, float, float]:
    """Median and 90% interval of draws; not-a-number where one is."""
    low, middle, high = np.quantile(draws, [0.05, 0.5, 0.95])
    return float(middle), float(low), float(high)


def numbers(system: str, found: Found) -> dict[str, Array]:
    """What is said, by draw: share of gain, share of the peak that is lost, and time constants in ms."""
    speed = found.speed.isel({dim: 0 for dim in found.speed.dims if dim != "sample"})
    return {
        **({"gain": found.share} if len(found.share) else {}),
        "lost": speed.adapted.values,
        "tau": 1e3 * speed.time_constant.values,
        "tau of an exponential": 1e3 * exponential(found, **BINS[system]),
    }


def report(systems: Mapping[str, Mapping[str, Found]], seeds: int) -> str:
    """The table."""
    columns = ("gain", "lost", "tau", "tau of an exponential")
    lines = [
        "# Gain and adaptation of two recordings",
        "",
        "Share of the linear predictor's variance that the gated gain makes, share of the peak of the response that is",
        "lost by its end (above one: what was excitation ends below the level without stimulus), and how fast, in ms:",
        "area above the plateau over its height at the peak, and the exponential nearest to it. Median (90% interval);",
        f"fits of {seeds} seeds, none dropped, all settings at their defaults. What is asked: see the script.",
        f"torch {torch.__version__}, latentrnn {lr.__version__}, {platform.machine()}.",
        "",
        "| recording | estimate | " + " | ".join(columns) + " |",
        "|---|---|" + "---|" * len(columns),
    ]
    for system, several in systems.items():
        for name, found in several.items():
            said = numbers(system, found)
            cells = ["{:.3g} ({:.3g} to {:.3g})".format(*interval(said[key])) if key in said else "" for key in columns]
            lines.append(f"| {system} | {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Fit, ask, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "adaptation.md")
    options = parser.parse_args()
    torch.set_num_threads(1)
    seeds = range(options.seeds)
    counts, _ = locust_counts()
    receptor_fits = {kind: ask_grasshopper(fit_grasshopper(seeds, kind)) for kind in READOUTS}
    lobe_fits = {kind: ask_locust(fit_locust(counts, seeds, kind), counts) for kind in READOUTS}
    systems = {
        "grasshopper": {**{f"{kind} readout": it for kind, it in receptor_fits.items()}, "regression": regression()},
        "locust": {**{f"{kind} readout": it for kind, it in lobe_fits.items()}, "average of trials": averaged(counts)},
    }
    text = report(systems, options.seeds)
    options.out.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
