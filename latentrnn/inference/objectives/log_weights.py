"""Log-weights of a guide's draws, log p(y, z) - log q(z | y), from a trace of the guide and one of the model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.poutine.trace_struct import Trace
from torch import Tensor, nn

from latentrnn.data import SequenceData
from latentrnn.models.sites import LATENTS


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
