"""What single precision leaves of a log-density: the same draw's, computed in double precision."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TypeVar

import torch
from pyro import poutine
from pyro.poutine.trace_struct import Trace
from torch import Tensor

from latentrnn.inference.objectives.terms import paired_traces, sampled_sites, trace_log_weights
from latentrnn.inference.posterior.draws.sampler import PosteriorSampler, computed_in
from latentrnn.models.rollout.double_precision import has_double_precision, to_double

T = TypeVar("T")


def computed_in_double(sampler: PosteriorSampler, compute: Callable[[PosteriorSampler], T]) -> tuple[T, bool]:
    """Return what a sampler that computes in double precision gives, and whether there is one.

    There is none where a part holds a tensor that torch cannot turn into doubles, one that is neither a parameter nor a
    buffer: then it is computed as the sampler does.
    """
    if not is_single(sampler):
        return compute(sampler), True
    try:
        return compute(in_double(sampler)), True
    except RuntimeError:  # of torch: two types in one product
        return compute(sampler), False


def in_double(sampler: PosteriorSampler) -> PosteriorSampler:
    """Return a sampler of the same posterior that computes in double precision, on the host where the device cannot."""
    device = sampler.device if has_double_precision(sampler.data.lengths) else torch.device("cpu")
    other = copy.copy(sampler)
    other.device = device
    other.model = copy.deepcopy(sampler.model).to(device, torch.float64)
    other.guide = copy.deepcopy(sampler.guide).to(device, torch.float64)
    other.data = sampler.data.to(device, torch.float64)
    return other


def is_single(sampler: PosteriorSampler) -> bool:
    """Return whether a sampler computes in less than double precision."""
    return computed_in(sampler.model, sampler.data) != torch.float64


def rounding(sampler: PosteriorSampler, values: Tensor) -> Tensor:
    """Return how far a sequence's log-weight is off for want of digits, nats, (sequence,): zero in double precision.

    Heads are scored in double precision whatever the model's, but the states that they see are the model's, and what is
    missing of a state counts as often as there are events. One draw of the guide is weighed twice, as it is and with
    all that follows from it in double precision. Models that cannot be computed so (see `computed_in_double`) are taken
    to be off by one rounding of the value.

    Args:
        sampler: of the posterior.
        values: log evidence, (sequence,).
    """
    if not is_single(sampler):
        return torch.zeros_like(values)
    other = in_double(sampler)
    found = []
    with sampler.drawing():
        _, size = sampler.chunk_sizes(1)
        parameters = sampler.parameter_trace(1)
        try:
            for (_, rows), (_, same) in zip(sampler.rows(size), other.rows(size), strict=True):
                totals = torch.zeros(2, len(rows), dtype=torch.float64)
                for (_, window), (_, exact) in zip(sampler.windows(rows), other.windows(same), strict=True):
                    guide = poutine.replay(sampler.guide, trace=parameters)
                    drawn, scored = paired_traces(sampler.model, guide, window, 1)
                    twin = poutine.replay(other.guide, trace=doubled_trace(drawn, other.device))
                    totals[0] += trace_log_weights(drawn, scored, window, 1)[0].cpu()
                    totals[1] += trace_log_weights(*paired_traces(other.model, twin, exact, 1), exact, 1)[0].cpu()
                found.append((totals[0] - totals[1]).abs())
        except RuntimeError:  # of torch: two types in one product
            return spacing(sampler, values)
    return torch.cat(found).to(values)


def spacing(sampler: PosteriorSampler, values: Tensor) -> Tensor:
    """Return one rounding of each value in the precision of the model."""
    return torch.finfo(computed_in(sampler.model, sampler.data)).eps * values.abs()


def doubled_trace(trace: Trace, device: torch.device) -> Trace:
    """Return a trace whose values are in double precision, on a device."""
    found = trace.copy()
    for name, site in sampled_sites(trace):
        found.nodes[name] = {**site, "value": to_double(site["value"].to(device))}
    return found
