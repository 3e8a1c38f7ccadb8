"""Sequential Monte Carlo: one particle filter for one-step-ahead densities, evidence, and objectives."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import pyro.distributions as dist
import torch
from torch import Tensor

from latentrnn.inference.evidence.pareto import tail_shape
from latentrnn.inference.guides.families import Proposals
from latentrnn.inference.guides.families.family import Start
from latentrnn.models.features.gap import gaps
from latentrnn.models.observations import Observation
from latentrnn.models.rollout import Rollout
from latentrnn.models.transitions.transition import concatenate_channels


class Seen(NamedTuple):
    """What one head says of one step.

    Attributes:
        distribution: p(y_t | z_{<=t}, y_{<t}) for every particle.
        entries: log-density of what was observed, nats, (filter, particle, sequence, channel).
    """

    distribution: dist.Distribution
    entries: Tensor


class Moment(NamedTuple):
    """A filter that has moved to a step and not yet counted its observations.

    Attributes:
        log_weights: (filter, particle, sequence). With particles from the prior they add up to one over particles
            and describe p(z_t | y_{<t}).
        seen: by head, for the heads with a frame that is complete at this step.
    """

    log_weights: Tensor
    seen: dict[str, Seen]


class ParticleFilter:
    """Filters with particles from the prior, or from a guide, weighted so that the target stays the model's.

        w_t^i = p(z_t^i | z_{<t}^i) p(y_t | z_{<=t}^i) / q(z_t^i | z_{t-1}^i, y),   Z = prod_t sum_i W_{t-1}^i w_t^i

    W are the weights left from the step before, equal after the particles were resampled: systematically, wherever
    the effective sample size falls below a share of their number. E[Z] = p(y), whatever the proposal, as long as it
    reaches wherever the posterior does. Heads of single steps are counted step by step; a head that depends on more
    than the present state (one value per sequence, `Calcium`) is counted at the end, on the paths that survived.

    Gradients go through draws and weights; how resampling depends on weights is left out of them.

    Args:
        rollout: parameters and covariates of the batch; its path is not used. Draws of parameters are one for each
            filter, on axes (filter, 1, 1).
        num_particles: particles per filter.
        num_filters: independent filters.
        proposals: a guide's distribution step by step; None for the prior (a bootstrap filter).
        prior_share: of the particles, on average, that come from the prior all the same. Densities are then those of
            the mixture, so that p / q is at most one over this share: a guide that is too narrow, or looks elsewhere,
            costs particles, but cannot hide a part of the posterior (a defensive mixture).
        masks: what counts, by head; by default what is scored.
        resample_below: the effective sample size, as a share of the particles, below which they are resampled; at
            zero they never are, and Z is the mean of importance weights.
        prior_weight: power of p(z) / q(z) in the weights, and
        head_weights: of the named heads' densities, for objectives that are tempered; one where nothing is said.
        keep: whether `paths` will be asked for.
        diagnose: whether `largest_shape` will be asked for.

    Raises:
        ValueError: a head that feeds back and depends on the states of earlier steps; a family that cannot be drawn
            step by step.

    References:
        Gordon, Salmond, Smith. Novel approach to nonlinear/non-Gaussian Bayesian state estimation. 1993.
        Del Moral. Feynman-Kac formulae: genealogical and interacting particle systems with applications. 2004.
        Chopin, Papaspiliopoulos. An introduction to sequential Monte Carlo. 2020.
        Hesterberg. Weighted average importance sampling and defensive mixture distributions. 1995.
    """

    def __init__(
        self,
        rollout: Rollout,
        num_particles: int,
        num_filters: int = 1,
        *,
        proposals: Proposals | None = None,
        prior_share: float = 0.0,
        masks: Mapping[str, Tensor] | None = None,
        resample_below: float = 0.5,
        prior_weight: float = 1.0,
        head_weights: Mapping[str, float] | None = None,
        keep: bool = False,
        diagnose: bool = False,
    ) -> None:
        self.rollout, self.data, self.proposals = rollout, rollout.data, proposals
        self.shape = (num_filters, num_particles, rollout.data.num_sequences)
        given = {} if masks is None else masks
        inputs = {n: rollout.inputs[n] for n in rollout.heads}
        inputs |= {n: inputs[n]._replace(mask=mask) for n, mask in given.items() if n in inputs}
        counted = rollout.observations if masks is None else {n: rollout.observations[n] for n in masks}
        self.heads = {n: head for n, head in counted.items() if in_steps(rollout, n)}
        self.at_end = [n for n in counted if n not in self.heads]
        for n in self.at_end:
            if n in rollout.feedback_heads:
                raise ValueError(
                    f"particle filter: head {n!r}, {type(counted[n]).__name__}, feeds back and depends on the states "
                    "of earlier steps, which particles do not carry"
                )
        self.inputs = inputs
        self.history = {n: rollout.history_features(n, self.data.observations[n]) for n in rollout.feedback_heads}
        self.pasts: dict[str, Tensor | None] = dict.fromkeys(self.heads)  # earlier states that readouts remember
        self.gaps = gaps(self.data)
        self.site = next((site.name for site in rollout.latent.sites() if site.along_time), None)
        self.resample_below, self.keep, self.diagnose = resample_below, keep, diagnose
        self.prior_share = 0.0 if proposals is None else prior_share
        self.prior_weight, self.head_weights = prior_weight, {} if head_weights is None else head_weights
        self._hidden: list[Tensor] = []  # what readouts see, step by step
        self._values: list[Tensor] = []  # what was drawn
        self._starts: dict[str, Tensor] = {}
        self._ancestors: list[Tensor] = []  # which particle of a step each particle of the next came from

    def run(self) -> ParticleFilter:
        """Go through all steps; `log_evidence`, `log_weights` and `smallest_sample` are there afterwards."""
        for _ in self.moments():
            pass
        return self

    def moments(self) -> Iterator[Moment]:
        """Go through all steps, and show each before its observations count.

        Afterwards there are `log_evidence`, log Z, nats, (filter, sequence), `log_weights` of the final particles,
        (filter, particle, sequence), `smallest_sample`, the smallest effective number of particles on the way,
        (filter, sequence), and, if asked for, `largest_shape`, the largest k-hat on the way of the weights of all
        filters together, (sequence,).
        """
        rollout, data, latent, transition = self.rollout, self.data, self.rollout.latent, self.rollout.transition
        starts, first, log_weights = self._start()
        carry, before = latent.begin_with(self.shape, starts), None
        log_weights = self.prior_weight * log_weights - math.log(self.shape[1])
        self.log_evidence: Tensor = log_weights.new_zeros(self.shape[0], self.shape[2])
        self.smallest_sample = torch.full_like(self.log_evidence, float(self.shape[1]))
        self.largest_shape = log_weights.new_zeros(self.shape[2], dtype=torch.float64)
        self._starts = starts if self.keep else {}
        steps = rollout.transition_inputs.unbind(-2)
        for t, a_t in enumerate(steps):
            fed_back = [self.history[n][:, t] for n in rollout.feedback_heads if rollout.feeds_transition(n)]
            a_t = concatenate_channels(a_t, *fed_back).expand(*self.shape, -1)
            step = latent.step(transition, carry, a_t, None if self.gaps is None else self.gaps[:, t])
            value, ratio = None, None
            if step.prior is not None:
                value, ratio = self._draw(t, step.prior, before, starts, first if t == 0 else None)
            carry = step.move(value)
            h_t = latent.output(transition, carry)
            if ratio is not None:
                log_weights = log_weights + self.prior_weight * torch.where(data.valid[:, t], ratio, 0.0)
            moment = Moment(log_weights, self._look(t, h_t))
            yield moment
            for name, seen in moment.seen.items():
                log_weights = log_weights + self.head_weights.get(name, 1.0) * seen.entries.sum(-1)
            if self.at_end or self.keep:
                self._hidden.append(h_t)
            if self.keep and value is not None:
                self._values.append(value)
            log_weights = self._normalised(log_weights)
            if t + 1 < len(steps):
                log_weights, ancestors = resampled(log_weights, self.resample_below)
                carry = carry._replace(
                    state=choose(carry.state, ancestors),
                    innovation=None if carry.innovation is None else choose(carry.innovation, ancestors),
                )
                before = None if value is None else choose(value, ancestors)
                self.pasts = {n: None if past is None else choose(past, ancestors) for n, past in self.pasts.items()}
                self._ancestors.append(ancestors)
        if self.at_end:
            states = self._followed(self._hidden)
            log_weights = self._normalised(log_weights + self._whole(states))
        self.log_weights = log_weights

    def paths(self) -> dict[str, Tensor]:
        """Return the paths that lead to the final particles, by site, (filter, particle, sequence, [time,] dim).

        With the weights `log_weights` they are draws from the posterior; many of them share their first steps.
        Padding is standard normal.
        """
        first = self._lineage()[0]
        found = {name: choose(value, first) for name, value in self._starts.items()}
        if self._values:
            assert self.site is not None
            path = self._followed(self._values)
            found[self.site] = torch.where(self.data.valid.unsqueeze(-1), path, torch.randn_like(path))
        return found

    # -- how -------------------------------------------------------------------------------------------------------

    def _start(self) -> tuple[dict[str, Tensor], Tensor | None, Tensor]:
        """Draw what lies before the first step; with it a first value, if it came before, and log-weights."""
        priors = self.rollout.latent.start_prior(self.shape)
        like = self.rollout.transition_inputs
        dtype = torch.float64 if self.rollout.is_double else like.dtype
        log_weights = torch.zeros(self.shape, dtype=dtype, device=like.device)
        if self.proposals is None:
            return {name: prior.rsample() for name, prior in priors.items()}, None, log_weights
        start = self.proposals.begin(self.shape)
        if self.prior_share:
            return self._mixed_start(priors, start)
        for name, prior in priors.items():
            log_weights = log_weights + prior.log_prob(start.values[name])
        return start.values, start.first, log_weights - start.log_density

    def _mixed_start(
        self, priors: dict[str, dist.Distribution], start: Start
    ) -> tuple[dict[str, Tensor], Tensor | None, Tensor]:
        """Let a share of the particles start from the prior."""
        chosen, values = self._from_prior(), {}
        log_prior = self.rollout.transition_inputs.new_zeros(self.shape)
        for name, prior in priors.items():
            values[name] = torch.where(chosen.unsqueeze(-1), prior.sample(), start.values[name])
            log_prior = log_prior + prior.log_prob(values[name])
        if start.first is not None:  # drawn jointly with the start: the prior of both is known at the first step
            self._begun = chosen, values, log_prior
            return values, start.first, torch.zeros_like(log_prior)
        assert self.proposals is not None
        return values, None, log_prior - self._mixed(log_prior, self.proposals.density(values, None, self.shape))

    def _from_prior(self) -> Tensor:
        """Choose the particles that come from the prior, each by a draw of its own, so that Z stays unbiased."""
        return torch.rand(self.shape, device=self.rollout.transition_inputs.device) < self.prior_share

    def _mixed(self, log_prior: Tensor, log_guide: Tensor) -> Tensor:
        """Return the log-density of the mixture of prior and guide."""
        return torch.logaddexp(log_prior + math.log(self.prior_share), log_guide + math.log1p(-self.prior_share))

    def _draw(
        self,
        t: int,
        prior: dist.Distribution,
        before: Tensor | None,
        starts: dict[str, Tensor],
        first: Tensor | None,
    ) -> tuple[Tensor, Tensor | None]:
        """Draw a value; return it with log p - log q, None where the two are the same."""
        if self.proposals is None:
            return prior.rsample(), None
        if first is not None and self.prior_share:
            chosen, values, log_prior = self._begun
            first = torch.where(chosen.unsqueeze(-1), prior.sample(), first)
            log_prior = log_prior + prior.log_prob(first)
            return first, log_prior - self._mixed(log_prior, self.proposals.density(values, first, self.shape))
        if first is not None:  # drawn with the start, which counts its density
            return first, prior.log_prob(first)
        law = self.proposals.step(t, before, starts).expand(self.shape)
        value = law.rsample()
        if not self.prior_share:
            return value, prior.log_prob(value) - law.log_prob(value)
        value = torch.where(self._from_prior().unsqueeze(-1), prior.sample(), value)
        log_prior = prior.log_prob(value)
        return value, log_prior - self._mixed(log_prior, law.log_prob(value))

    def _look(self, t: int, h_t: Tensor) -> dict[str, Seen]:
        found = {}
        for name, head in self.heads.items():
            frame, rest = divmod(t + 1, head.head.clock)
            frame -= 1
            if rest or frame >= self.data.observations[name].shape[1]:
                continue
            history = self.history[name][:, t : t + 1] if name in self.history else None
            inputs = self.inputs[name].at(frame, self.pasts[name])
            distribution = self.rollout.heads[name](h_t.unsqueeze(-2), inputs, history)
            self.pasts[name] = head.readout.remember(self.pasts[name], h_t)
            observed = self.rollout.recorded(name)[:, frame : frame + 1]
            found[name] = Seen(distribution, head.entry_log_prob(distribution, observed).squeeze(-2))
        return found

    def _whole(self, states: Tensor) -> Tensor:
        """Return the log-density of the heads that are counted at the end, given what readouts saw at all steps."""
        total = states.new_zeros(self.shape)
        for name in self.at_end:
            values = self.rollout.recorded(name)
            log_prob = self.rollout.given(name, states).log_prob(values)
            total = total + self.head_weights.get(name, 1.0) * log_prob
        return total

    def _normalised(self, log_weights: Tensor) -> Tensor:
        """Count the mass of the weights as evidence, and return them with a mass of one."""
        mass = torch.logsumexp(log_weights, 1)
        self.log_evidence = self.log_evidence + mass
        # where no particle is possible the evidence is zero, and what follows should not become NaN
        alive = torch.isfinite(mass).unsqueeze(1)
        equal = torch.full_like(log_weights, -math.log(self.shape[1]))
        log_weights = torch.where(alive, log_weights - torch.where(alive, mass.unsqueeze(1), 0.0), equal)
        self.smallest_sample = torch.minimum(self.smallest_sample, sample_size(log_weights.detach()))
        if self.diagnose:
            shape = tail_shape(log_weights.detach().flatten(0, 1))
            self.largest_shape = torch.maximum(self.largest_shape, shape)
        return log_weights

    def _lineage(self) -> list[Tensor]:
        """Return which particle of each step the final particles came through."""
        index = torch.arange(self.shape[1], device=self.data.device)[None, :, None].expand(self.shape)
        found = [index]
        for ancestors in reversed(self._ancestors):
            found.append(ancestors.gather(1, found[-1]))
        return found[::-1]

    def _followed(self, steps: Sequence[Tensor]) -> Tensor:
        """Return the values of all steps along the lineage of the final particles, time at dim -2."""
        return torch.stack([choose(step, index) for step, index in zip(steps, self._lineage(), strict=True)], -2)


def in_steps(rollout: Rollout, name: str) -> bool:
    """Return whether a head's density is a product over steps, each of which depends on the present state alone."""
    return of_steps(rollout.observations[name])


