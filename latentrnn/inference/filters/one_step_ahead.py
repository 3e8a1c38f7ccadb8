"""One-step-ahead densities: what the model expects of each step given everything before it, and nothing after."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from pyro.distributions import Distribution
from torch import Tensor
from torch.nn import functional

from latentrnn.data import SequenceKey
from latentrnn.inference.filters.particle_filter import ParticleFilter, counts_in_steps
from latentrnn.models.observations import Observation
from latentrnn.models.rollout import Rollout
from latentrnn.support.notebooks import ShownInNotebooks


@dataclass(frozen=True)
class OneStepAhead(ShownInNotebooks):
    """log p(y_t | y_{<t}, covariates_{<=t}) of one head.

    Attributes:
        head: the head's name.
        log_prob: nats, (sequence, time, channel), or (sequence, time, 1) for a family that joins channels; zero
            where nothing is scored.
        mean: E[y_t | y_{<t}], (sequence, time, channel).
        observed: y_t, (sequence, time, channel).
        scored: booleans in the shape of `log_prob`.
        standard_error: Monte Carlo error of `log_prob`, nats, same shape; None where it is exact.
        dt: seconds per step, None for unit steps.
        keys: identity of the sequences.
        names: names of the sequences.
        used: identity of the sequences that were fitted or decided when to stop; None where unknown.
        log_prob_zero: log p(y_t = 0 | y_{<t}, covariates_{<=t}), nats, in the shape of `log_prob`, of heads that count
            events (`Poisson`, `Bernoulli`, `NegativeBinomial`, `ZeroInflatedPoisson`, `Binomial`, `BetaBinomial`);
            zero where nothing is scored, None for other heads.
        standard_error_zero: its Monte Carlo error, nats; None where it is exact.
        family: class name of the head; None where unknown.
    """

    head: str
    log_prob: Tensor
    mean: Tensor
    observed: Tensor
    scored: Tensor
    standard_error: Tensor | None
    dt: float | None
    keys: tuple[SequenceKey, ...]
    names: tuple[str, ...]
    used: frozenset[SequenceKey] | None = None
    log_prob_zero: Tensor | None = None
    standard_error_zero: Tensor | None = None
    family: str | None = None

    @property
    def exact(self) -> bool:
        """Whether there is no Monte Carlo error."""
        return self.standard_error is None

    @property
    def total(self) -> float:
        """Sum over everything scored, nats."""
        return float(self.log_prob.sum())

    def __repr__(self) -> str:
        shape = " x ".join(f"{size} {name}" for size, name in zip(
            self.log_prob.shape, ("sequences", "steps", "channels"), strict=False
        ))  # fmt: skip
        error = "exact" if self.standard_error is None else (
            f"Monte Carlo error at most {float(self.standard_error.max()):.2g} nats per entry"
        )  # fmt: skip
        family = "" if self.family is None else f" ({self.family})"
        return f"OneStepAhead({self.head!r}{family}: {self.total:.2f} nats, {shape}, {error})"


def averaged(
    rollouts: Sequence[Callable[[], Rollout]], name: str, num_particles: int, num_filters: int
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return log-probabilities and means of one head, of all draws of the parameters together.

        p(y_t | y_{<t}) = sum_k w_{k,t} p(y_t | y_{<t}, theta_k),   w_{k,t} = p(y_{<t} | theta_k) / const

    All per-step heads count for w; without random latents, as independent given the past.

    Args:
        rollouts: what makes the data's rollout under each draw of the parameters, one after the other.
        name: the head to predict.
        num_particles, num_filters: see `bootstrap_filter`.

    Returns:
        Log-probabilities (nats; of a head that counts events, twice as many channels: of what was observed, and of
        zeros) and means, (sequence, time, channel), and Monte Carlo errors of the former: the spread
        over draws where there are several, else that of the filters; None where it is exact.
    """
    log_prob, means, told = [], [], []
    error: Tensor | None = None
    for make in rollouts:
        rollout = make()
        if rollout.latent.sites():
            value, mean, error, past = bootstrap_filter(rollout, name, num_particles, num_filters)
        else:
            value, mean = exact(rollout, name)
            past = _told(rollout, {name: value}) if len(rollouts) > 1 else value
        log_prob.append(value)
        means.append(mean)
        told.append(past)
    dtype = rollout.transition_inputs.dtype
    if len(rollouts) == 1:
        return log_prob[0], means[0].to(dtype), error
    estimates = torch.stack(log_prob)
    clock = rollout.observations[name].head.clock
    before = functional.pad(torch.stack(told)[..., :-1], (1, 0))[..., clock - 1 :: clock]  # until a frame's last step
    possible = ~before.isneginf().all(0)  # of what no draw thought possible none can tell
    log_weights = torch.where(possible, before, 0.0).log_softmax(0)[..., : estimates.shape[-2]].unsqueeze(-1)
    value = torch.logsumexp(log_weights + estimates, 0)
    weights, count = log_weights.exp(), len(estimates)
    ratio = torch.where(value.isneginf(), 1.0, (estimates - value).exp())
    spread = (weights * (ratio - 1)).square().sum(0) * count / (count - 1)
    stacked = torch.stack(means)
    weights = weights.reshape(*weights.shape[:3], *[1] * (stacked.dim() - 3))
    return value, torch.where(weights > 0, weights * stacked, 0.0).sum(0).to(dtype), spread.sqrt()


