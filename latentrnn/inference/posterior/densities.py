"""Densities of sequences under a posterior: the kinds of evidence, and log-likelihoods given parameters."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial

import pyro
import torch
from pyro import poutine
from pyro.poutine.trace_struct import Trace
from torch import Tensor

from latentrnn.data import SequenceData
from latentrnn.inference.evidence.ais import anneal
from latentrnn.inference.evidence.evidence import (
    AIS,
    AUTO,
    EXACT,
    PRIOR_SHARE,
    SMC,
    Evidence,
    check_kind,
    exactly,
    from_filters,
    summarise,
)
from latentrnn.inference.evidence.pareto import tail_shape
from latentrnn.inference.evidence.rungs import best
from latentrnn.inference.filters.particle_filter import ParticleFilter, counts_in_steps
from latentrnn.inference.objectives.terms import log_weights as log_weights_of
from latentrnn.inference.objectives.terms import paired_traces, sampled_sites
from latentrnn.inference.posterior.draws.sampler import PosteriorSampler, samples_of
from latentrnn.inference.posterior.rounding import computed_in_double, doubled_trace, rounding, spacing
from latentrnn.support.arguments import check_size


def evidence(sampler: PosteriorSampler, kind: str | SMC | AIS, num_particles: int) -> Evidence:
    """Estimate each sequence's log evidence; see `Posterior.evidence`."""
    name = "smc" if isinstance(kind, SMC) else "ais" if isinstance(kind, AIS) else kind
    check_kind(name)
    num_particles = check_size("evidence", "num_particles", num_particles)
    sites = sampler.model.latent_sites()
    if name == EXACT:
        return _exact(sampler)
    if name == AUTO:
        along_time = any(site.along_time for site in sites)
        estimate = partial(evidence, sampler)
        return best(estimate, num_particles, num_steps=sampler.data.num_steps, along_time=along_time)
    if not sites and sampler.guide.parameter_sites is None:
        return dataclasses.replace(_exact(sampler), kind=name, num_particles=1)
    if sites and name == "smc":
        found = _filtered(sampler, num_particles, kind if isinstance(kind, SMC) else SMC())
    elif sites and name == "ais":
        return _annealed(sampler, num_particles, kind if isinstance(kind, AIS) else AIS())
    else:
        found = summarise(name, log_weights(sampler, num_particles))
    error = torch.hypot(found.standard_error, rounding(sampler, found.values))
    return dataclasses.replace(found, standard_error=error)


def _exact(sampler: PosteriorSampler) -> Evidence:
    """Return the evidence of a model in which nothing is left to integrate, computed in double precision.

    Raises:
        ValueError: something is: local latents, or parameters with priors.
    """
    names = [site.name for site in sampler.model.latent_sites()]
    if names:
        raise ValueError(
            f"evidence: 'exact' needs latents that are summed out (LinearGaussian, Discrete) or none that are random "
            f"(Deterministic); {sampler.model.latent!r} draws {names}; use 'auto'"
        )
    if sampler.guide.parameter_sites is not None:
        names = list(sampler.model.parameter_sites())
        raise ValueError(f"evidence: 'exact' needs parameters that are points, but {names} have priors; use 'auto'")
    return _in_double(sampler, lambda used: exactly(log_weights(used, 1)[0].double()))


def _in_double(sampler: PosteriorSampler, estimate: Callable[[PosteriorSampler], Evidence]) -> Evidence:
    """Return an estimate in double precision, or one that says that it is not."""
    found, doubled = computed_in_double(sampler, estimate)
    if doubled:
        return found
    error = torch.hypot(found.standard_error, spacing(sampler, found.values))
    return dataclasses.replace(found, standard_error=error)


def log_likelihood(sampler: PosteriorSampler, num_particles: int, num_draws: int) -> Tensor:
    """Return log p(y_n | theta) of every sequence, (draw, sequence); see `Posterior.log_likelihood`."""
    num_particles = check_size("log_likelihood", "num_particles", num_particles)
    num_draws = check_size("log_likelihood", "num_draws", num_draws)
    with sampler.drawing():
        # drawn first and together, so that they are the draws of `parameters(num_draws)`
        drawn = None if sampler.guide.parameter_sites is None else sampler.parameter_trace(num_draws)

        def rows(used: PosteriorSampler) -> Tensor:
            if drawn is None:
                return summarise("iwae", log_weights(used, num_particles)).values[None]
            given = drawn if used is sampler else doubled_trace(drawn, used.device)
            if not used.model.latent_sites():
                return _exact_log_likelihood(used, given, num_draws)
            draws = (samples_of(given, slice(draw, draw + 1)) for draw in range(num_draws))
            found = [summarise("iwae", log_weights(used, num_particles, parameters)).values for parameters in draws]
            return torch.stack(found)

        return rows(sampler) if sampler.model.latent_sites() else computed_in_double(sampler, rows)[0]


def _exact_log_likelihood(sampler: PosteriorSampler, parameters: Trace, num_draws: int) -> Tensor:
    """Return log p(y_n | theta), (draw, sequence), of a model in which nothing else is random, many draws at a time."""
    per_part, per_chunk = sampler.chunk_sizes(num_draws)
    parts = [slice(first, min(first + per_part, num_draws)) for first in range(0, num_draws, per_part)]
    columns = []
    for _, data in sampler.rows(per_chunk):
        weights = [_path_weights(sampler, data, part.stop - part.start, samples_of(parameters, part)) for part in parts]
        columns.append(torch.cat(weights))
    return torch.cat(columns, 1).double().cpu()


