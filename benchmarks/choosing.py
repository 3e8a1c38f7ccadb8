"""The trade-offs of docs/choosing.md, measured: cell, direction of the encoder, family of counts, family of the guide.

`python benchmarks/choosing.py` writes `benchmarks/results/choosing.md`, in about ten minutes of one core. It needs, in
the folder LATENTRNN_SHARED or ../shared, data/: emg_myo/, ecg_beats_ucr/, monkey_reach_bmi/, counts_tscount/ and
counts_surveillance/, and for the last two `pip install rdata`; questions whose data are absent are left out. Within a
question the arms have the same data, steps and optimiser, and the weights that are best on the validation part are
kept; scores are of a test part that served for nothing else.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import multiprocessing
import os
import platform
import statistics
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import latentrnn as lr
from latentrnn.criticism.scores import jackknife

ROOT = Path(__file__).resolve().parents[1]
BIN = 0.02  # seconds, of the spikes
EMG_SAMPLES = 10  # of 5 ms, in a bin of the rectified electromyogram
YEAR = 365.25 / 7  # weeks
BLOCK = 13  # weeks
STEPS = {"cell": 600, "direction": 300, "weekly": 1000, "spikes": 300, "guide": 300}
PARTICLES = 64

Parts = tuple[lr.SequenceData, lr.SequenceData, lr.SequenceData]  # training, validation, test


@dataclass(frozen=True)
class Outcome:
    """What came out for one arm and seed.

    Attributes:
        scores: by name, per sequence or block.
        weights: trained numbers of model and guide.
        milliseconds: processor time of a step of the fit, the evaluations on the validation part included.
        kept: the step whose weights were best on the validation part.
        notes: further figures.
    """

    scores: dict[str, lr.Score]
    weights: int
    milliseconds: float
    kept: int
    notes: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Question:
    """Arms that are fitted to the same data; the first is what the others are compared with."""

    title: str
    text: str
    needs: tuple[str, ...]
    load: Callable[[], Parts]
    ask: Callable[[Parts, str, int], Outcome]
    arms: tuple[str, ...]


def folder() -> Path:
    """Where the data are."""
    return Path(os.environ.get("LATENTRNN_SHARED", ROOT.parent / "shared")) / "data"


# -- data -----------------------------------------------------------------------------------------------------------


def load_emg() -> Parts:
    """Rectified electromyogram of eight channels, log(1 + mean of 50 ms), in sequences of 5 s.

    Of each recording of a minute the first part is for training, then comes the validation part and then the test.
    """
    sequences, place = [], []
    for file in sorted((folder() / "emg_myo").glob("*.txt")):
        if file.name == "SOURCE.txt":
            continue
        values = np.loadtxt(file, delimiter=",")[:, :8]
        bins = len(values) // EMG_SAMPLES
        means = np.abs(values[: bins * EMG_SAMPLES]).reshape(bins, EMG_SAMPLES, 8).mean(1)
        parts = [np.log1p(means[start : start + 100]) for start in range(0, bins - 99, 100)]
        sequences += parts
        place += [number / len(parts) for number in range(len(parts))]
    data, where = lr.SequenceData.from_arrays({"signal": np.stack(sequences)}, dt=0.005 * EMG_SAMPLES), np.array(place)
    return data[where < 0.6], data[(where >= 0.6) & (where < 0.75)], data[where >= 0.75]


def load_ecg() -> Parts:
    """Heartbeats of 140 samples (ECG5000), each in units of its own spread."""
    beats = np.loadtxt(folder() / "ecg_beats_ucr" / "ECG5000_TRAIN.txt")[:, 1:, None]
    return lr.SequenceData.from_arrays({"signal": beats}).split(0.5, 0.15, 0.35, seed=0)


def load_reaches() -> list[np.ndarray]:
    """Counts of motor-cortex units in bins of 20 ms, (time, unit), one array for each of 800 reaches."""
    counts = np.loadtxt(folder() / "monkey_reach_bmi" / "monkey_features_300.csv", delimiter=",")
    trial = np.loadtxt(folder() / "monkey_reach_bmi" / "monkey_targets_300.csv", delimiter=",")[:, 4]
    return [counts[trial == number] for number in np.unique(trial)]


def load_spikes() -> Parts:
    """All units as one head."""
    return lr.SequenceData.from_arrays({"counts": load_reaches()}, dt=BIN).split(0.6, 0.15, 0.25, seed=0)


def load_cosmoothing() -> Parts:
    """Every fourth unit held out from the encoder."""
    reaches = load_reaches()
    out = np.arange(reaches[0].shape[1]) % 4 == 3
    heads = {"heldin": [r[:, ~out] for r in reaches], "heldout": [r[:, out] for r in reaches]}
    return lr.SequenceData.from_arrays(heads, dt=BIN).split(0.6, 0.15, 0.25, seed=0)


def read_r(path: Path) -> object:
    """The one object of a file of R."""
    import rdata

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # R classes that rdata does not know are not needed
        return next(iter(rdata.read_rda(path).values()))


def weekly(counts: np.ndarray) -> Parts:
    """One series with the time of the year as covariates, cut in three stretches in time."""
    phase = 2 * np.pi * np.arange(len(counts)) / YEAR
    season = np.stack([np.sin(phase), np.cos(phase)], -1)
    data = lr.SequenceData.from_arrays({"counts": counts[None]}, covariates={"season": season[None]})
    train, valid, test = data.split(0.6, 0.15, 0.25, along="time", context=26)
    return train.windows(26, context=13), valid, test


def load_infections() -> Parts:
    """Weekly cases of E. coli, EHEC and measles in North Rhine-Westphalia, 2001 to 2013."""
    files = [folder() / "counts_tscount" / f"{name}.RData" for name in ("ecoli", "ehec", "measles")]
    return weekly(np.stack([np.asarray(read_r(file)["cases"], float) for file in files], -1))  # type: ignore[index]


def load_deaths() -> Parts:
    """Weekly deaths in Denmark, eight groups of age, 1994 to 2008."""
    found = read_r(folder() / "counts_surveillance" / "momo.RData")
    return weekly(np.asarray(found.observed, float))  # type: ignore[attr-defined]


# -- questions ------------------------------------------------------------------------------------------------------


def fitted(
    model: lr.LatentRNN, guide: lr.Guide, parts: Parts, seed: int, steps: int, batch_size: int = 32, decay: float = 0.01
) -> tuple[lr.Posterior, Outcome]:
    """The posterior of the test sequences, and an outcome without scores."""
    start = time.process_time()
    result = lr.fit(
        model,
        guide,
        parts[0],
        parts[1],
        seed=seed,
        steps=steps,
        batch_size=batch_size,
        optimizer=lr.AdamW(learning_rate=1e-2, weight_decay=decay),
        stopping=lr.EarlyStopping(every=25, patience=None),
        compute=lr.Compute(device="cpu"),
        reporting=lr.Reporting(progress=False),
    )
    spent = (time.process_time() - start) * 1000 / steps
    weights = sum(p.numel() for part in (model, guide) for p in part.parameters())
    return result.posterior(parts[2], device="cpu"), Outcome({}, weights, spent, result.best_step)


def ask_cell(parts: Parts, arm: str, seed: int) -> Outcome:
    """One step ahead, with a state that is a function of the past."""
    name, size = arm.split()
    cell = {"GRU": lr.GRU, "LSTM": lr.LSTM}[name](int(size))
    model = lr.LatentRNN(
        parts[0].spec,
        transition=cell,
        latent=lr.Deterministic(),
        observations={"signal": lr.Gaussian(feedback=lr.History(1, 1))},
    )
    posterior, outcome = fitted(model, lr.Guide(model), parts, seed, STEPS["cell"], 16)
    score = lr.one_step_ahead_log_likelihood(posterior.one_step_ahead("signal"))
    weights = sum(p.numel() for p in model.transition.parameters())
    return dataclasses.replace(outcome, scores={"one step ahead, nats per bin": score}, weights=weights)


ENCODERS = {
    "bidirectional": lambda: lr.RNNEncoder(48, direction="bidirectional", observes=["heldin"]),
    "causal": lambda: lr.RNNEncoder(48, direction="causal", observes=["heldin"]),
    "causal, lag 2": lambda: lr.RNNEncoder(48, direction="causal", lag=2, observes=["heldin"]),
    "causal, lag 5": lambda: lr.RNNEncoder(48, direction="causal", lag=5, observes=["heldin"]),
}


def ask_direction(parts: Parts, arm: str, seed: int) -> Outcome:
    """Held-out units from the others, in the past or at all times."""
    model = lr.LatentRNN(
        parts[0].spec,
        transition=lr.GRU(48),
        latent=lr.Innovations(4, initial=8),
        observations={"heldin": lr.Poisson(), "heldout": lr.Poisson()},
    )
    posterior, outcome = fitted(model, lr.Guide(model, encoder=ENCODERS[arm]()), parts, seed, STEPS["direction"])
    test = posterior.data
    rates = posterior.mean("heldout", num_samples=30)
    scored = test.scored("heldout")
    bits = lr.bits_per_spike_by_block(rates.nan_to_num(1.0), test.observations["heldout"], scored)
    scores = {"held-out units, bits per spike": bits, "ELBO, nats per bin": evidence(posterior, "elbo")}
    return dataclasses.replace(outcome, scores=scores)


def ask_counts(parts: Parts, arm: str, seed: int) -> Outcome:
    """One step ahead, with counts fed back, and how far they scatter about what was expected of them."""
    family = lr.NegativeBinomial if arm == "negative binomial" else lr.Poisson
    series = len(parts[2]) == 1
    model = lr.LatentRNN(
        parts[0].spec,
        transition=lr.GRU(8 if series else 48),
        latent=lr.Deterministic(),
        observations={"counts": family(feedback=lr.History(1, 1))},
    )
    settings = (STEPS["weekly"], 8, 1.0) if series else (STEPS["spikes"], 32)
    posterior, outcome = fitted(model, lr.Guide(model), parts, seed, *settings)
    ahead = posterior.one_step_ahead("counts")
    score = lr.one_step_ahead_log_likelihood(ahead, block_length=BLOCK if series else None)
    notes = dispersion(posterior, ahead)
    return dataclasses.replace(outcome, scores={"one step ahead, nats per bin": score}, notes=notes)


def dispersion(posterior: lr.Posterior, ahead: lr.OneStepAhead, num_samples: int = 60) -> dict[str, float]:
    """Mean of (y - E y)^2 / E y over test counts, E y one step ahead, and its 90% interval in counts of the model."""
    replicates = posterior.predictive(num_samples, feedback="recorded")["counts"]
    used = ahead.scored.expand_as(ahead.observed)

    def of(values: Tensor) -> Tensor:
        return ((values - ahead.mean).square() / ahead.mean.clamp_min(1e-6))[..., used].double().mean(-1)

    drawn = of(replicates)
    low, high = drawn.quantile(torch.tensor([0.05, 0.95], dtype=torch.float64)).tolist()
    return {"observed": float(of(ahead.observed)), "from": low, "to": high}


FAMILIES: dict[str, Callable[[], lr.Family]] = {
    "MeanField": lr.MeanField,
    "Markov": lambda: lr.Markov(32),
    "GaussianChain": lr.GaussianChain,
}


def ask_guide(parts: Parts, arm: str, seed: int) -> Outcome:
    """A deep Markov model of all units."""
    model = lr.LatentRNN(
        parts[0].spec,
        transition=lr.GatedTransition(6, width=24),
        latent=lr.MarkovNormal(scale="state"),
        observations={"counts": lr.Poisson()},
    )
    guide = lr.Guide(model, encoder=lr.RNNEncoder(48), family=FAMILIES[arm]())
    posterior, outcome = fitted(model, guide, parts, seed, STEPS["guide"])
    scores = {f"{kind.upper()}, nats per bin": evidence(posterior, kind) for kind in ("elbo", "iwae")}
    return dataclasses.replace(outcome, scores=scores)


def evidence(posterior: lr.Posterior, kind: str) -> lr.Score:
    """A bound on the log evidence of every sequence, per step."""
    values = posterior.evidence(kind, PARTICLES).values.double()
    steps = posterior.data.lengths.double()
    value, error = jackknife(values, steps, "nats/step")
    blocks = tuple((key, key.start) for key in posterior.data.keys)
    return lr.Score(value, error, "nats/step", 0, len(values), values, steps, blocks)


CELLS = ("GRU 32", "LSTM 32", "LSTM 27")
COUNTS = ("Poisson", "negative binomial")
CELL_TEXT = "A deterministic state and one filter of the last bin's values; 'weights' are those of the cell."
COUNT_TEXT = (
    "'Scatter' is the mean of (y - E y)^2 / E y over test bins, E y being one step ahead, and beside it the interval "
    "that holds 90% of the model's own counts given the same past (a Poisson family's is about one)."
)
QUESTIONS = {
    "emg": Question("LSTM or GRU: electromyogram", CELL_TEXT, ("emg_myo",), load_emg, ask_cell, CELLS),
    "ecg": Question("LSTM or GRU: heartbeats", CELL_TEXT, ("ecg_beats_ucr",), load_ecg, ask_cell, CELLS),
    "direction": Question(
        "Causal or bidirectional: motor cortex during reaches",
        "Every fourth unit is held out from the encoder; its rates are those of the posterior mean. A lag of 2 or 5 "
        f"bins waits for {2 * BIN * 1000:.0f} or {5 * BIN * 1000:.0f} ms, a bidirectional encoder for the end of the "
        "reach (0.38 to 0.78 s).",
        ("monkey_reach_bmi",),
        load_cosmoothing,
        ask_direction,
        tuple(ENCODERS),
    ),
    "infections": Question(
        "Poisson or negative binomial: weekly infections",
        COUNT_TEXT + f" E. coli, EHEC and measles as one series; standard errors over blocks of {BLOCK} weeks.",
        ("counts_tscount",),
        load_infections,
        ask_counts,
        COUNTS,
    ),
    "deaths": Question(
        "Poisson or negative binomial: weekly deaths",
        COUNT_TEXT + f" Eight groups of age as one series; standard errors over blocks of {BLOCK} weeks.",
        ("counts_surveillance",),
        load_deaths,
        ask_counts,
        COUNTS,
    ),
    "spikes": Question(
        "Poisson or negative binomial: spikes of motor cortex in bins of 20 ms",
        COUNT_TEXT,
        ("monkey_reach_bmi",),
        load_spikes,
        ask_counts,
        COUNTS,
    ),
    "guide": Question(
        "Guide: a deep Markov model of motor cortex",
        f"Six latent dimensions, bidirectional encoder; bounds with {PARTICLES} particles.",
        ("monkey_reach_bmi",),
        load_spikes,
        ask_guide,
        tuple(FAMILIES),
    ),
}
READ_BY_RDATA = ("counts_tscount", "counts_surveillance")


def absent(question: Question) -> str | None:
    """What a question lacks, in words."""
    for name in question.needs:
        if not (folder() / name).is_dir():
            return f"no {name} in {folder()}; LATENTRNN_SHARED names the folder above data/"
        if name in READ_BY_RDATA and importlib.util.find_spec("rdata") is None:
            return f"{name} needs rdata; pip install rdata"
    return None


def run(task: tuple[str, str, int]) -> Outcome:
    """Fit one arm with one seed."""
    name, arm, seed = task
    torch.set_num_threads(1)
    question = QUESTIONS[name]
    return question.ask(question.load(), arm, seed)


# -- the table ------------------------------------------------------------------------------------------------------


def averaged(outcomes: list[Outcome], metric: str) -> lr.Score:
    """A score whose blocks are means over seeds."""
    first = outcomes[0].scores[metric]
    gains = torch.stack([outcome.scores[metric].gains for outcome in outcomes]).mean(0)
    value, error = jackknife(gains, first.amounts, first.unit)
    return dataclasses.replace(first, gains=gains, value=value, standard_error=error)


def section(question: Question, found: dict[str, list[Outcome]]) -> list[str]:
    """One question's table: every arm, and its difference from the first."""
    first = found[question.arms[0]]
    metrics = list(first[0].scores)
    noted = any(outcome.notes for outcomes in found.values() for outcome in outcomes)
    columns = ["arm", "weights", "time of a step", "steps kept"]
    for metric in metrics:
        columns += [metric, "less the first", "s.e.", "by seed"]
    lines = ["", f"## {question.title}", "", question.text, ""]
    columns += ["scatter"] if noted else []
    lines += ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    reference = min(outcome.milliseconds for outcome in first)
    for arm in question.arms:
        outcomes = found[arm]
        spent = min(outcome.milliseconds for outcome in outcomes) / reference
        kept = ", ".join(str(outcome.kept) for outcome in outcomes)
        cells = [arm, f"{outcomes[0].weights:,}", f"{spent:.2f}", kept]
        for metric in metrics:
            score = averaged(outcomes, metric)
            cells.append(f"{score.value:.4f}")
            if arm == question.arms[0]:
                cells += ["", "", ""]
                continue
            gap = lr.paired_difference(score, averaged(first, metric))
            singles = [
                lr.paired_difference(one.scores[metric], other.scores[metric]).value
                for one, other in zip(outcomes, first, strict=True)
            ]
            cells += [f"{gap.value:+.4f}", f"{gap.standard_error:.4f}", ", ".join(f"{value:+.4f}" for value in singles)]
        if noted:
            notes = [outcome.notes for outcome in outcomes if outcome.notes]
            mean = {key: statistics.mean(note[key] for note in notes) for key in notes[0]} if notes else {}
            cells.append(f"{mean['observed']:.2f} ({mean['from']:.2f} to {mean['to']:.2f})" if mean else "")
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def report(found: dict[str, dict[str, list[Outcome]]], left_out: dict[str, str], seeds: int, seconds: float) -> str:
    """All tables."""
    lines = [
        "# Trade-offs of docs/choosing.md, measured on recorded data",
        "",
        "Within a question all arms have the same data, optimiser and number of steps, none of it tuned but for",
        "weekly counts (a state of 8 and a weight decay of 1, by the validation part of both families). Weights that",
        "are best on the validation part are kept, and scores are of a test part that served for nothing else. Scores",
        f"are means over {seeds} fits (seeds 0 to {seeds - 1}). A difference is paired by test sequence or block, with",
        "its standard error (s.e.) over these, fits held fixed; the differences of single seeds stand beside. Larger",
        "is better. The time of a step is the processor's, least of the fits, relative to the first arm's.",
        "Seen before weekly settings were chosen: test scores of one seed with a state of 16 and a decay of 0.01, and",
        "of a third arm, Poisson with innovations, left out since its fits took twice as long and it was behind both.",
        f"torch {torch.__version__}, numpy {np.__version__}, latentrnn {lr.__version__}, {platform.machine()}, "
        f"{seconds:.0f} s of processor time.",
    ]
    for name, outcomes in found.items():
        lines += section(QUESTIONS[name], outcomes)
    if left_out:
        lines += ["", "Left out: " + "; ".join(f"{QUESTIONS[name].title} ({why})" for name, why in left_out.items())]
    return "\n".join(lines) + "\n"


