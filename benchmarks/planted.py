"""What a fit with everything at its default finds of systems whose numbers are planted.

`python -m benchmarks.planted` writes `benchmarks/results/planted.md`. Five kinds of simulated systems, each several
times: model and guide as a reader of the README writes them, `lr.fit(model, guide, train, valid)` and nothing else.
Compared on held-out sequences with the true model, which is stated by `fixed=` where it is in the class:

- dynamics: eigenvalues of the fitted transition (of a switch, of its matrix of probabilities), against the planted ones
- evidence: nats a sequence below the true model, by the same particle filter on both generative models (exact of a
  switch), which no guide takes part in; with the standard error over sequences. Where rare, large inputs drive the
  state, half of the particles look at the step's counts (`benchmarks/local_proposals.py`)
- coverage: the share of planted rates that lie within the posterior's 90% intervals, and R2 of their means. Rates of a
  switch follow from points, so that it stands there a second time, with priors on what its regimes do
"""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyro.distributions as dist
import torch
from numpy.typing import NDArray
from scipy.integrate import solve_ivp

import latentrnn as lr
from benchmarks.local_proposals import System as Driven
from benchmarks.local_proposals import log_evidence

ROOT = Path(__file__).resolve().parents[1]
TRAIN, VALID, TEST = 70, 15, 15
DRAWS, PARTICLES = 100, 1000
Array = NDArray[Any]


@dataclass(frozen=True)
class System:
    """One simulated data set.

    Attributes:
        counts: (sequence, time, channel).
        rates: expected counts, likewise.
        model: what is fitted; given what is known of it by `fixed`, the truth.
        eigenvalues: of the planted dynamics; none where there are none.
        fixed: parameters of transition, latent and head; None where the truth is not in the class.
        evidence: log evidence of each sequence of a posterior, (sequence,), nats.
    """

    counts: Array
    rates: Array
    model: Callable[[dict[str, Any], dict[str, Any], dict[str, Any]], dict[str, Any]]
    eigenvalues: Array | None = None
    fixed: tuple[dict[str, Any], dict[str, Any], dict[str, Any]] | None = None
    evidence: Callable[[lr.Posterior], torch.Tensor] | None = None


def markov(size: int) -> Callable[..., dict[str, Any]]:
    """A linear system with noise at every step, heard through counts."""
    return lambda transition, latent, head: {
        "transition": lr.Linear(size, fixed=transition),
        "latent": lr.MarkovNormal(fixed=latent),
        "observations": {"spikes": lr.Poisson(fixed=head)},
    }


def loadings(rng: np.random.Generator, channels: int, size: int, scale: float, rate: float) -> tuple[Array, Array]:
    """Weights of counts on a state, and baselines around a rate."""
    return scale * rng.normal(size=(channels, size)) / size**0.5, np.log(rate) + 0.2 * rng.normal(size=channels)


def linear(seed: int, matrix: Array, *, channels: int, bins: int, scale: float, noise: float, rate: float) -> System:
    """z_t = A z_{t-1} + noise, counts of channels of exp(C z_t + b)."""
    rng, size = np.random.default_rng(seed), len(matrix)
    weight, baseline = loadings(rng, channels, size, scale, rate)
    z = rng.normal(size=(TRAIN + VALID + TEST, size))
    states = np.empty((len(z), bins, size))
    for t in range(bins):
        z = z @ matrix.T + noise * rng.normal(size=z.shape)
        states[:, t] = z
    rates = np.exp(states @ weight.T + baseline)
    known = (
        {"weight": matrix, "bias": np.zeros(size), "input_weight": np.zeros((size, 1))},
        {"scale": np.full(size, noise), "initial_scale": np.ones(size), "initial_loc": np.zeros(size)},
        {"weight": weight, "baseline": baseline},
    )
    return System(rng.poisson(rates), rates, markov(size), np.linalg.eigvals(matrix), known)


def rotating(seed: int) -> System:
    """Two dimensions that turn: eigenvalues 0.969 +- 0.146i."""
    matrix = np.array([[0.969, -0.146], [0.146, 0.969]])
    return linear(seed, matrix, channels=20, bins=100, scale=0.7, noise=0.2, rate=0.3)


def drift(seed: int) -> System:
    """One slow dimension: 0.99."""
    return linear(seed, np.array([[0.99]]), channels=10, bins=200, scale=0.5, noise=0.1, rate=0.5)