def log_likelihood_of_draws(sampler: PosteriorSampler, num_draws: int) -> Tensor:
    """Return log p(y_n | z_n, theta) of draws of parameters and local latents together, (draw, sequence)."""
    _, per_chunk = sampler.chunk_sizes(num_draws)
    with sampler.drawing():
        guide = poutine.replay(sampler.guide, trace=sampler.parameter_trace(num_draws))
        columns = []
        for _, data in sampler.rows(per_chunk):
            _, trace = paired_traces(sampler.model, guide, data, num_draws)
            heads = [trace.nodes[name] for name in sampler.model.observations]
            told = sum((head["fn"].log_prob(head["value"]).double() for head in heads), torch.zeros(()))
            columns.append(told.expand(num_draws, len(data)))  # of one draw there is no axis
    return torch.cat(columns, 1).cpu()


def log_prior(sampler: PosteriorSampler, num_draws: int) -> dict[str, Tensor]:
    """Return log p(theta) of every site at draws of the parameters, (draw,); see `Posterior.log_prior`."""
    num_draws = check_size("log_prior", "num_draws", num_draws)
    with sampler.drawing():
        given = sampler.parameter_trace(num_draws)
        with pyro.plate("draws", num_draws, dim=-2), poutine.replay(trace=given), poutine.trace() as recorder:
            sampler.model.draw_parts()
    sites = sampled_sites(recorder.trace)
    return {name: site["fn"].log_prob(site["value"]).double().reshape(num_draws).cpu() for name, site in sites}


def log_weights(sampler: PosteriorSampler, num_particles: int, parameters: Trace | None = None) -> Tensor:
    """Return log-weights, (particle, sequence); exact and of one particle where nothing is random.

    Args:
        sampler: of the posterior.
        num_particles: draws of the guide.
        parameters: to be replayed; else they are drawn anew for each particle, from the seed.
    """
    random = bool(sampler.model.latent_sites()) or (sampler.guide.parameter_sites is not None and parameters is None)
    count = num_particles if random else 1
    per_part, per_chunk = sampler.chunk_sizes(count)
    columns = []
    with sampler.seeded() if parameters is None else nullcontext(), torch.no_grad():
        for _, data in sampler.rows(per_chunk):
            particles = [min(per_part, count - first) for first in range(0, count, per_part)]
            columns.append(torch.cat([_path_weights(sampler, data, number, parameters) for number in particles]))
    return torch.cat(columns, 1).cpu()


def _path_weights(sampler: PosteriorSampler, data: SequenceData, count: int, parameters: Trace | None) -> Tensor:
    """Return the log-weights of whole paths, those of their windows added up."""
    if sampler.windowed and parameters is None:
        parameters = sampler.parameter_trace(count)  # the same in all windows
    guide = sampler.guide if parameters is None else poutine.replay(sampler.guide, trace=parameters)
    weights = [log_weights_of(sampler.model, guide, window, count) for _, window in sampler.windows(data)]
    return weights[0] if len(weights) == 1 else torch.stack(weights).sum(0)


def _annealed(sampler: PosteriorSampler, num_particles: int, settings: AIS) -> Evidence:
    """Return the evidence by annealed draws in double precision: differences between densities move them."""

    def estimate(used: PosteriorSampler) -> Evidence:
        with used.seeded():
            chunks = [
                anneal(used.model, used.guide, data, num_particles, settings) for data in used.chunks(num_particles)
            ]
        return summarise("ais", torch.cat(chunks, 1).cpu())

    return _in_double(sampler, estimate)


def _filtered(sampler: PosteriorSampler, num_particles: int, settings: SMC) -> Evidence:
    """Return the evidence by independent particle filters, each with its own draw of the parameters with priors."""
    found = []
    with sampler.drawing():
        parameters = sampler.parameter_trace(settings.num_filters)
        for site in parameters.nodes.values():  # (filter, sequences' plate, ...) to (filter, particle, ...)
            site["value"] = site["value"].unsqueeze(1)
        count = num_particles * settings.num_filters
        if all(map(counts_in_steps, sampler.model.observations.values())):  # then no more than one step is held at once
            count = max(1, count // sampler.data.num_steps)
        for data in sampler.chunks(count):
            rollout, proposals = sampler.prior_rollout(parameters, data), None
            if settings.proposal != "prior":
                guide = sampler.guide
                proposals = guide.local.proposals(guide.variational_parameters(data), data)
            run = ParticleFilter(
                rollout,
                num_particles,
                settings.num_filters,
                proposals=proposals,
                prior_share=PRIOR_SHARE if settings.proposal == "mixture" else 0.0,
                resample_below=settings.resample_below,
                diagnose=tail_shape,
            ).run()
            found.append((run.log_evidence.cpu(), run.smallest_sample.cpu(), run.largest_shape.cpu()))
    log_evidence, smallest, shapes = zip(*found, strict=True)
    return from_filters(
        torch.cat(log_evidence, 1), torch.cat(smallest, 1), torch.cat(shapes), num_particles, settings.proposal
    )
