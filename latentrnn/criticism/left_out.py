"""Log densities of what is left out: sequences by importance weights, the future of a series by fitting its past."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from latentrnn.criticism.elpd import psis_weights
from latentrnn.data import SequenceData
from latentrnn.inference.evidence.evidence import Evidence
from latentrnn.inference.filters.one_step_ahead import OneStepAhead
from latentrnn.inference.fitting.result import FitResult
from latentrnn.inference.posterior.posterior import Posterior
from latentrnn.support.arguments import check_number, check_seed, check_size

GUIDES_DRAWS = 400  # of parameters under a guide, which costs nothing to ask again
LARGEST_GOOD = 0.7  # k-hat


def leave_one_out(posterior: Posterior, num_particles: int) -> Evidence:
    """Return log p(y_n | y_{-n}) of every sequence, draws of the parameters weighted by 1 / p(y_n | parameters) (PSIS).

    Args:
        posterior: of sequences that all that was learned is conditioned on (`reason_against_loo` is None).
        num_particles: that integrate local latents out, for each draw.

    References:
        Vehtari, Gelman, Gabry. Practical Bayesian model evaluation using leave-one-out cross-validation and WAIC. 2017.
    """
    chains = posterior.chains
    number = GUIDES_DRAWS if chains is None else chains.num_chains * chains.num_draws
    by_draw = posterior.log_likelihood(num_particles, number).double()
    weights, pareto_k = psis_weights(-by_draw)
    values = torch.logsumexp(weights.log() + by_draw, 0)
    ratio = (by_draw - values).exp()
    error = (weights * (ratio - 1)).square().sum(0).sqrt()
    names = posterior.data.names
    return Evidence("loo", values, error, number, 1 / weights.square().sum(0), pareto_k, names=names)


def leave_future_out(
    fit: Callable[[SequenceData], FitResult | Posterior],
    data: SequenceData,
    *,
    head: str | None = None,
    start: int,
    refit_every: int | None = None,
    threshold: float = LARGEST_GOOD,
    num_draws: int = 200,
    num_particles: int = 64,
    seed: int = 0,
) -> OneStepAhead:
    """Return log p(y_t | y_{<t}) of one long series where nothing was learned from t on, for `latentrnn.compare`.

    The model is fitted to the first `start` steps, predicts step after step, and its draws of the parameters take in
    what came by importance weights, until these are too uneven to be believed or `refit_every` steps are over; then it
    is fitted again to all that came so far:

        p(y_t | y_{<t}) = sum_s w_s p(y_t | y_{<t}, theta_s),   w_s = p(y_{t*:t-1} | y_{<t*}, theta_s) / const (PSIS)

    Where weights of a network are point estimates no importance weight renews them, so that `refit_every` must be told.
    Every fit sees the past alone: as blind to the future as the one that would have been made then.

    Args:
        fit: from the series up to some step to a fit: `lambda past: lr.fit(model, lr.Guide(model), past)`, or what
            `lr.sample` or `lr.laplace` returns.
        data: one sequence.
        head: what is predicted; None for the only per-step head.
        start: steps before the first that is predicted.
        refit_every: steps after which the model is fitted again, whatever the weights; None for these alone.
        threshold: of k-hat, above which it is fitted again.
        num_draws: draws of the parameters; of chains all.
        num_particles: that integrate local latents out, for each draw.
        seed: of the draws.

    Returns:
        A `OneStepAhead` whose first `start` steps are not scored. All channels of a step are scored together, (1, time,
        1); `mean` is NaN. Compare with `block_length=`, longer than what the differences of two models remember.

    Raises:
        TypeError: `fit` returns neither a fit nor a posterior of one.
        ValueError: several sequences, a start that leaves nothing to predict, or point estimates without `refit_every`.

    References:
        Bürkner, Gabry, Vehtari. Approximate leave-future-out cross-validation for Bayesian time series models. 2020.
    """
    owner = "leave_future_out"
    if not callable(fit) or isinstance(fit, torch.nn.Module):  # a part of a model is callable, and fits nothing
        raise TypeError(f"{owner}: fit must be a function from the past to a fit; found {type(fit).__name__}")
    if not isinstance(data, SequenceData):
        raise TypeError(f"{owner}: data must be SequenceData; found {type(data).__name__}")
    if len(data) != 1:
        raise ValueError(f"{owner}: expected one long series; found {len(data)} sequences, see compare(leave_out=)")
    start, num_draws, num_particles = (
        check_size(owner, name, value)
        for name, value in (("start", start), ("num_draws", num_draws), ("num_particles", num_particles))
    )
    refit_every = None if refit_every is None else check_size(owner, "refit_every", refit_every)
    threshold, seed = check_number(owner, "threshold", threshold, above=0), check_seed(owner, seed)
    per_step = [name for name, spec in data.spec.heads.items() if spec.per_step]
    if head is None and len(per_step) > 1:
        raise ValueError(f"{owner}: expected head=, one of {per_step}")
    head = per_step[0] if head is None and per_step else head
    if not isinstance(head, str) or head not in per_step:
        raise ValueError(f"{owner}: unknown head {head!r}; expected one of {per_step}")
    clock, steps = data.spec.heads[head].clock, data.num_steps
    if start >= steps:
        raise ValueError(f"{owner}: start must leave steps to predict, below {steps}; found {start}")

    scored = data.scored(head).cpu().any(-1)[0]  # (frame,)
    values = torch.zeros(len(scored), dtype=torch.float64)
    errors = torch.zeros_like(values)
    frame = -(-start // clock)  # the first whose steps all lie ahead
    while frame < len(scored):
        fitted_to = frame
        past = data.time_slice(0, frame * clock)
        posterior = _posterior(owner, fit(past), data).reseeded(seed)
        has_draws = bool(posterior.parameters(1))
        if not has_draws and refit_every is None:
            raise ValueError(f"{owner}: no parameter has a posterior, to take in what comes; expected refit_every=")
        chains = posterior.chains
        number = num_draws if chains is None else chains.num_chains * chains.num_draws
        told = _of_steps(posterior, head, per_step, num_particles, number)  # (draw, frame), of all heads until then
        own = posterior.log_likelihood_one_step_ahead(head, num_particles, number).double().sum(-1)[:, 0]
        while frame < len(scored):
            weights, pareto_k = _weights(told[:, fitted_to:frame].sum(1))
            late = refit_every is not None and (frame - fitted_to) * clock >= refit_every
            if frame > fitted_to and (late or pareto_k > threshold):
                break
            if bool(scored[frame]):
                values[frame] = torch.logsumexp(weights.log() + own[:, frame], 0)
                ratio = (own[:, frame] - values[frame]).exp()
                errors[frame] = (weights * (ratio - 1)).square().sum().sqrt()
            frame += 1
    ahead = scored & (torch.arange(len(scored)) >= -(-start // clock))
    shape = (1, -1, 1)
    return OneStepAhead(
        head,
        torch.where(ahead, values, 0.0).reshape(shape),
        torch.full_like(data.observations[head].cpu(), torch.nan),
        data.observations[head].cpu(),
        ahead.reshape(shape),
        torch.where(ahead, errors, 0.0).reshape(shape),
        data.spec.dt,
        data.keys,
        data.names,
        frozenset(),  # of what is scored
        family=type(posterior.model.observations[head]).__name__,
    )


def _posterior(owner: str, found: Any, data: SequenceData) -> Posterior:
    """Return the posterior of the whole series under a fit of its past."""
    result: Any = found.result if isinstance(found, Posterior) else found
    if not hasattr(result, "posterior"):
        raise TypeError(f"{owner}: fit must return a FitResult, or the posterior of one; found {type(found).__name__}")
    whole: Posterior = result.posterior(data, device="cpu")
    return whole


def _of_steps(posterior: Posterior, head: str, heads: list[str], num_particles: int, number: int) -> Tensor:
    """Return log p(y_t | y_{<t}, theta) of all heads at the frames of one, (draw, frame), nats."""
    clock = posterior.data.spec.heads[head].clock
    total = torch.zeros(1, posterior.data.num_steps, dtype=torch.float64)
    for name in heads:
        found = posterior.log_likelihood_one_step_ahead(name, num_particles, number).double().sum(-1)[:, 0]
        each = posterior.data.spec.heads[name].clock
        spread = torch.zeros(len(found), posterior.data.num_steps, dtype=torch.float64)
        spread[:, each - 1 :: each][:, : found.shape[1]] = found
        total = total + spread
    frames = posterior.data.observations[head].shape[1]
    return total[:, : frames * clock].unflatten(1, (frames, clock)).sum(-1)


def _weights(log_ratios: Tensor) -> tuple[Tensor, float]:
    """Return smoothed weights, (draw,), and k-hat."""
    if len(log_ratios) == 1 or bool((log_ratios == log_ratios[0]).all()):
        return torch.full_like(log_ratios, 1 / len(log_ratios)), -math.inf
    weights, shape = psis_weights(log_ratios.unsqueeze(-1))
    return weights[:, 0], float(shape)
