"""Do intervals of a decay and of gains hold what was planted, with priors and without?

`python benchmarks/uncertainty.py` writes `benchmarks/results/uncertainty.md`, in about eight minutes of one core.

Forgetting with rehearsal: every
learner recalls or not in each of 100 trials, with the log-odds b + g h_t of a strength that fades and that each
rehearsal raises by one,

    h_t = exp(-1 / tau) h_{t-1} + x_t,    tau = 30 trials,    g = 3,    b = -2

and rehearsals come at random, in 3 of 100 trials. Each simulation has its own seed, none is left out; a way that fails
at one, or says that the data do not determine an answer, counts as not covering. Nothing was tuned on these data but
steps and learning rates of the fits, by one simulation of another seed.

A network's gains: counts of 12 channels to a stimulus that a hidden context opens and closes, which a GRU has to
remember from its cue (`tests/recovery/simulate.py`); its gains over all weights, in the convention of
`Posterior.gain`, in which the largest gate is one.
"""

from __future__ import annotations

import argparse
import platform
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyro.distributions as dist
import torch
from scipy.stats import binom

import latentrnn as lr
from tests.recovery.simulate import OPEN, planted_gain

DECAY, GAIN, BASELINE = 30.0, 3.0, -2.0
NAMES = {"decay": "transition.time_constant", "gain": "recall.readout.weight"}
PLANTED = {"decay": DECAY, "gain": GAIN}
QUIET = {"reporting": lr.Reporting(progress=False), "compute": lr.Compute(device="cpu")}
LEVEL = 0.95
BOUND = 1e-3  # probability outside of the bounds that the table gives

Ends = dict[str, tuple[float, float]]  # of an interval, by quantity


def simulate(seed: int, learners: int, trials: int = 100) -> lr.SequenceData:
    """Recalls, (learner, trial, 1), and rehearsals."""
    rng = np.random.default_rng(seed)
    rehearsal = (rng.random((learners, trials, 1)) < 0.03).astype(float)
    strength, recalls = np.zeros((learners, 1)), []
    for t in range(trials):
        strength = np.exp(-1 / DECAY) * strength + rehearsal[:, t]
        odds = np.exp(BASELINE + GAIN * strength)
        recalls.append(rng.random((learners, 1)) < odds / (1 + odds))
    return lr.SequenceData.from_arrays({"recall": np.stack(recalls, 1).astype(float)}, {"rehearsal": rehearsal})


def model(data: lr.SequenceData, *, priors: bool = False, decay: float | None = None) -> lr.LatentRNN:
    """The model that was planted; with priors on all of its numbers, or with a known decay."""
    known = {"input_weight": 1.0} | ({} if decay is None else {"time_constant": decay})
    memory = lr.LeakyIntegrator(
        1,
        None if priors or decay is not None else 10.0,
        fixed=known,
        priors={"time_constant": dist.LogNormal(3.0, 1.0)} if priors else None,
    )
    wide = {"weight": dist.Normal(0.0, 5.0), "baseline": dist.Normal(0.0, 5.0)}
    return lr.LatentRNN(
        data.spec,
        transition=memory,
        latent=lr.Deterministic(fixed={"initial_state": 0.0}),
        observations={"recall": lr.Bernoulli(priors=wide if priors else None)},
        inputs="rehearsal",
    )


def fitted(data: lr.SequenceData, seed: int, **given: Any) -> lr.FitResult:
    """A short fit without priors, from a decay of 10 trials."""
    made = model(data, **given)
    optimizer = lr.AdamW(learning_rate=0.05, weight_decay=0.0)
    return lr.fit(made, lr.Guide(made), data, seed=seed, steps=60, optimizer=optimizer, **QUIET)


def over_all_weights(data: lr.SequenceData, seed: int, level: float = LEVEL, **settings: Any) -> Ends:
    """Intervals by `lr.uncertainty`."""
    result = fitted(data, seed)
    found = lr.uncertainty(result, data, list(NAMES.values()), device="cpu", progress=False, **settings)
    low, high = found.interval(level)
    return {name: (low[site].item(), high[site].item()) for name, site in NAMES.items()}


def on_a_plain_scale(data: lr.SequenceData, seed: int) -> Ends:
    """The same, symmetric about the decay itself."""
    return over_all_weights(data, seed, transform="identity")


def by_bootstrap(data: lr.SequenceData, seed: int) -> Ends:
    """The same by refits to learners that are drawn again."""
    return over_all_weights(data, seed, how="bootstrap", refits=60)