def _told(rollout: Rollout, known: Mapping[str, Tensor]) -> Tensor:
    """Return log p(y_{<=t}) of a rollout without local randomness, nats, (sequence, time).

    Args:
        rollout: the rollout.
        known: log-probabilities of heads for which `exact` was called.
    """
    data = rollout.data
    told = torch.zeros(data.num_sequences, data.num_steps, dtype=torch.float64, device=data.device)
    for name, head in rollout.observations.items():
        if not head.head.per_step:
            continue
        value = known[name] if name in known else exact(rollout, name)[0]
        value = value.chunk(2, -1)[0] if head.counts_events else value
        seen = head.observed(data)
        seen = seen.any(-1, keepdim=True) if value.shape[-1] != seen.shape[-1] else seen
        by_frame = torch.where(seen, value, 0.0).sum(-1).double()
        told[:, head.head.clock - 1 :: head.head.clock][:, : by_frame.shape[1]] += by_frame
    return told.cumsum(-1)


def exact(rollout: Rollout, name: str) -> tuple[Tensor, Tensor]:
    """Return log-probabilities per entry and means for a rollout without local randomness: the past is all it needs."""
    head = rollout.observations[name]
    entries, means = [], []
    for log_weight, distribution in rollout.latent.ahead(rollout, name):
        observed = rollout.recorded(name)
        entry, mean = head.entry_log_prob(distribution, observed), head.mean(distribution)
        entry = _with_zeros(head, distribution, entry, observed)
        entries.append(log_weight.unsqueeze(-1) + entry)
        # what follows time in the mean: a prior on one head gives the weights of all a sample axis
        after = mean.dim() - len(distribution.batch_shape) - 1
        means.append(log_weight.exp().reshape(*log_weight.shape, *[1] * after) * mean)
    value, mean = torch.logsumexp(torch.stack(entries), 0), torch.stack(means).sum(0)
    return (value, mean) if value.dim() == 3 else (value.squeeze(0), mean.squeeze(0))  # one draw of the parameters


def bootstrap_filter(
    rollout: Rollout, name: str, num_particles: int, num_filters: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return what a bootstrap particle filter says of one head.

    Particles move by the generative model alone (see `ParticleFilter`); weights use all that was observed of every
    per-step head, the context included. The spread of independent filters is the error.

    Args:
        rollout: parameters and covariates of the batch; its path is not used.
        name: the head to predict.
        num_particles: particles per filter.
        num_filters: independent filters.

    Returns:
        Log-probabilities, means and Monte Carlo errors of the former, (sequence, time, channel), and log p(y_{<=t}) of
        all heads, nats, (sequence, time).

    Raises:
        ValueError: a head whose density depends on the states of earlier steps.
    """
    masks = {}
    for n, head in rollout.observations.items():
        if head.head.per_step and not counts_in_steps(head):
            raise ValueError(
                f"one_step_ahead: head {n!r}, {type(head).__name__}, depends on the states of earlier steps, which "
                "particles do not carry; use evidence, or a latent without randomness"
            )
        if head.head.per_step:
            masks[n] = head.observed(rollout.data)
    head = rollout.observations[name]
    log_prob: list[Tensor] = []
    means: list[Tensor] = []
    told: list[Tensor] = []
    for predicted in ParticleFilter(rollout, num_particles, num_filters, masks=masks).steps():
        weights = predicted.log_weights
        told.append(torch.logsumexp(sum((seen.entries.sum(-1) for seen in predicted.seen.values()), weights), 1))
        if name not in predicted.seen:
            continue
        seen = predicted.seen[name]
        frame = len(log_prob)
        observed = rollout.recorded(name)[:, frame : frame + 1]
        entries = _with_zeros(head, seen.distribution, seen.entries.unsqueeze(-2), observed).squeeze(-2)
        log_prob.append(torch.logsumexp(weights.unsqueeze(-1) + entries, 1))
        mean = head.mean(seen.distribution).squeeze(3)  # (filter, particle, sequence, channel, ...)
        means.append((weights.exp().reshape(*weights.shape, *[1] * (mean.dim() - 3)) * mean).sum(1).mean(0))
    estimates = torch.stack(log_prob, -2)  # (filter, sequence, time, channel)
    value = torch.logsumexp(estimates, 0) - math.log(num_filters)
    error = (estimates - value).exp().std(0) / num_filters**0.5
    evidence = torch.stack(told, -1).double().cumsum(-1)  # (filter, sequence, time)
    return value, torch.stack(means, 1), error, torch.logsumexp(evidence, 0) - math.log(num_filters)


def _with_zeros(head: Observation, distribution: Distribution, entries: Tensor, observed: Tensor) -> Tensor:
    """Append to log-probabilities of what was observed those of no event, as further channels."""
    if not head.counts_events:
        return entries
    return torch.cat([entries, head.entry_log_prob(distribution, torch.zeros_like(observed))], -1)