def switching(seed: int, **head: Any) -> System:
    """Three regimes with rates of their own, which stay for about twenty bins.

    Args:
        seed: of the data.
        head: what the fitted model's head is told.
    """
    rng, states, bins, channels = np.random.default_rng(seed), 3, 100, 12
    moves = np.full((states, states), 0.025) + 0.925 * np.eye(states)
    weight, baseline = rng.normal(size=(channels, states)), np.full(channels, np.log(0.3))
    path = np.empty((TRAIN + VALID + TEST, bins), dtype=int)
    path[:, 0] = rng.integers(states, size=len(path))
    for t in range(1, bins):
        path[:, t] = (rng.random((len(path), 1)) > moves.cumsum(-1)[path[:, t - 1]]).sum(-1)
    rates = np.exp(weight.T[path] + baseline)
    known = (
        {},
        {"transition": moves, "initial": np.full(states, 1 / states)},
        {"weight": weight, "baseline": baseline},
    )

    def model(_: dict[str, Any], latent: dict[str, Any], known: dict[str, Any]) -> dict[str, Any]:
        return {
            "transition": lr.Linear(1),
            "latent": lr.Discrete(states, weights="none", fixed=latent),
            "observations": {"spikes": lr.Poisson(fixed=known) if known else lr.Poisson(**head)},
        }

    return System(rng.poisson(rates), rates, model, np.linalg.eigvals(moves), known)


def switching_with_priors(seed: int) -> System:
    """The same, with priors on what the regimes do, which then has intervals."""
    return switching(seed, priors={"weight": dist.Normal(0.0, 1.0), "baseline": dist.Normal(-1.0, 1.0)})


def inputs(seed: int) -> System:
    """A linear system of two dimensions that rare, large inputs push at times that nobody knows.

    Counts go by softplus: under an exponential the largest inputs of a Student-t with 2.5 degrees of freedom would make
    millions of them.
    """
    rng, bins, channels = np.random.default_rng(seed), 100, 20
    matrix = np.array([[0.95, -0.05], [0.05, 0.95]])
    weight, log_rate = loadings(rng, channels, 2, 1.0, 0.4)
    baseline = np.log(np.expm1(np.exp(log_rate)))
    pushes = 0.2 * rng.standard_t(2.5, size=(TRAIN + VALID + TEST, bins, 2))
    z, states = np.zeros((len(pushes), 2)), np.empty(pushes.shape)
    for t in range(bins):
        z = z @ matrix.T + pushes[:, t]
        states[:, t] = z
    rates = np.logaddexp(0.0, states @ weight.T + baseline)
    known = (
        {"weight": matrix, "bias": np.zeros(2), "input_weight": np.eye(2)},
        {"scale": np.full(2, 0.2), "degrees": np.full(2, 2.5), "initial_state": np.zeros(2)},
        {"weight": weight, "baseline": baseline},
    )

    def model(transition: dict[str, Any], latent: dict[str, Any], head: dict[str, Any]) -> dict[str, Any]:
        return {
            "transition": lr.Linear(2, fixed=transition),
            "latent": lr.Innovations(2, prior="student_t", fixed=latent),
            "observations": {"spikes": lr.Poisson("softplus", fixed=head)},
        }

    def evidence(posterior: lr.Posterior) -> torch.Tensor:
        return log_evidence(Driven.of(posterior.model, "spikes"), posterior.data.observations["spikes"])

    return System(rng.poisson(rates), rates, model, np.linalg.eigvals(matrix), known, evidence)


def lorenz(seed: int) -> System:
    """Lorenz's equations from starts of their own, heard through counts; a network, as the README has it, is fitted."""
    rng, bins, channels, step = np.random.default_rng(seed), 100, 20, 0.02

    def field(_: float, s: Array) -> list[float]:
        return [10 * (s[1] - s[0]), s[0] * (28 - s[2]) - s[1], s[0] * s[1] - 8 / 3 * s[2]]

    times, paths = 5 + step * np.arange(bins), []
    for start in rng.normal(size=(TRAIN + VALID + TEST, 3)) * 5 + [0, 0, 25]:
        paths.append(solve_ivp(field, (0, times[-1]), start, t_eval=times, rtol=1e-8).y.T)
    states = (np.stack(paths) - [0, 0, 23.5]) / [8, 9, 8.5]
    weight, baseline = loadings(rng, channels, 3, 0.8, 0.4)
    rates = np.exp(states @ weight.T + baseline)

    def model(*_: dict[str, Any]) -> dict[str, Any]:
        heads = {"spikes": lr.Poisson()}
        return {"transition": lr.GRU(64), "latent": lr.Innovations(4, initial=16), "observations": heads}

    return System(rng.poisson(rates), rates, model)