def of_the_gain_alone(data: lr.SequenceData, seed: int) -> Ends:
    """The interval of the gain where the decay is taken as known at its estimate."""
    estimate = lr.uncertainty(fitted(data, seed), data, NAMES["decay"], device="cpu").mean.item()
    found = lr.uncertainty(fitted(data, seed, decay=estimate), data, NAMES["gain"], device="cpu")
    low, high = found.interval(LEVEL)
    return {"gain": (low.item(), high.item())}


def by_laplace(data: lr.SequenceData, seed: int) -> Ends:
    """Priors on all numbers, Laplace's approximation of their posterior."""
    return _quantiles(lr.laplace(model(data, priors=True), data, device="cpu", seed=seed), data, seed)


def by_guide(data: lr.SequenceData, seed: int) -> Ends:
    """Priors on all numbers, a multivariate Normal guide."""
    made = model(data, priors=True)
    guide = lr.Guide(made, global_family="multivariate")
    optimizer = lr.AdamW(learning_rate=0.1)
    result = lr.fit(made, guide, data, seed=seed, steps=250, optimizer=optimizer, **QUIET)
    return _quantiles(result, data, seed)


def by_nuts(data: lr.SequenceData, seed: int) -> Ends:
    """Priors on all numbers, draws by NUTS."""
    settings: dict[str, Any] = {"num_samples": 200, "warmup": 150, "chains": 2, "progress": False}
    chains = lr.sample(model(data, priors=True), data, device="cpu", seed=seed, **settings)
    return _ends({name: value.flatten(1) for name, value in chains.parameters(400).items()})


def _quantiles(result: lr.FitResult, data: lr.SequenceData, seed: int) -> Ends:
    return _ends(result.posterior(data, device="cpu", seed=seed).parameters(4000))


def _ends(draws: dict[str, torch.Tensor]) -> Ends:
    tail = torch.tensor([(1 - LEVEL) / 2, (1 + LEVEL) / 2], dtype=torch.float64)
    found = {name: torch.quantile(draws[site].double().flatten(), tail).tolist() for name, site in NAMES.items()}
    return {name: (low, high) for name, (low, high) in found.items()}


Way = Callable[[lr.SequenceData, int], Ends]
WAYS: dict[str, Way] = {
    "`lr.uncertainty`, over all weights": over_all_weights,
    "`lr.uncertainty`, `transform='identity'`": on_a_plain_scale,
    "`lr.uncertainty`, `how='bootstrap'`, 60 refits": by_bootstrap,
    "`lr.uncertainty`, the decay known at its estimate": of_the_gain_alone,
    "priors, `lr.laplace`": by_laplace,
    "priors, `lr.fit` with a multivariate guide": by_guide,
    "priors, `lr.sample`": by_nuts,
}


def covered(way: Way, learners: int, simulations: int) -> tuple[dict[str, int], dict[str, list[float]], float]:
    """How many intervals hold what was planted, by quantity, their widths, and processor seconds of one simulation."""
    hits, widths = dict.fromkeys(PLANTED, 0), {name: list[float]() for name in PLANTED}
    start = time.process_time()
    for seed in range(simulations):
        data = simulate(seed, learners)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # an interval that is said to be no good is not left out
                ends = way(data, seed)
        except (ValueError, RuntimeError) as error:
            print(f"  simulation {seed}: {error}", flush=True)
            continue
        for name, (low, high) in ends.items():
            finite = np.isfinite([low, high]).all()
            hits[name] += bool(finite and low < PLANTED[name] < high)
            widths[name].append(high - low)
    return hits, widths, (time.process_time() - start) / simulations