def timed(task: tuple[str, str, int]) -> tuple[Outcome, float]:
    """An outcome and the processor time that it took."""
    start = time.process_time()
    return run(task), time.process_time() - start


def main() -> None:
    """Ask every question whose data are there, and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--questions", nargs="+", choices=list(QUESTIONS), default=list(QUESTIONS))
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "choosing.md")
    options = parser.parse_args()
    left_out = {name: why for name in options.questions if (why := absent(QUESTIONS[name])) is not None}
    for name, why in left_out.items():
        print(f"{name} skipped: {why}")
    names = [name for name in options.questions if name not in left_out]
    if not names:
        return
    tasks = [(name, arm, seed) for name in names for arm in QUESTIONS[name].arms for seed in range(options.seeds)]
    found: dict[str, dict[str, list[Outcome]]] = {name: {} for name in names}
    seconds = 0.0
    with ProcessPoolExecutor(options.processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        for (name, arm, seed), (outcome, spent) in zip(tasks, pool.map(timed, tasks), strict=True):
            found[name].setdefault(arm, []).append(outcome)
            seconds += spent
            values = {metric: round(score.value, 4) for metric, score in outcome.scores.items()}
            print(name, arm, seed, values, outcome.notes, f"{spent:.0f} s", flush=True)
    text = report(found, left_out, options.seeds, seconds)
    options.out.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