SYSTEMS: dict[str, Callable[[int], System]] = {
    "rotating linear": rotating,
    "Lorenz": lorenz,
    "switching": switching,
    "switching, priors on rates": switching_with_priors,
    "inputs at unknown times": inputs,
    "slow drift": drift,
}


def guide(model: lr.LatentRNN) -> lr.Guide:
    """The README's."""
    encoder = lr.RNNEncoder(64, direction="bidirectional") if model.latent_sites() else None
    return lr.Guide(model, encoder=encoder)


def ahead(posterior: lr.Posterior) -> torch.Tensor:
    """Log evidence of each sequence, nats: exact, or by a particle filter on the generative model."""
    if not posterior.model.latent_sites():
        return posterior.evidence("exact").values.double()
    found = []
    for counts in posterior.data.observations["spikes"]:
        follow = lr.OnlineFilter(posterior, num_particles=PARTICLES, check=False)
        found.append(sum(float(follow.update(now).log_prob) for now in counts))
    return torch.tensor(found, dtype=torch.float64)


def fitted_eigenvalues(model: lr.LatentRNN) -> Array:
    """Of the transition, or of the switch."""
    if isinstance(model.latent, lr.Discrete):
        return np.linalg.eigvals(torch.softmax(model.latent.switch_logits, -1).detach().numpy())
    return np.linalg.eigvals(model.transition.recurrent_weight.detach().numpy())


def farthest(found: Array, planted: Array) -> float:
    """Return how far eigenvalues are from the planted ones, at most, in the order of their sizes."""
    order = [sorted(each, key=lambda e: (round(abs(e), 6), e.imag)) for each in (found.astype(complex), planted)]
    return float(max(abs(a - b) for a, b in zip(*order, strict=True)))


def row(name: str, seed: int) -> str:
    """Fit one system, and return its line of the table."""
    system = SYSTEMS[name](seed)
    data = lr.SequenceData.from_arrays({"spikes": system.counts.astype(float)})
    train, valid, test = data[:TRAIN], data[TRAIN : TRAIN + VALID], data[TRAIN + VALID :]
    model = lr.LatentRNN(data.spec, **system.model({}, {}, {}))
    begun = time.process_time()
    result = lr.fit(model, guide(model), train, valid, seed=0, reporting=lr.Reporting(progress=False))
    seconds = time.process_time() - begun
    posterior = result.posterior(test)
    rates, planted = posterior.rates("spikes", DRAWS).double().numpy(), system.rates[TRAIN + VALID :]
    low, high = np.quantile(rates, [0.05, 0.95], axis=0)
    covered = ((low <= planted) & (planted <= high)).mean()
    r2 = 1 - np.square(np.log(rates).mean(0) - np.log(planted)).mean() / np.log(planted).var((0, 1)).mean()
    below = eigenvalues = "-"
    if system.fixed is not None:
        truth = lr.LatentRNN(data.spec, **system.model(*system.fixed))
        evidence = system.evidence or ahead
        gap = evidence(lr.Posterior(truth, guide(truth), test)) - evidence(posterior)
        below = f"{float(gap.mean()):.2f} +- {float(gap.std()) / len(gap) ** 0.5:.2f}"
    if system.eigenvalues is not None:
        eigenvalues = f"{farthest(fitted_eigenvalues(result.model), system.eigenvalues):.3f}"
    steps, reason = int(result.history["step"][-1]) + 1, result.stop_reason.partition(":")[0]
    cells = [name, seed, eigenvalues, below, f"{covered:.3f}", f"{r2:.3f}", f"{steps:,}", f"{seconds:.0f}", reason]
    return "| " + " | ".join(map(str, cells)) + " |"


def main() -> None:
    """Fit everything, and write the table as it grows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--systems", nargs="*", default=list(SYSTEMS), choices=list(SYSTEMS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "planted.md")
    options = parser.parse_args()
    torch.set_num_threads(1)
    lines = [
        "# Planted systems, everything at its default",
        "",
        f"`python -m benchmarks.planted` on {platform.machine()}, one thread, torch {torch.__version__}. {TRAIN} "
        f"sequences to learn from, {VALID} for validation, {TEST} for the test. Eigenvalues: the largest distance to a "
        "planted one. Below the truth: nats a test sequence, with the standard error over them. Covered: of planted "
        "rates within 90% intervals. R2: of log-rates. Seconds are the processor's.",
        "",
        "| system | seed | eigenvalues off by | below the truth | covered | R2 | steps | seconds | ended |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for seed in range(options.seeds):
        for name in options.systems:
            lines.append(row(name, seed))
            print(lines[-1], flush=True)
            options.out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
