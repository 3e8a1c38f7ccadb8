"""One-step-ahead densities: what the model expects of each step given everything before it, and nothing after."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from latentrnn.data import SequenceKey
from latentrnn.models.ancestral import Course
from latentrnn.models.latents.latent import Carry, gaps, join


@dataclass(frozen=True)
class OneStepAhead:
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

    @property
    def exact(self) -> bool:
        """Whether there is no Monte Carlo error."""
        return self.standard_error is None

    @property
    def total(self) -> float:
        """Sum over everything scored, nats."""
        return float(self.log_prob.sum())


def exact(course: Course, name: str) -> tuple[Tensor, Tensor]:
    """Return log-probabilities per entry and means for a course without local randomness: the past is all it needs."""
    head = course.observations[name]
    entries, means = [], []
    for log_weight, distribution in course.latent.ahead(course, name):
        entry, mean = head.entry_log_prob(distribution, course.data.observations[name]), head.mean(distribution)
        entries.append(log_weight.unsqueeze(-1) + entry)
        means.append(log_weight.exp().reshape(*log_weight.shape, *[1] * (mean.dim() - log_weight.dim())) * mean)
    value, mean = torch.logsumexp(torch.stack(entries), 0), torch.stack(means).sum(0)
    return (value, mean) if value.dim() == 3 else (value.squeeze(0), mean.squeeze(0))  # one draw of the parameters


def bootstrap_filter(course: Course, name: str, num_particles: int, num_filters: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return log-probabilities, means and Monte Carlo errors of one head by a bootstrap particle filter.

    Particles move by the generative model alone; after each step they are weighted by the likelihood of every
    per-step head, and resampled (systematically) where the effective sample size falls below half. The spread of
    independent filters is the error.

    Args:
        course: parameters and covariates of the batch; its path is not used.
        name: the head to predict.
        num_particles: particles per filter.
        num_filters: independent filters.

    References:
        Gordon, Salmond, Smith. Novel approach to nonlinear/non-Gaussian Bayesian state estimation. 1993.
    """
    return _Filter(course, name, num_particles, num_filters).run()


class _Filter:
    def __init__(self, course: Course, name: str, num_particles: int, num_filters: int) -> None:
        self.course, self.name, self.data = course, name, course.data
        self.shape = (num_filters, num_particles, course.data.num_sequences)
        self.heads = {n: h for n, h in course.observations.items() if h.head.per_step}
        for n, head in self.heads.items():
            if not head.instantaneous:
                raise ValueError(
                    f"one_step_ahead: head {n!r}, {type(head).__name__}, depends on the states of earlier steps, which "
                    "particles do not carry; use evidence, or a latent without randomness"
                )
        # weights use all that was observed, the context included; what is scored is decided at the end
        self.inputs = {n: course.inputs[n]._replace(mask=h.observed(self.data)) for n, h in self.heads.items()}
        self.history = {n: course.history_features(n, self.data.observations[n]) for n in course.feeding}
        self.pasts: dict[str, Tensor | None] = dict.fromkeys(self.heads)  # earlier states that readouts remember
        self.gaps = gaps(self.data)

    def run(self) -> tuple[Tensor, Tensor, Tensor]:
        data, latent, transition = self.data, self.course.latent, self.course.transition
        carry = latent.begin(self.shape)
        log_weights = torch.zeros(self.shape, dtype=data.dtype, device=data.device)
        log_prob, means = [], []
        for t, a_t in enumerate(self.course.drive.unbind(-2)):
            fed_back = [self.history[n][:, t] for n in self.course.feeding if self.course.drives(n)]
            a_t = join(a_t, *fed_back).expand(*self.shape, -1)
            carry = latent.advance(transition, carry, a_t, None if self.gaps is None else self.gaps[:, t])
            h_t = latent.output(transition, carry)
            normal = log_weights - torch.logsumexp(log_weights, 1, keepdim=True)
            increment = torch.zeros_like(log_weights)
            for n, head in self.heads.items():
                frame, rest = divmod(t + 1, head.head.clock)
                frame -= 1
                if rest or frame >= data.observations[n].shape[1]:
                    continue
                history = self.history[n][:, t : t + 1] if n in self.history else None
                distribution = self.course.heads[n](h_t.unsqueeze(-2), self.inputs[n].at(frame, self.pasts[n]), history)
                self.pasts[n] = head.readout.remember(self.pasts[n], h_t)
                entries = head.entry_log_prob(distribution, data.observations[n][:, frame : frame + 1]).squeeze(-2)
                increment = increment + entries.sum(-1)
                if n == self.name:
                    log_prob.append(torch.logsumexp(normal.unsqueeze(-1) + entries, 1))
                    mean = head.mean(distribution).squeeze(3)  # (filter, particle, sequence, channel, ...)
                    weight = normal.exp().reshape(*normal.shape, *[1] * (mean.dim() - 3))
                    means.append((weight * mean).sum(1).mean(0))
            log_weights, carry = self._resample(normal + increment, carry)
        estimates = torch.stack(log_prob, -2)  # (filter, sequence, time, channel)
        value = torch.logsumexp(estimates, 0) - math.log(self.shape[0])
        error = (estimates - value).exp().std(0) / self.shape[0] ** 0.5
        return value, torch.stack(means, 1), error

    def _resample(self, log_weights: Tensor, carry: Carry) -> tuple[Tensor, Carry]:
        count = self.shape[1]
        weights = log_weights.softmax(1)
        poor = 1 / weights.square().sum(1, keepdim=True) < 0.5 * count
        # systematic: one uniform number for each filter and sequence, equally spaced positions from there
        start = torch.rand(self.shape[0], 1, self.shape[2], dtype=weights.dtype, device=weights.device)
        positions = (torch.arange(count, device=weights.device)[:, None] + start) / count
        cumulative = weights.cumsum(1).transpose(1, 2).contiguous()
        ancestors = torch.searchsorted(cumulative, positions.transpose(1, 2).contiguous()).clamp(max=count - 1)
        ancestors = torch.where(poor, ancestors.transpose(1, 2), torch.arange(count, device=weights.device)[:, None])

        def choose(value: Tensor) -> Tensor:
            chosen = ancestors.reshape(*ancestors.shape, *[1] * (value.dim() - ancestors.dim()))
            return value.gather(1, chosen.expand_as(value))

        self.pasts = {n: None if past is None else choose(past) for n, past in self.pasts.items()}
        innovation = None if carry.innovation is None else choose(carry.innovation)
        return torch.where(poor, torch.zeros_like(log_weights), log_weights), Carry(choose(carry.state), innovation)
