"""Simulation-based calibration: does the inference find again what the model itself has planted?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pyro
import torch
from pyro import poutine
from pyro.poutine.trace_struct import Trace
from torch import Tensor

from latentrnn.criticism.ranks import Calibration, rank_calibration
from latentrnn.data import SequenceData
from latentrnn.inference.fitting.result import FitResult
from latentrnn.inference.guides.guide import Guide
from latentrnn.inference.objectives.terms import local_log_prob, paired_traces
from latentrnn.inference.posterior.posterior import Posterior
from latentrnn.support.arguments import check_flag, check_kind_of, check_seed, check_size
from latentrnn.support.isolation import isolated, random_state
from latentrnn.support.progress import progress_bar

JOINT_DENSITY = "log density"  # log p(y, z): sees what the data say, which no function of z alone does
TARP = "distance to a reference"
LARGEST_CHUNK = 2**24  # numbers that the draws of one chunk may hold

Values = dict[str, Tensor]
Quantities = Callable[[Values, SequenceData], Mapping[str, Tensor]]
Refit = Callable[[SequenceData], Posterior | FitResult]


def simulation_based_calibration(
    posterior: Posterior,
    *,
    num_simulations: int | None = None,
    num_draws: int = 99,
    refit: Refit | None = None,
    quantities: Quantities | None = None,
    seed: int = 0,
    progress: bool = False,
) -> Calibration:
    """Simulate from the model, infer, and rank what was planted among the draws of what was inferred.

    Without `refit`, at the model's own weights: latents and data of new sequences are drawn from the model, and the
    guide, amortised, is asked for the latents; one simulation is one sequence with the covariates, length and missing
    entries of one of the posterior's. With `refit`, parameters are drawn from their priors too, and one simulation is
    a whole data set, to which `refit` is applied. The model's weights without priors are then known to both sides, so
    `refit` must take them as they are: `lambda data: lr.laplace(posterior.model, data)`, or `lr.sample`.

    By default the quantities are, for latents, every dimension at the middle step and in its average over time (that of
    a start as it is), log p(y, z), and the distance to a random reference point (TARP, a test of all dimensions
    jointly); with `refit`, every entry of every parameter, that distance and, where no local latent is random,
    log p(y | parameters).

    Args:
        posterior: model, guide, and the sequences to be imitated.
        num_simulations: all of the posterior's sequences once by default; 50 with `refit`.
        num_draws: L, posterior draws of each simulation; L + 1 should have many divisors.
        refit: from data to a posterior of the parameters.
        quantities: instead of the default ones, from values by site, (*sample, sequence, time, dim) for trajectories,
            (*sample, sequence, dim) for starts, and for parameters with `refit` (*sample, *shape), to named
            (*sample, sequence), and with `refit` (*sample,).
        seed: of simulations and draws.
        progress: whether to show a progress bar over refits.

    Raises:
        ValueError: nothing to infer, a guide that is not amortised, parameters with priors but no `refit`, or data of
            which the model does not simulate every part (context steps; missing entries of a head that feeds back).
        TypeError: `refit` returns neither a posterior nor a fit.

    References:
        Talts, Betancourt, Simpson, Vehtari, Gelman. Validating Bayesian inference algorithms with simulation-based
        calibration. 2018.
        Modrák, Moon, Kim, Bürkner, Huurre, Faltejsková, Gelman, Vehtari. Simulation-based calibration checking for
        Bayesian computation: the choice of test quantities shapes sensitivity. 2023.
        Lemos, Coogan, Hezaveh, Perreault-Levasseur. Sampling-based accuracy testing of posterior estimators for
        general inference (TARP). 2023.
    """
    owner = "simulation_based_calibration"
    check_kind_of(owner, "posterior", posterior, Posterior)
    for name, function in (("refit", refit), ("quantities", quantities)):
        if function is not None and not callable(function):
            raise TypeError(f"{owner}: {name} must be a function; found {type(function).__name__}")
    default = len(posterior.data) if refit is None else 50
    number = check_size(owner, "num_simulations", default if num_simulations is None else num_simulations)
    num_draws, seed = check_size(owner, "num_draws", num_draws), check_seed(owner, seed)
    progress = check_flag(owner, "progress", progress)
    _check(posterior, refit)
    if refit is None:
        truth, draws = _of_latents(posterior, number, num_draws, quantities, seed)
    else:
        truth, draws = _of_parameters(posterior, refit, number, num_draws, quantities, seed, progress)
    return rank_calibration(truth, draws, seed=seed)


def _check(posterior: Posterior, refit: Refit | None) -> None:
    model, guide, data = posterior.model, posterior.guide, posterior.data
    owner = "simulation_based_calibration"
    if refit is None:
        if model.parameter_sites():
            raise ValueError(
                f"{owner}: the parameters {sorted(model.parameter_sites())} have priors, so that they must be inferred "
                "anew from every simulated data set: give refit=, e.g. lambda data: lr.laplace(model, data)"
            )
        if not model.latent_sites():
            raise ValueError(f"{owner}: the model has neither random latents nor parameters with priors to infer")
        if isinstance(guide, Guide) and not guide.local.amortised:
            raise ValueError(f"{owner}: {guide.local!r} has numbers for single sequences, and none for simulated ones")
    elif not model.parameter_sites():
        raise ValueError(f"{owner}: refit= is for parameters with priors, of which the model has none")
    if bool((data.host_context > 0).any()):
        raise ValueError(
            f"{owner}: the data have context steps, which a simulation would have to agree with; drop them"
        )
    for name, head in model.observations.items():
        # only heads at the pace of the transition feed back
        if head.feedback is not None and bool((data.valid.unsqueeze(-1) & ~data.masks[name]).any()):
            raise ValueError(
                f"{owner}: {name!r} feeds back and has missing entries, whose simulated values the state would see "
                "and the guide would not; use sequences that are complete"
            )


def _simulate(model: Any, data: SequenceData) -> tuple[Trace, SequenceData]:
    """Draw everything from the model: a trace, and the data with new values where entries are observed."""
    with torch.no_grad():
        trace = poutine.trace(poutine.uncondition(model)).get_trace(data)
    values = {
        name: torch.where(data.masks[name], trace.nodes[name]["value"].to(data.dtype), data.observations[name])
        for name in model.observations
    }
    return trace, data.with_observations(values)


# -- latents of new sequences, at fixed parameters -----------------------------------------------------------------


def _of_latents(
    posterior: Posterior, number: int, num_draws: int, quantities: Quantities | None, seed: int
) -> tuple[Values, Values]:
    model, guide = posterior.model, posterior.guide
    data = posterior.data.to(posterior.device)
    width = max(site.dim for site in model.latent_sites()) + model.transition.state_size
    size = max(1, LARGEST_CHUNK // ((num_draws + 1) * data.num_steps * width))
    truths: dict[str, list[Tensor]] = {}
    drawn: dict[str, list[Tensor]] = {}
    with random_state(seed, data.device), torch.no_grad():
        left = number
        while left > 0:
            for start in range(0, min(left, len(data)), size):
                batch = data[start : min(start + size, left, len(data))]
                for name, (truth, draws) in _one_batch(model, guide, batch, num_draws, quantities).items():
                    truths.setdefault(name, []).append(truth)
                    drawn.setdefault(name, []).append(draws)
            left -= len(data)
    return {k: torch.cat(v) for k, v in truths.items()}, {k: torch.cat(v, 1) for k, v in drawn.items()}


def _one_batch(
    model: Any, guide: Any, data: SequenceData, num_draws: int, quantities: Quantities | None
) -> dict[str, tuple[Tensor, Tensor]]:
    """Return truth and draws of every quantity for one simulation of a batch."""
    names = [site.name for site in model.latent_sites()]
    along = {site.name for site in model.latent_sites() if site.along_time}
    simulated, data = _simulate(model, data)
    truth = {name: simulated.nodes[name]["value"] for name in names}
    guided, _ = paired_traces(model, guide, data, num_draws)
    draws = {name: guided.nodes[name]["value"] for name in names}
    if num_draws == 1:
        draws = {name: value.unsqueeze(0) for name, value in draws.items()}
    if quantities is not None:
        found = {k: (v, quantities(draws, data)[k]) for k, v in quantities(truth, data).items()}
        return {k: (v.cpu(), d.cpu()) for k, (v, d) in found.items()}
    of_draws = _middle_and_mean(draws, data, along)
    pairs = {name: (value, of_draws[name]) for name, value in _middle_and_mean(truth, data, along).items()}
    pairs[JOINT_DENSITY] = (
        _log_density(model, data, {k: v.unsqueeze(0) for k, v in truth.items()})[0],
        _log_density(model, data, draws),
    )
    elsewhere, _ = _simulate(model, data)
    reference = {name: elsewhere.nodes[name]["value"] for name in names}
    pairs[TARP] = _distance(truth, reference, data, along), _distance(draws, reference, data, along)
    return {name: (value.cpu(), drawn.cpu()) for name, (value, drawn) in pairs.items()}


def _middle_and_mean(values: Values, data: SequenceData, along: set[str]) -> Values:
    found: Values = {}
    for name, value in values.items():
        if name not in along:
            found |= {f"{name}[{d}]": value[..., d] for d in range(value.shape[-1])}
            continue
        middle = (data.lengths // 2).reshape(-1, 1, 1).expand(*value.shape[:-2], 1, value.shape[-1])
        at_middle = value.gather(-2, middle).squeeze(-2)
        mean = (value * data.valid.unsqueeze(-1)).sum(-2) / data.lengths.unsqueeze(-1)
        for d in range(value.shape[-1]):
            found |= {f"{name}[{d}] middle": at_middle[..., d], f"{name}[{d}] mean": mean[..., d]}
    return found


def _log_density(model: Any, data: SequenceData, latents: Values) -> Tensor:
    """Return log p(y, z), (sample, sequence), nats."""
    samples = len(next(iter(latents.values())))
    with pyro.plate("draws", samples, dim=-2):
        trace = poutine.trace(poutine.condition(model, data=latents)).get_trace(data)
    nothing = torch.zeros(samples, data.num_sequences, dtype=data.dtype, device=data.device)
    return local_log_prob(trace, nothing, observed=True)


def _distance(values: Values, reference: Values, data: SequenceData, along: set[str]) -> Tensor:
    """Return the Euclidean distance of all latents to those of a reference, each in units of the reference's spread."""
    total = torch.zeros((), device=data.device)
    for name, value in values.items():
        other = reference[name]
        spread = other.std() if other.numel() > 1 else other.new_ones(())
        square = ((value - other) / spread.clamp_min(1e-6)).square()
        if name in along:
            square = (square * data.valid.unsqueeze(-1)).sum(-2)
        total = total + square.sum(-1)
    return total.sqrt()


