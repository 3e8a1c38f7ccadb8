"""What a prior over a network's weights is worth: against a point estimate, an ensemble, and Laplace on the last layer.

`python benchmarks/network_priors.py` writes `benchmarks/results/network_priors.md`, in about ten minutes of one core.
It needs, in the folder LATENTRNN_SHARED or ../shared, data/: locust_odour/ and monkey_reach_bmi/; what is absent is
left out. Counts of neurons are predicted from covariates through the state of a GRU that is not random itself, so that
the density of a held-out trial is exact given the weights, and averaged over draws of them where they have a posterior.
The test trials are the same for all seeds; a seed draws training and validation trials from the rest, and the weights
that a fit starts from. Every arm keeps the weights that are best on the validation trials. Settings were chosen on
validation trials alone, by `--choose`, which scores each arm's candidates (`GRID`) there over the same seeds.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import latentrnn as lr
from latentrnn.criticism.scores import jackknife

ROOT = Path(__file__).resolve().parents[1]
SEEDS = 3
DRAWS = 200  # of weights, behind each density and each interval
REPLICATES = 400
LEVEL = 0.9
MEMBERS = 5

Parts = tuple[lr.SequenceData, lr.SequenceData, lr.SequenceData]  # training, validation, test


def folder() -> Path:
    """Where the data are."""
    return Path(os.environ.get("LATENTRNN_SHARED", ROOT.parent / "shared")) / "data"


# -- recordings ------------------------------------------------------------------------------------------------------

RATE = 15_000  # samples per second of the locust's spike times
PERIOD, ONSET, OFFSET, BIN = 10.0, 3.0, 4.0, 0.05  # of trials, odour and bins, seconds
FROM, UNTIL = 2.5, 6.0  # the part of each trial that is kept, seconds
UNITS = ("tetD1_u2", "tetD1_u3", "tetD1_u4", "tetD1_u5", "tetD2_u1", "tetD2_u2", "tetD2_u3", "tetD2_u4")
TRIALS = 25


def locust_counts() -> tuple[np.ndarray, np.ndarray]:
    """Counts (trial, bin, unit) of the units that all odours have, and the odour of each trial."""
    where = folder() / "locust_odour" / "locust20000421"
    odours = sorted({file.name.split("_tet")[0] for file in where.glob("*_tet*.txt")})
    steps = round((UNTIL - FROM) / BIN)
    counts = np.zeros((len(odours), TRIALS, steps, len(UNITS)))
    for k, odour in enumerate(odours):
        for unit, name in enumerate(UNITS):
            seconds = np.atleast_1d(np.loadtxt(where / f"{odour}_{name}.txt")) / RATE
            trial, phase = np.divmod(seconds, PERIOD)
            kept = (trial < TRIALS) & (phase >= FROM) & (phase < UNTIL)
            step = np.floor((phase[kept] - FROM) / BIN).astype(int)
            np.add.at(counts[k], (trial[kept].astype(int), step, unit), 1.0)
    return counts.reshape(-1, steps, len(UNITS)), np.repeat(np.arange(len(odours)), TRIALS)


def load_locust(seed: int) -> Parts:
    """Three trials of each odour to learn from, two for validation, and ten for the test."""
    counts, odour = locust_counts()
    time = FROM + BIN * (np.arange(counts.shape[1]) + 0.5)
    puff = ((time >= ONSET) & (time < OFFSET)).astype(float)
    shown = puff[None, :, None] * np.eye(odour.max() + 1)[odour][:, None]
    data = lr.SequenceData.from_arrays({"counts": counts}, {"odour": shown}, dt=BIN)
    return by_kind(data, odour, (3, 2, 10), seed)


def load_monkey(seed: int) -> Parts:
    """Six reaches in each direction to learn from, four for validation, and twenty for the test; every third unit."""
    where = folder() / "monkey_reach_bmi"
    counts = np.loadtxt(where / "monkey_features_300.csv", delimiter=",")[:, ::3]
    target = np.loadtxt(where / "monkey_targets_300.csv", delimiter=",")
    trials = [target[:, 4] == number for number in np.unique(target[:, 4])]
    hand = [target[trial, :2] for trial in trials]
    moved = [np.concatenate([place - place[:1], np.gradient(place, axis=0)], 1) for place in hand]
    data = lr.SequenceData.from_arrays({"counts": [counts[trial] for trial in trials]}, {"hand": moved}, dt=0.02)
    return by_kind(data, np.array([target[trial, 3][0] for trial in trials]), (6, 4, 20), seed)


def by_kind(data: lr.SequenceData, kind: np.ndarray, numbers: tuple[int, int, int], seed: int) -> Parts:
    """So many sequences of each kind for training, validation and test; the test is the same for every seed."""
    fixed, drawn = np.random.default_rng(0), np.random.default_rng(1000 + seed)
    rows: list[list[int]] = [[], [], []]
    for each in np.unique(kind):
        order = fixed.permutation(np.flatnonzero(kind == each))
        test, rest = order[: numbers[2]], drawn.permutation(order[numbers[2] :])
        for part, found in enumerate((rest[: numbers[0]], rest[numbers[0] : numbers[0] + numbers[1]], test)):
            rows[part] += found.tolist()
    train, valid, test = (data[sorted(part)] for part in rows)
    return train, valid, test


@dataclass(frozen=True)
class Recording:
    """What is fitted: data, and the size of the state."""

    title: str
    text: str
    needs: str
    load: Callable[[int], Parts]
    hidden_size: int
    history: bool = False  # whether counts of the last bin feed back into the state


RECORDINGS = {
    "locust": Recording(
        "Odours of the locust's antennal lobe",
        "Eight units, bins of 50 ms from half a second before the odour to three after it; the covariate is which of "
        "twenty odours is there, and when (from second 3 to second 4 of a trial). 60 trials to learn from, 40 for "
        "validation, 200 for the test. `GRU(16)`, into which the counts of the bin before feed back.",
        "locust_odour",
        load_locust,
        16,
        history=True,
    ),
    "monkey": Recording(
        "Reaches of a monkey",
        "33 units of motor cortex, bins of 20 ms; covariates are place and speed of the hand. 48 reaches to learn "
        "from, 32 for validation, 160 for the test. `GRU(24)`.",
        "monkey_reach_bmi",
        load_monkey,
        24,
    ),
}

# -- arms ------------------------------------------------------------------------------------------------------------

Posterior = lr.Posterior | lr.EnsemblePosterior


@dataclass(frozen=True)
class Settings:
    """What an arm's fits are done with.

    Attributes:
        steps: of the optimizer.
        decay: of weights that have no prior.
        scale: of the prior, where it is known.
        particles: draws of the weights for each gradient.
        warm_up: part of the steps over which the weight of the KL rises.
    """

    steps: int = 500
    decay: float = 0.01
    scale: float = 1.0
    particles: int = 1
    warm_up: float = 0.2


def model_of(recording: Recording, data: lr.SequenceData, transition: Any, readout: Any) -> lr.LatentRNN:
    """A GRU whose state is a function of what is known, with priors on its weights and on those of the last layer."""
    return lr.LatentRNN(
        data.spec,
        transition=lr.GRU(recording.hidden_size, priors={"weights": transition} if transition else None),
        latent=lr.Deterministic(fixed={"initial_state": 0.0}),
        observations={
            "counts": lr.Poisson(
                priors={"weights": readout} if readout else None,
                feedback=lr.History(1, 1) if recording.history else None,
            )
        },
    )


def fitting(settings: Settings) -> dict[str, Any]:
    """The settings that all fits share."""
    return {
        "steps": settings.steps,
        "batch_size": 32,
        "objective": lr.ELBO(num_particles=settings.particles, kl=lr.KLWarmUp(settings.warm_up)),
        "optimizer": lr.AdamW(learning_rate=1e-2, weight_decay=settings.decay),
        "stopping": lr.EarlyStopping(every=25, patience=None),
        "compute": lr.Compute(device="cpu"),
        "reporting": lr.Reporting(progress=False),
    }


def point(recording: Recording, parts: Parts, settings: Settings, seed: int) -> Any:
    """One fit without priors."""
    model = model_of(recording, parts[0], None, None)
    return lr.fit(model, lr.Guide(model), *parts[:2], seed=seed, **fitting(settings))


def ensemble(recording: Recording, parts: Parts, settings: Settings, seed: int) -> Any:
    """Fits without priors from several starts, all of one weight."""
    model = model_of(recording, parts[0], None, None)
    seeds = [seed + 100 * member for member in range(MEMBERS)]
    alike = len(parts[0].lengths.unique()) == 1  # what members need to share a pass
    return lr.fit_ensemble(model, lr.Guide(model), *parts[:2], seeds=seeds, vectorised=alike, **fitting(settings))


def laplace(recording: Recording, parts: Parts, settings: Settings, seed: int) -> Any:
    """One fit whose last layer has a prior of known scale, and Laplace's approximation of that layer."""
    prior = lr.NetworkPrior(scale=settings.scale, bias_scale=3.0, learned=False)
    model = model_of(recording, parts[0], None, prior)
    given = lr.fit(model, lr.Guide(model, global_family="point"), *parts[:2], seed=seed, **fitting(settings))
    return lr.laplace(model, parts[0], given=given, device="cpu", seed=seed)


