"""One-step-ahead densities of the sequences of a posterior."""

from __future__ import annotations

import math

import torch
from pyro.poutine.trace_struct import Trace
from torch import Tensor

from latentrnn.data import SequenceData, SequenceKey
from latentrnn.inference.filters.one_step_ahead import OneStepAhead, averaged
from latentrnn.inference.posterior.draws.sampler import PosteriorSampler, samples_of
from latentrnn.inference.posterior.rounding import computed_in_double
from latentrnn.support.arguments import check_integer, check_size


def one_step_ahead(
    sampler: PosteriorSampler,
    data: SequenceData,
    head: str,
    num_particles: int,
    num_filters: int,
    num_draws: int,
    used: frozenset[SequenceKey] | None,
) -> OneStepAhead:
    """Return log p(y_t | y_{<t}) and E[y_t | y_{<t}] of one head; see `Posterior.one_step_ahead`.

    Args:
        sampler: of the posterior.
        data: its sequences, as they were given.
        head, num_particles, num_filters, num_draws: of `Posterior.one_step_ahead`.
        used: identity of the sequences that were fitted or decided when to stop.
    """
    _check_head(sampler, head)
    observation = sampler.model.observations[head]
    num_particles = check_size("one_step_ahead", "num_particles", num_particles)
    num_filters = check_integer("one_step_ahead", "num_filters", num_filters, least=2)  # for the error
    num_draws = check_integer("one_step_ahead", "num_draws", num_draws, least=2)
    draws = 1 if sampler.guide.parameter_sites is None else num_draws

    def estimate(used: PosteriorSampler) -> tuple[Tensor, Tensor, Tensor | None]:
        with used.drawing():
            drawn = [lambda: used.prior_rollout(used.parameter_trace(1))] * draws
            return averaged(drawn, head, num_particles, num_filters)

    if draws > 1 or sampler.model.latent_sites():
        both, mean, error = estimate(sampler)
    else:  # what is called exact is computed in double precision, as its sum, the evidence, is
        both, mean, error = computed_in_double(sampler, estimate)[0]
    scored = data.scored(head)
    counts = observation.counts_events
    value, zero = both.cpu().chunk(2, -1) if counts else (both.cpu(), None)
    value_error, zero_error = _errors(error, counts)
    scored = scored.any(-1, keepdim=True) if value.shape[-1] != scored.shape[-1] else scored
    return OneStepAhead(
        head,
        torch.where(scored, value, 0.0),
        mean.to("cpu", sampler.data.dtype),
        data.observations[head],
        scored,
        value_error,
        data.spec.dt,
        data.keys,
        data.names,
        used,
        None if zero is None else torch.where(scored, zero, 0.0),
        zero_error,
        type(observation).__name__,
    )


def by_draw(sampler: PosteriorSampler, data: SequenceData, head: str, num_particles: int, num_draws: int) -> Tensor:
    """Return log p(y_t | y_{<t}, theta), (draw, sequence, time, channel); see `log_likelihood_one_step_ahead`."""
    _check_head(sampler, head)
    num_particles = check_size("log_likelihood_one_step_ahead", "num_particles", num_particles)
    num_draws = check_size("log_likelihood_one_step_ahead", "num_draws", num_draws)
    counts, found = sampler.model.observations[head].counts_events, []
    with sampler.drawing():
        # drawn first and together, so that they are the draws of `parameters(num_draws)`
        drawn = None if sampler.guide.parameter_sites is None else sampler.parameter_trace(num_draws)
        for draw in range(1 if drawn is None else num_draws):
            given = Trace() if drawn is None else samples_of(drawn, slice(draw, draw + 1))
            rollout = sampler.prior_rollout(given)
            value, _, _ = averaged([lambda rollout=rollout: rollout], head, num_particles, 2)  # type: ignore[misc]
            found.append((value.chunk(2, -1)[0] if counts else value).cpu())
    values = torch.stack(found)
    scored = data.scored(head).cpu()
    scored = scored.any(-1, keepdim=True) if values.shape[-1] != scored.shape[-1] else scored
    return torch.where(scored, values, 0.0)


def _check_head(sampler: PosteriorSampler, head: str) -> None:
    if not sampler.model.observations[head].head.per_step:
        raise ValueError(f"one_step_ahead: {head!r} is a per-sequence head")
    if math.isinf(sampler.model.lookahead):
        raise ValueError(
            "one_step_ahead: the model sees the covariates of the whole sequence at every step, as with "
            "BidirectionalRNN or SourceAttention, and so cannot predict as time goes on; use causal features "
            "(Lags, Convolution) and readouts"
        )


def _errors(error: Tensor | None, counts: bool) -> tuple[Tensor | None, Tensor | None]:
    """Return Monte Carlo errors of what was observed, and of zeros where the head counts events."""
    if error is None:
        return None, None
    if not counts:
        return error.cpu(), None
    value, zero = error.cpu().tensor_split(2, -1)
    return value, zero