# -- parameters, by refitting --------------------------------------------------------------------------------------


def _of_parameters(
    posterior: Posterior,
    refit: Refit,
    number: int,
    num_draws: int,
    quantities: Quantities | None,
    seed: int,
    progress: bool,
) -> tuple[Values, Values]:
    model = posterior.model
    data = posterior.data.to(posterior.device)
    names = list(model.parameter_sites())
    truths: dict[str, list[Tensor]] = {}
    drawn: dict[str, list[Tensor]] = {}
    # what draws from a posterior must not repeat itself, nor the simulation: ranks would then share their errors
    seeds = torch.randint(2**31, (number, 2), generator=torch.Generator().manual_seed(seed), device="cpu").tolist()
    for of_simulation, of_draws in progress_bar(seeds, disable=not progress, desc="refits"):
        with random_state(of_simulation, data.device):
            trace, simulated = _simulate(model, data)
            reference, _ = _simulate(model, data)
        fitted = refit(simulated)
        if isinstance(fitted, FitResult):
            fitted = fitted.posterior(simulated, device=str(posterior.device))
        if not isinstance(fitted, Posterior):
            raise TypeError(f"refit: expected a Posterior or a FitResult; found {type(fitted).__name__}")
        truth = {name: trace.nodes[name]["value"].cpu() for name in names}
        draws = fitted.reseeded(of_draws).parameters(num_draws)
        if quantities is not None:
            pairs = {k: (v, quantities(draws, simulated)[k]) for k, v in quantities(truth, simulated).items()}
        else:
            other = {name: reference.nodes[name]["value"].cpu() for name in names}
            pairs = _entries_and_distance(truth, draws, other)
            if not model.latent_sites():
                of_truth = _log_likelihood(model, simulated, {k: v.unsqueeze(0) for k, v in truth.items()})[0]
                pairs["log likelihood"] = of_truth, _log_likelihood(model, simulated, draws)
        for name, (value, draw) in pairs.items():
            truths.setdefault(name, []).append(torch.as_tensor(value).cpu())
            drawn.setdefault(name, []).append(draw.cpu())
    return {k: torch.stack(v) for k, v in truths.items()}, {k: torch.stack(v, 1) for k, v in drawn.items()}


