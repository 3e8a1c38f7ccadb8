"""Markov chain Monte Carlo: the no-U-turn sampler, for models that are small enough."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, Literal, cast

import numpy as np
import pyro
import torch
from pyro import poutine
from torch import Tensor

from latentrnn.data import SequenceData
from latentrnn.inference.evidence.marginal import Marginal, fixed_model
from latentrnn.inference.fitting.result import FitResult
from latentrnn.inference.guides.fitted import Fit
from latentrnn.inference.guides.guide import Guide
from latentrnn.inference.objectives.terms import sampled_sites
from latentrnn.inference.posterior.draws.stored_draws import Chains, StoredDraws
from latentrnn.inference.posterior.posterior import Posterior
from latentrnn.inference.posterior.priors.check import warn_of_priors
from latentrnn.inference.sampling.hamiltonian.density import FlatDensity
from latentrnn.inference.sampling.hamiltonian.sampler import NotFinite, run
from latentrnn.inference.sampling.noncentred import NonCentred
from latentrnn.models.sites import LATENTS
from latentrnn.models.state_space import LatentRNN
from latentrnn.support.arguments import (
    LARGEST_COUNT,
    check_choice,
    check_flag,
    check_number,
    check_seed,
    check_size,
)
from latentrnn.support.devices import resolve_device
from latentrnn.support.isolation import RandomNumbers, isolated, random_state

DEEPEST_TREE = 30  # a billion steps per draw; what is asked for beyond is a slip


@isolated
def sample(
    model: LatentRNN,
    data: SequenceData,
    *,
    num_samples: int = 500,
    warmup: int = 500,
    chains: int = 4,
    given: FitResult | None = None,
    sites: Literal["all", "parameters"] = "all",
    parametrisation: Literal["centred", "noncentred"] = "centred",
    num_particles: int = 64,
    target_acceptance: float = 0.8,
    max_tree_depth: int = 10,
    device: str | torch.device = "auto",
    seed: int | None = 0,
    progress: bool = True,
    check_priors: bool = True,
) -> Posterior:
    """Draw from the exact posterior by the no-U-turn sampler, the network's weights taken as they are.

    With `sites="all"`, parameters with priors and local latents jointly. With `sites="parameters"`, parameters alone:
    local latents are integrated out by importance sampling from the guide of `given`, with draws made once (see
    `Marginal`), and the posterior keeps that guide for them. Every step evaluates the whole data: this is for models
    with few parameters and latents, and to check what a guide says of them.

    Args:
        model: the model.
        data: all of the sequences (NUTS takes no sub-samples).
        num_samples: draws of each chain.
        warmup: steps before them, in which step size and mass matrix are adapted.
        chains: from different starts, run side by side.
        given: a fit of this model: its weights are taken and chains start from draws of its guide. Without it, the
            model's own weights, and starts uniform in (-2, 2) of unconstrained space.
        sites: "all" or "parameters".
        parametrisation: of what moves within the sampler; draws are of latents and baselines themselves by either.
            "centred": these. "noncentred": the standard normal noise e_t that latents are made of, z_t = location_t +
            scale_t e_t, and in the place of a baseline with a prior the mean over steps of baseline + W h_t. That mixes
            better where data say little of the latents beside the prior, above all if scale or persistence of the prior
            are inferred, or if latents move so slowly that a baseline is hard to tell from them.
        num_particles: importance samples of the local latents, where they are integrated out.
        target_acceptance: smaller steps the closer to one; raise it where draws diverge.
        max_tree_depth: at most 2 to this power steps per draw.
        device: "auto" takes CUDA where there is one.
        seed: of starts and chains, None for a fresh one, which the result tells.
        progress: whether to show a progress bar.
        check_priors: whether to warn first of priors that cannot have made the scale of the data; see
            `latentrnn.check_priors`.

    Returns:
        A posterior whose methods draw from the chains; `posterior.chains` has their diagnostics, and `to_arviz` exports
        all draws by chain. Where local latents were sampled, it knows those of `data` alone, and what needs the density
        of a guide (`evidence`, `log_likelihood`, `refined`) is refused.

    Raises:
        ValueError: nothing to sample, a log density that is not finite where a chain starts, a batch of a larger plate,
            local latents to be integrated out without `given`, latents without a noncentred parametrisation (only
            where each step is a location and scale of normal noise has one), or a setting out of range.
        TypeError: an argument of the wrong kind.

    Warns:
        UserWarning: draws diverged, the chains disagree (R-hat above 1.05), or the priors cannot have made the scale of
            the data.

    References:
        Hoffman, Gelman. The No-U-turn sampler: adaptively setting path lengths in Hamiltonian Monte Carlo. 2014.
        Betancourt. A conceptual introduction to Hamiltonian Monte Carlo. 2017.
        Seyboldt, Carlson, Carpenter. Preconditioning Hamiltonian Monte Carlo by minimizing Fisher divergence. 2026.
    """
    for name, value in (("num_samples", num_samples), ("warmup", warmup), ("chains", chains)):
        check_size("sample", name, value)
    if not isinstance(sites, str) or sites not in ("all", "parameters"):
        raise ValueError(f"sample: sites must be 'all' or 'parameters'; found {sites!r}")
    check_choice("sample", "parametrisation", parametrisation, ("centred", "noncentred"))
    if parametrisation == "noncentred" and sites == "parameters":
        raise ValueError(
            "sample: with sites='parameters' no latents are drawn that parametrisation='noncentred' could be of"
        )
    check_size("sample", "num_particles", num_particles)
    check_size("sample", "max_tree_depth", max_tree_depth, most=DEEPEST_TREE)
    target_acceptance = check_number("sample", "target_acceptance", target_acceptance, above=0, below=1)
    progress, seed = check_flag("sample", "progress", progress), check_seed("sample", seed)
    check_priors = check_flag("sample", "check_priors", check_priors)
    if seed > LARGEST_COUNT - chains:
        raise ValueError(f"sample: seed must leave room for those of the chains, which follow it; found {seed}")
    integrate = sites == "parameters"
    model, guide = fixed_model("sample", model, data, given, integrate=integrate)
    if not model.parameter_sites() and not model.latent_sites():
        raise ValueError("sample: the model has neither random latents nor parameters with priors to sample")
    if check_priors:
        warn_of_priors("sample", model, data, stacklevel=4)
    device = resolve_device(device)
    # rejections decide by small differences of large energies
    exact, exact_data = model.double().to(device), data.to(device, torch.float64)
    guide = None if guide is None else guide.double().to(device)
    integrate = integrate and bool(exact.latent_sites())
    arguments: tuple[Any, ...] = (exact_data,)
    program: Any = exact
    noncentred = NonCentred(exact, exact_data) if parametrisation == "noncentred" else None
    if integrate:
        with random_state(seed, device):
            program, arguments = Marginal(exact, guide, exact_data, num_particles), ()
    if noncentred is not None:
        program = noncentred
    density = FlatDensity(program, arguments)
    try:
        values, statistics = run(
            density,
            [_start(density, guide, exact_data, seed + 1 + number, noncentred) for number in range(chains)],
            num_samples=num_samples,
            warmup=warmup,
            target_acceptance=target_acceptance,
            max_tree_depth=max_tree_depth,
            seed=seed,
            progress=progress,
        )
    except NotFinite as error:
        raise ValueError(f"sample: {_not_finite(exact, density, error.start)}") from error
    values = values if noncentred is None else noncentred.values(values)
    acceptance, step_size = (statistics[name].mean(1) for name in ("acceptance_rate", "step_size"))
    found = Chains.of(values, statistics["diverging"], acceptance, step_size, statistics)
    _warn(found)
    stored = _stored(exact, values, data, guide if integrate else None, given)
    settings = {"method": "nuts", "num_samples": num_samples, "warmup": warmup, "chains": chains, "sites": sites}
    used = frozenset(data.keys) | (frozenset() if given is None else given.used)
    exact = exact.to("cpu", data.dtype)
    result = FitResult(exact, cast(Guide, stored), {}, f"nuts: {found!r}", 0, seed, settings, used)
    return Posterior(exact, cast(Guide, stored), data, result=result, device=device, seed=seed, chains=found)


def _stored(
    model: LatentRNN, values: dict[str, Tensor], data: SequenceData, guide: Guide | None, given: Fit | None
) -> StoredDraws:
    """Return what stands for a guide: the draws, and the guide of local latents where these were integrated out."""
    flat = {name: value.flatten(0, 1).to(data.dtype) for name, value in values.items()}
    if guide is not None:
        guide = guide.to("cpu", data.dtype)
        guide.parameter_sites = None  # the chains have drawn those
    keys = data.keys if any(name in LATENTS for name in flat) else ()
    learned_from = frozenset() if given is None else given.used
    return StoredDraws(
        model.latent_sites(), flat, keys, guide, conditioned_on=frozenset(data.keys), learned_from=learned_from
    )


def _start(
    density: FlatDensity, guide: Guide | None, data: SequenceData, seed: int, noncentred: NonCentred | None
) -> Callable[[], np.ndarray]:
    """Return what draws starts of one chain: of the guide, and uniform in (-2, 2) what it knows nothing of."""
    random = RandomNumbers(seed, data.device)

    def drawn() -> np.ndarray:
        with random.drawn(), torch.no_grad():
            uniform = 4 * torch.rand(density.dim, dtype=density.dtype, device=density.device) - 2
            values = {} if guide is None else _guided(guide, data)
            values = noncentred.noise(values) if noncentred and values else values
            return density.flat(values, uniform).cpu().numpy()

    return drawn


def _guided(guide: Guide, data: SequenceData) -> dict[str, Tensor]:
    trace = poutine.trace(guide).get_trace(data)
    return {name: site["value"] for name, site in trace.nodes.items() if site["type"] == "sample"}


def _not_finite(model: LatentRNN, density: FlatDensity, start: np.ndarray) -> str:
    """Say where the log density or its gradient is not finite at a start, and what to do."""
    if broken := [name for name, weight in model.named_parameters() if not bool(torch.isfinite(weight).all())]:
        return f"the model's weights are not finite ({', '.join(broken)}); fit it, and give the result as given="
    with pyro.validation_enabled(False), torch.enable_grad():
        free = {name: value.detach().requires_grad_() for name, value in density.values(density.tensor(start)).items()}
        trace = poutine.trace(poutine.condition(density.program, data=free)).get_trace(*density.arguments)
        found = {name: site["fn"].log_prob(site["value"]).sum() for name, site in sampled_sites(trace)}
        slopes = torch.autograd.grad(torch.stack(list(found.values())).sum(), list(free.values()), allow_unused=True)
    bad = [f"{name!r} ({value.item():g})" for name, value in found.items() if not bool(torch.isfinite(value))]
    bad = bad or [
        f"{name!r} (gradient)"
        for name, slope in zip(free, slopes, strict=True)
        if slope is not None and not bool(torch.isfinite(slope).all())
    ]
    return (
        f"the log density is not finite at the start, at {', '.join(bad) or 'what is not constrained'}: for a head, "
        "look for values outside of its family's support or too large to compute with; for a parameter or latent, for "
        "a prior that is too wide. Or give the result of a fit as given=, from which the chains then start"
    )


def _warn(chains: Chains) -> None:
    if count := int(chains.diverging.sum()):
        warnings.warn(
            f"sample: {count} of {chains.diverging.numel()} draws diverged, so that some region is not explored; raise "
            "target_acceptance towards 1, or tighten priors",
            stacklevel=3,
        )
    if chains.largest_r_hat > 1.05:
        warnings.warn(
            f"sample: the chains have not mixed (R-hat up to {chains.largest_r_hat:.2f}); raise warmup and "
            "num_samples, or look for several modes",
            stacklevel=3,
        )
