"""What bounds are made of, from a trace of the guide and one of the model: log-weights, and the terms of the ELBO."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any, NamedTuple

import pyro
import torch
from pyro import poutine
from pyro.distributions.util import scale_and_mask, sum_rightmost
from pyro.poutine.trace_struct import Trace
from torch import Tensor, nn
from torch.distributions import Independent, LogNormal, Normal, kl_divergence

from latentrnn.data import SequenceData
from latentrnn.inference.guides.parameters import JOINT
from latentrnn.models.latents.autoregressive import AutoregressiveNormal
from latentrnn.models.latents.gaussian_process import GaussianProcess
from latentrnn.models.sites import LATENTS

PARAMETERS = "parameters"  # the term of all parameters with priors together


class Terms(NamedTuple):
    """The parts of a batch's ELBO, in nats, weighted so that they stand for the whole plate.

    Attributes:
        log_likelihood: per head, E_q[log p(y | z)], summed over the plate.
        kl: per local latent site (and `parameters`), KL(q || p) or its sample estimate.
        floored: the same, each sequence's raised to the free bits; None where there are none.
        by_sequence: the bound of each sequence without the KL of parameters, (sequence,), nats, unweighted; None where
            nobody asked, or the objective does not tell.
        heads_by_sequence: by head E_q[log p(y | z)] of each sequence, likewise.
    """

    log_likelihood: dict[str, Tensor]
    kl: dict[str, Tensor]
    floored: dict[str, Tensor] | None = None
    by_sequence: Tensor | None = None
    heads_by_sequence: dict[str, Tensor] | None = None

    def elbo(self, kl_weight: float = 1.0) -> Tensor:
        """Return log-likelihood minus KL; the weight is one for the true ELBO."""
        return sum(self.log_likelihood.values()) - kl_weight * sum(self.kl.values(), torch.zeros(()))

    def reweighted(self, weights: Mapping[str, float]) -> Terms:
        """Return the terms with the log-likelihoods of the named heads multiplied."""
        return self._replace(
            log_likelihood={name: v * weights.get(name, 1.0) for name, v in self.log_likelihood.items()}
        )


def elbo_terms(
    model: Callable[[SequenceData], Any],
    guide: nn.Module,
    data: SequenceData,
    *,
    num_particles: int = 1,
    analytic_kl: bool = True,
    guide_data: SequenceData | None = None,
    free_bits: float = 0.0,
    by_sequence: bool = False,
) -> Terms:
    """Return the terms of the ELBO of a batch, without waiting for the device.

    With `analytic_kl=False` their sum is what `pyro.infer.Trace_ELBO` returns for the same random numbers. With it,
    KL(q || p) is exact where both are Normal or LogNormal and p does not depend on another latent's draw.

    Args:
        model, guide: Pyro programs over a batch.
        data: the batch.
        num_particles: draws of the guide, vectorised.
        analytic_kl: whether to use closed forms.
        guide_data: what the guide is shown instead of `data` (coordinated dropout).
        free_bits: KL of a sequence and local site to which a lower one is raised in `Terms.floored`, nats.
        by_sequence: whether `Terms.by_sequence` and `Terms.heads_by_sequence` are wanted.
    """
    guide_trace, model_trace = paired_traces(model, guide, data, num_particles, guide_data)
    log_likelihood: dict[str, Tensor] = {}
    kl: dict[str, Tensor] = {}
    floored: dict[str, Tensor] = {}
    heads: dict[str, Tensor] = {}
    own = torch.zeros(data.num_sequences, dtype=data.dtype, device=data.device) if by_sequence else None
    for name, site in sampled_sites(model_trace):
        if site["is_observed"]:
            value = _weighted_log_prob(site)
            log_likelihood[name] = value.sum() / num_particles
            if own is not None:
                heads[name] = _by_sequence(value, num_particles) / site["scale"]
                own = own + heads[name]
            continue
        term = name if name in LATENTS else PARAMETERS
        other = guide_trace.nodes[name]
        if analytic_kl and has_closed_form(other["fn"], site["fn"]):
            value = scale_and_mask(_divergence(other["fn"], site["fn"]), site["scale"], site["mask"])
        else:
            value = _weighted_log_prob(other) - _weighted_log_prob(site)
        kl[term] = kl.get(term, 0.0) + value.sum() / num_particles
        if own is not None and name in LATENTS:
            own = own - _by_sequence(value, num_particles) / site["scale"]
        if free_bits and name in LATENTS:
            floored[term] = _by_sequence(value, num_particles).clamp_min(free_bits * site["scale"]).sum()
    if JOINT in guide_trace.nodes:
        kl[PARAMETERS] = kl[PARAMETERS] + _weighted_log_prob(guide_trace.nodes[JOINT]).sum() / num_particles
    return Terms(log_likelihood, kl, kl | floored if free_bits else None, own, heads if by_sequence else None)


def _divergence(q: Any, p: Any) -> Tensor:
    """Return KL(q || p), of LogNormals that of the Normals of their logarithms, which `has_closed_form` has seen."""
    if not isinstance(q.base_dist, LogNormal):
        return kl_divergence(q, p)
    return sum_rightmost(kl_divergence(q.base_dist.base_dist, p.base_dist.base_dist), q.reinterpreted_batch_ndims)


def has_closed_form(q: Any, p: Any) -> bool:
    """Return whether KL(q || p) is computed exactly."""
    if not (isinstance(q, Independent) and isinstance(q.base_dist, Normal | LogNormal)):
        return False
    if isinstance(p, AutoregressiveNormal | GaussianProcess):
        return isinstance(q.base_dist, Normal)
    return (
        isinstance(p, Independent)
        and isinstance(p.base_dist, LogNormal if isinstance(q.base_dist, LogNormal) else Normal)
        and p.reinterpreted_batch_ndims == q.reinterpreted_batch_ndims
    )


def log_weights(model: nn.Module, guide: nn.Module, data: SequenceData, num_particles: int) -> Tensor:
    """Return log p(y, z | theta) - log q(z | y) per draw and sequence, (particle, sequence), in nats.

    Parameters with a posterior are drawn anew for each particle and their own densities left out: averaged over
    particles, the weights estimate each sequence's density under q(theta).
    """
    guide_trace, model_trace = paired_traces(model, guide, data, num_particles)
    return trace_log_weights(guide_trace, model_trace, data, num_particles)


def trace_log_weights(
    guide_trace: Trace,
    model_trace: Trace,
    data: SequenceData,
    num_particles: int,
    *,
    kl_weight: float = 1.0,
    head_weights: Mapping[str, float] | None = None,
) -> Tensor:
    """Return the log-weights of paired traces, (particle, sequence), in nats.

    Args:
        guide_trace, model_trace: of `paired_traces`.
        data: the batch.
        num_particles: draws in the traces.
        kl_weight: power of p(z) / q(z | y), for objectives that are tempered.
        head_weights: powers of the named heads' densities.
    """
    powers = {} if head_weights is None else head_weights
    total = torch.zeros(num_particles, data.num_sequences, dtype=data.dtype, device=data.device)
    for name, site in sampled_sites(model_trace):
        if site["is_observed"]:
            total = total + powers.get(name, 1.0) * site["fn"].log_prob(site["value"])
        elif name in LATENTS:
            guided = guide_trace.nodes[name]
            total = total + kl_weight * site["fn"].log_prob(site["value"])
            total = total - kl_weight * guided["fn"].log_prob(guided["value"])
    return total


def local_log_prob(trace: Trace, start: Tensor, *, observed: bool) -> Tensor:
    """Return `start` plus the log-density of a trace's local latents and, if asked for, of its observed heads.

    Parameters never count, be they drawn or conditioned on.
    """
    for name, site in sampled_sites(trace):
        head = site["is_observed"] and any(frame.dim == -1 for frame in site["cond_indep_stack"])
        if name in LATENTS or (observed and head):
            start = start + site["fn"].log_prob(site["value"])
    return start


def paired_traces(
    model: Callable[[SequenceData], Any],
    guide: nn.Module,
    data: SequenceData,
    num_particles: int,
    guide_data: SequenceData | None = None,
) -> tuple[Trace, Trace]:
    """Return a trace of the guide and one of the model replayed against it, particles at dim -2 where several."""
    particles = pyro.plate("particles", num_particles, dim=-2) if num_particles > 1 else nullcontext()
    with particles:
        guide_trace = poutine.trace(guide).get_trace(data if guide_data is None else guide_data)
        model_trace = poutine.trace(poutine.replay(model, trace=guide_trace)).get_trace(data)
    return guide_trace, model_trace


def sampled_sites(trace: Trace) -> list[tuple[str, dict[str, Any]]]:
    """Return the sites of a trace that are random variables: no plates, no parameters."""
    found = []
    for name, site in trace.nodes.items():
        if site["type"] == "sample" and not poutine.util.site_is_subsample(site):
            found.append((name, site))
    return found


def _by_sequence(value: Tensor, num_particles: int) -> Tensor:
    """Return the average over particles, (sequence,)."""
    return value.reshape(-1, value.shape[-1]).sum(0) / num_particles


def _weighted_log_prob(site: dict[str, Any]) -> Tensor:
    return scale_and_mask(site["fn"].log_prob(site["value"]), site["scale"], site["mask"])