def last_layer(recording: Recording, parts: Parts, settings: Settings, seed: int) -> Any:
    """A prior on the last layer with scales that are inferred, and a multivariate Normal for it."""
    model = model_of(recording, parts[0], None, lr.NetworkPrior())
    guide = lr.Guide(model, global_family="multivariate")
    return lr.fit(model, guide, *parts[:2], seed=seed, **fitting(settings))


def network(recording: Recording, parts: Parts, settings: Settings, seed: int, **guide: Any) -> Any:
    """Priors on all weights, with scales that are inferred."""
    model = model_of(recording, parts[0], lr.NetworkPrior(), lr.NetworkPrior())
    return lr.fit(model, lr.Guide(model, **guide), *parts[:2], seed=seed, **fitting(settings))


def low_rank(recording: Recording, parts: Parts, settings: Settings, seed: int) -> Any:
    """The same with correlations along ten directions."""
    return network(recording, parts, settings, seed, global_family="low_rank", global_rank=10)


ARMS: dict[str, Callable[[Recording, Parts, Settings, int], Any]] = {
    "point estimate": point,
    f"ensemble of {MEMBERS}": ensemble,
    "last layer, Laplace": laplace,
    "last layer, NetworkPrior": last_layer,
    "all weights, NetworkPrior": network,
    "all weights, low rank": low_rank,
}
_OF_ALL = [Settings(), Settings(warm_up=0.5), Settings(warm_up=0.5, particles=4), Settings(1500, warm_up=0.5)]
GRID: dict[str, list[Settings]] = {
    "point estimate": [Settings(decay=decay) for decay in (0.01, 0.1, 1.0)],
    "last layer, Laplace": [Settings(decay=decay, scale=scale) for decay in (0.01, 1.0) for scale in (0.5, 1.0, 2.0)],
    "last layer, NetworkPrior": [Settings(decay=decay) for decay in (0.01, 0.1, 1.0)],
    "all weights, NetworkPrior": _OF_ALL,
    "all weights, low rank": _OF_ALL,
}
_POSTERIOR = Settings(warm_up=0.5, particles=4)
_LONGER = Settings(1500, warm_up=0.5)
CHOSEN: dict[str, dict[str, Settings]] = {
    "locust": {
        "point estimate": Settings(decay=1.0),
        f"ensemble of {MEMBERS}": Settings(decay=1.0),
        "last layer, Laplace": Settings(decay=1.0, scale=1.0),
        "last layer, NetworkPrior": Settings(decay=1.0),
        "all weights, NetworkPrior": _POSTERIOR,
        "all weights, low rank": _POSTERIOR,
    },
    "monkey": {
        "point estimate": Settings(decay=0.1),
        f"ensemble of {MEMBERS}": Settings(decay=0.1),
        "last layer, Laplace": Settings(decay=1.0, scale=2.0),
        "last layer, NetworkPrior": Settings(decay=0.1),
        "all weights, NetworkPrior": _LONGER,
        "all weights, low rank": _LONGER,
    },
}