@isolated
def _entries_and_distance(truth: Values, draws: Values, reference: Values) -> dict[str, tuple[Tensor, Tensor]]:
    pairs = {}
    of_truth, of_draws = torch.zeros(()), torch.zeros(())
    for name, value in truth.items():
        other, draw = reference[name].flatten(), draws[name].reshape(len(draws[name]), -1)
        for entry, index in enumerate(np.ndindex(*value.shape)):
            label = f"{name}[{', '.join(map(str, index))}]" if index else name
            pairs[label] = value.flatten()[entry], draw[:, entry]
        spread = (other.std() if other.numel() > 1 else other.new_ones(())).clamp_min(1e-6)
        of_truth = of_truth + ((value.flatten() - other) / spread).square().sum()
        of_draws = of_draws + ((draw - other) / spread).square().sum(-1)
    return pairs | {TARP: (of_truth, of_draws)}


@isolated
def _log_likelihood(model: Any, data: SequenceData, parameters: Values) -> Tensor:
    """Return log p(y | parameters) of a model without random latents, (sample,), nats."""
    given = {name: value.unsqueeze(1).to(data.device) for name, value in parameters.items()}
    samples = len(next(iter(given.values())))
    with torch.no_grad(), pyro.plate("draws", samples, dim=-2):
        trace = poutine.trace(poutine.condition(model, data=given)).get_trace(data)
    heads = [trace.nodes[name] for name in model.observations]
    return torch.stack([site["fn"].log_prob(site["value"]).sum(-1).expand(samples) for site in heads]).sum(0)