def network_gains(seed: int) -> tuple[int, int, list[str]]:
    """How many 95% intervals of a network's gains hold what was planted, of how many, and what was warned of."""
    planted = planted_gain(seed, 60, steps=40, channels=12)
    covariates = {"stimulus": planted.stimulus, "cue": planted.cue}
    data = lr.SequenceData.from_arrays({"spikes": planted.counts}, covariates=covariates)
    head = lr.Poisson(gain=lr.StimulusGain("stimulus"))
    made = lr.LatentRNN(
        data.spec, transition=lr.GRU(3), latent=lr.Deterministic(), observations={"spikes": head}, inputs="cue"
    )
    result = lr.fit(
        made, lr.Guide(made), data, steps=300, batch_size=32, optimizer=lr.AdamW(learning_rate=0.01), **QUIET
    )
    exact = data.to(dtype=torch.float64)

    def gains(model: lr.LatentRNN) -> torch.Tensor:
        rollout, own = model.unroll(exact), model.observations["spikes"]
        gate = own.gain.gate(rollout.states(), rollout.inputs["spikes"].stimulus)
        return own.from_units("gain.beta", own.gain.beta)[:, 0] * gate.amax()

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        low, high = lr.uncertainty(result, data, gains, device="cpu").interval(LEVEL)
    truth = torch.as_tensor(OPEN * planted.beta)
    held = (low < truth) & (truth < high) & low.isfinite()
    return int(held.sum()), len(truth), [str(each.message) for each in said]


def rows(design: Sequence[tuple[str, int, int]]) -> list[str]:
    """The lines of a table: a way, learners, and simulations."""
    lines = []
    for name, learners, simulations in design:
        hits, widths, seconds = covered(WAYS[name], learners, simulations)
        least, most = (int(binom.ppf(p, simulations, LEVEL)) for p in (BOUND / 2, 1 - BOUND / 2))
        cells = [f"{hits[q]}" if widths[q] else "" for q in PLANTED]
        cells += [f"{np.median(widths[q]):.2f}" if widths[q] else "" for q in PLANTED]
        lines.append(
            f"| {name} | {learners} | {simulations} | {' | '.join(cells)} | {least} to {most} | {seconds:.2f} |"
        )
        print(lines[-1], flush=True)
    return lines


def of_networks(networks: int) -> list[str]:
    """The lines on a network's gains."""
    found = [network_gains(seed) for seed in range(networks)]
    held, asked = sum(each[0] for each in found), sum(each[1] for each in found)
    no_mode = sum(any("is no mode" in text for text in said) for *_, said in found)
    return [
        f"Of a network's gains (a GRU and its heads, 122 weights, {networks} simulations of 12 channels) {held} of "
        f"{asked}",
        "intervals over all weights held the planted one (bounds as above for as many that are independent: "
        f"{int(binom.ppf(BOUND / 2, asked, LEVEL))} to {int(binom.ppf(1 - BOUND / 2, asked, LEVEL))}).",
        f"In {no_mode} of the {networks} simulations it was said that the point was no mode after 100 Newton steps.",
        "",
    ]


def main() -> None:
    """Simulate, infer and write the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--simulations", type=int, default=100)
    parser.add_argument("--networks", action="store_true", help="only a network's gains; the table stays as it is")
    options = parser.parse_args()
    count = options.simulations
    torch.set_num_threads(1)
    out = Path(__file__).parent / "results" / "uncertainty.md"
    few, half, networks = (max(1, count // share) for share in (10, 2, 20))
    if options.networks:
        before = out.read_text().split("\nOf a network's gains")[0].rstrip("\n").split("\n")
        out.write_text("\n".join([*before, "", *of_networks(networks)]))
        return
    start = time.process_time()
    every, plain, bootstrap, gain_alone, laplace, guide, nuts = WAYS
    many = [(name, 20, count) for name in (every, gain_alone, laplace)]
    many += [(guide, 20, half), (bootstrap, 20, few), (nuts, 20, few)]
    less = [(name, 5, count) for name in (every, plain, gain_alone, laplace)]
    lines = rows([*many, *less])
    about_networks = of_networks(networks)
    page = [
        "# Intervals of a decay and of a gain, by simulation",
        "",
        "`python benchmarks/uncertainty.py`: forgetting with rehearsal, a decay of 30 trials and a gain of 3 planted,",
        "100 trials of every learner; the script's docstring has the protocol. Numbers of 95% intervals that hold what",
        "was planted, their median widths (trials, and log-odds per unit of strength), and between which numbers the",
        f"first lie with a probability of {1 - BOUND:g} where intervals are right. Seconds are of the processor, for",
        "one simulation.",
        f"torch {torch.__version__}, numpy {np.__version__}, latentrnn {lr.__version__}, {platform.machine()}, "
        f"{time.process_time() - start:.0f} s of processor time.",
        "",
        "| intervals | learners | simulations | decay held | gain held | decay's width | gain's | bounds | seconds |",
        "|---|---|---|---|---|---|---|---|---|",
        *lines,
        "",
        *about_networks,
    ]
    out.write_text("\n".join(page))


if __name__ == "__main__":
    main()