# -- scores ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    """What came out for one arm and seed.

    Attributes:
        log_density: of every test sequence, per step.
        inside: of every test sequence, how many of its units' counts lie in their intervals, trial by trial.
        inside_bins: the same of single bins.
        seconds: processor time of the fit.
    """

    log_density: lr.Score
    inside: lr.Score
    inside_bins: lr.Score
    seconds: float


def scored(posterior: Posterior) -> tuple[lr.Score, lr.Score, lr.Score]:
    """Density of test sequences, and which of their counts lie in central intervals of replicates."""
    data = posterior.data
    values = posterior.evidence("iwae", DRAWS).values.double()
    keys = tuple((key, key.start) for key in data.keys)
    density = score(values, data.lengths.double(), keys)
    drawn, mask = posterior.predictive(REPLICATES)["counts"], data.masks["counts"]
    seen = torch.where(mask, data.observations["counts"], 0.0)
    drawn = torch.where(mask, drawn, 0.0)
    trial = within(drawn.sum(2), seen.sum(1))
    bins = torch.where(mask, within(drawn, seen), 0.0)
    ones = torch.full((len(data),), float(trial.shape[-1]), dtype=torch.float64)
    return (
        density,
        score(trial.sum(-1), ones, keys),
        score(bins.sum((1, 2)), mask.sum((1, 2)).double(), keys),
    )


def within(drawn: Tensor, seen: Tensor) -> Tensor:
    """Whether counts lie in the central interval of their replicates, by a probability transform with ties broken.

    Ties are broken by the same random numbers for every arm, so that they cancel in differences.
    """
    generator = torch.Generator().manual_seed(0)
    share = torch.rand(seen.shape, generator=generator, dtype=torch.float64)
    below, equal = (drawn < seen).double().sum(0), (drawn == seen).double().sum(0)
    place = (below + share * (equal + 1)) / (len(drawn) + 1)
    return ((place >= (1 - LEVEL) / 2) & (place <= (1 + LEVEL) / 2)).double()


def score(gains: Tensor, amounts: Tensor, keys: Any) -> lr.Score:
    """A ratio of sums over sequences, with its error."""
    value, error = jackknife(gains.double(), amounts, "nats/step")
    return lr.Score(value, error, "nats/step", 0, len(gains), gains.double(), amounts, keys)


def run(name: str, arm: str, seed: int, settings: Settings, on: int = 2) -> Outcome:
    """Fit one arm with one seed, and score it on the test part (or another, by number)."""
    recording = RECORDINGS[name]
    parts = recording.load(seed)
    start = time.process_time()
    result = ARMS[arm](recording, parts, settings, seed)
    spent = time.process_time() - start
    return Outcome(*scored(result.posterior(parts[on], device="cpu", seed=seed)), spent)


def choose(names: list[str], seeds: int) -> None:
    """Print what each candidate of each arm scores on validation trials, mean over seeds."""
    for name in names:
        for arm, candidates in GRID.items():
            for settings in candidates:
                found = [run(name, arm, seed, settings, on=1).log_density.value for seed in range(seeds)]
                print(name, arm, settings, f"{statistics.mean(found):.4f}", flush=True)


# -- the table -------------------------------------------------------------------------------------------------------


def averaged(scores: list[lr.Score]) -> lr.Score:
    """A score whose blocks are means over seeds."""
    gains = torch.stack([each.gains for each in scores]).mean(0)
    value, error = jackknife(gains, scores[0].amounts, scores[0].unit)
    return replace(scores[0], gains=gains, value=value, standard_error=error)


def row(arm: str, outcomes: list[Outcome], first: list[Outcome]) -> str:
    """One line of a table."""
    density, reference = (averaged([each.log_density for each in some]) for some in (outcomes, first))
    cells = [arm, f"{density.value:.4f}"]
    if outcomes is first:
        cells += [""] * 3
    else:
        gap = lr.paired_difference(density, reference)
        pairs = zip(outcomes, first, strict=True)
        singles = [lr.paired_difference(one.log_density, other.log_density).value for one, other in pairs]
        cells += [f"{gap.value:+.4f}", f"{gap.standard_error:.4f}", ", ".join(f"{value:+.4f}" for value in singles)]
    for part in ("inside", "inside_bins"):
        inside = averaged([getattr(each, part) for each in outcomes])
        cells.append(f"{inside.value:.3f} ({inside.standard_error:.3f})")
    cells.append(f"{statistics.mean(each.seconds for each in outcomes):.1f}")
    return "| " + " | ".join(cells) + " |"


def report(found: dict[str, dict[str, list[Outcome]]], left_out: list[str], seconds: float) -> str:
    """All tables."""
    seeds = len(next(iter(next(iter(found.values())).values()))) if found else 0
    lines = [
        "# Priors over the weights of networks, on held-out trials",
        "",
        f"Log-density of test trials, nats per bin of all units, means over {seeds} seeds that draw training trials",
        "and starting weights; differences from the point estimate are paired by test trial, with their standard error",
        f"(s.e.) over trials, fits held fixed, and by seed. {LEVEL:.0%} intervals of replicates: the share of a unit's",
        "counts over a whole trial that lies inside, and that of single bins, with s.e. in brackets (ties of counts",
        f"are broken at random). Densities and intervals are over {DRAWS} draws of the weights ({REPLICATES}",
        "replicates). Time is the processor's for a fit, seconds, that of an ensemble for all of its members. Settings",
        "(weight decay, prior scale, steps, draws, warm-up) were chosen on validation trials alone.",
        f"torch {torch.__version__}, latentrnn {lr.__version__}, {platform.machine()}, "
        f"{seconds:.0f} s of processor time.",
    ]
    for name, arms in found.items():
        recording = RECORDINGS[name]
        lines += ["", f"## {recording.title}", "", recording.text, ""]
        lines += [
            "| arm | nats per bin | less the point estimate | s.e. | by seed | trials inside | bins inside | s |",
            "|" + "---|" * 8,
        ]
        first = next(iter(arms.values()))
        lines += [row(arm, outcomes, first) for arm, outcomes in arms.items()]
    if left_out:
        lines += ["", f"Left out, for their data are absent: {', '.join(left_out)}."]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Fit all arms on all recordings that are there, and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--recordings", nargs="+", choices=list(RECORDINGS), default=list(RECORDINGS))
    parser.add_argument("--choose", action="store_true", help="score candidates of settings on validation trials")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "network_priors.md")
    options = parser.parse_args()
    torch.set_num_threads(1)
    here = [name for name in options.recordings if (folder() / RECORDINGS[name].needs).is_dir()]
    left_out = [RECORDINGS[name].title for name in options.recordings if name not in here]
    if options.choose:
        choose(here, options.seeds)
        return
    start, found = time.process_time(), dict[str, dict[str, list[Outcome]]]()
    for name in here:
        for arm in ARMS:
            for seed in range(options.seeds):
                outcome = run(name, arm, seed, CHOSEN[name][arm])
                found.setdefault(name, {}).setdefault(arm, []).append(outcome)
                print(name, arm, seed, f"{outcome.log_density.value:.4f}", f"{outcome.seconds:.1f} s", flush=True)
    text = report(found, left_out, time.process_time() - start)
    options.out.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