def of_steps(head: Observation) -> bool:
    """Return the same of a head."""
    return head.head.per_step and head.instantaneous and head.reads is None


def sample_size(log_weights: Tensor) -> Tensor:
    """Return the effective number of particles, (filter, sequence), of normalised log-weights."""
    return 1 / (2 * log_weights).exp().sum(1)


def resampled(log_weights: Tensor, below: float) -> tuple[Tensor, Tensor]:
    """Return new normalised log-weights and the ancestor of every particle, (filter, particle, sequence)."""
    filters, count, sequences = log_weights.shape
    weights = log_weights.detach().exp()
    poor = (sample_size(log_weights.detach()) < below * count).unsqueeze(1)
    # systematic: one uniform number for each filter and sequence, equally spaced positions from there
    start = torch.rand(filters, 1, sequences, dtype=weights.dtype, device=weights.device)
    order = torch.arange(count, device=weights.device)[:, None]
    positions = ((order + start) / count).transpose(1, 2).contiguous()
    cumulative = weights.cumsum(1).transpose(1, 2).contiguous()
    ancestors = torch.searchsorted(cumulative, positions).clamp(max=count - 1)
    ancestors = torch.where(poor, ancestors.transpose(1, 2), order)
    return torch.where(poor, torch.full_like(log_weights, -math.log(count)), log_weights), ancestors


def choose(value: Tensor, ancestors: Tensor) -> Tensor:
    """Return the ancestors' values; `value` is (filter, particle, sequence, ...)."""
    chosen = ancestors.reshape(*ancestors.shape, *[1] * (value.dim() - ancestors.dim()))
    return value.gather(1, chosen.expand_as(value))
