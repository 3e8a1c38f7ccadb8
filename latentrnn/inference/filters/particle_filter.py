"""Sequential Monte Carlo: one particle filter for one-step-ahead densities, evidence, and objectives."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import pyro.distributions as dist
import torch
from torch import Tensor

from latentrnn.inference.filters.particles import ParticleDynamics, Particles
from latentrnn.inference.filters.resampling import effective_sample_size, values_of
from latentrnn.inference.guides.families import Proposals
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


class Predicted(NamedTuple):
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
        diagnose: what `largest_shape` is the largest of: log-weights (particle, sequence) to (sequence,).

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
        diagnose: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.rollout, self.data = rollout, rollout.data
        self.shape = (num_filters, num_particles, rollout.data.num_sequences)
        given = {} if masks is None else masks
        inputs = {n: rollout.inputs[n] for n in rollout.heads}
        inputs |= {n: inputs[n]._replace(mask=mask) for n, mask in given.items() if n in inputs}
        counted = rollout.observations if masks is None else {n: rollout.observations[n] for n in masks}
        self.heads = {n: head for n, head in counted.items() if counts_in_steps(head)}
        self.at_end = [n for n in counted if n not in self.heads]
        for n in self.at_end:
            if n in rollout.feedback_heads:
                raise ValueError(
                    f"particle filter: head {n!r}, {type(counted[n]).__name__}, feeds back and depends on the states "
                    "of earlier steps, which particles do not carry"
                )
        self.inputs = inputs
        self.history = {n: rollout.history_features(n, self.data.observations[n]) for n in rollout.feedback_heads}
        self.gaps = gaps(self.data)
        self.site = next((site.name for site in rollout.latent.sites() if site.along_time), None)
        self.resample_below, self.keep, self.diagnose = resample_below, keep, diagnose
        like = rollout.transition_inputs
        dtype = torch.float64 if rollout.is_double else like.dtype
        self._zero_weights = torch.zeros(self.shape, dtype=dtype, device=like.device)
        self.dynamics = ParticleDynamics(
            rollout.latent, rollout.transition, self.shape, like, dtype, proposals=proposals, prior_share=prior_share
        )
        self.prior_weight, self.head_weights = prior_weight, {} if head_weights is None else head_weights
        self._hidden: list[Tensor] = []  # what readouts see, step by step
        self._values: list[Tensor] = []  # what was drawn
        self._starts: dict[str, Tensor] = {}
        self._ancestors: list[Tensor] = []  # which particle of a step each particle of the next came from

    def run(self) -> ParticleFilter:
        """Go through all steps; `log_evidence`, `log_weights` and `smallest_sample` are there afterwards."""
        for _ in self.steps():
            pass
        return self

    def steps(self) -> Iterator[Predicted]:
        """Go through all steps, and show each before its observations count.

        Afterwards there are `log_evidence`, log Z, nats, (filter, sequence), `log_weights` of the final particles,
        (filter, particle, sequence), `smallest_sample`, the smallest effective number of particles on the way,
        (filter, sequence), and, if asked for, `largest_shape`, the largest diagnosis on the way of the weights
        of all filters together, (sequence,).
        """
        rollout, dynamics = self.rollout, self.dynamics
        start = dynamics.init()
        log_weights = self._zero_weights if start.log_densities is None else torch.sub(*start.log_densities)
        log_weights = self.prior_weight * log_weights - math.log(self.shape[1])
        particles = Particles(start.carry, None, log_weights, dict.fromkeys(self.heads))
        self.log_evidence: Tensor = log_weights.new_zeros(self.shape[0], self.shape[2])
        self.smallest_sample = torch.full_like(self.log_evidence, float(self.shape[1]))
        self.largest_shape = log_weights.new_zeros(self.shape[2], dtype=torch.float64)
        self._starts = dynamics.starts if self.keep else {}
        steps = rollout.transition_inputs.unbind(-2)
        for t, inputs in enumerate(steps):
            fed_back = [self.history[n][:, t] for n in rollout.feedback_heads if rollout.feeds_transition(n)]
            inputs = concatenate_channels(inputs, *fed_back).expand(*self.shape, -1)
            gap = None if self.gaps is None else self.gaps[:, t]
            moved = dynamics.step(t, particles.carry, particles.value, inputs, gap)
            log_weights = particles.log_weights
            if moved.log_densities is not None:
                ratio = torch.where(self.data.valid[:, t], torch.sub(*moved.log_densities), 0.0)
                log_weights = log_weights + self.prior_weight * ratio
            hidden = rollout.latent.output(rollout.transition, moved.carry)
            predicted = Predicted(log_weights, self._look(t, hidden, particles.readout_memory))
            yield predicted
            for name, seen in predicted.seen.items():
                log_weights = log_weights + self.head_weights.get(name, 1.0) * seen.entries.sum(-1)
            if self.at_end or self.keep:
                self._hidden.append(hidden)
            if self.keep and moved.value is not None:
                self._values.append(moved.value)
            particles = Particles(moved.carry, moved.value, self._normalised(log_weights), particles.readout_memory)
            if t + 1 < len(steps):
                particles, ancestors = particles.resampled(self.resample_below)
                self._ancestors.append(ancestors)
        self.log_weights = particles.log_weights
        if self.at_end:
            self.log_weights = self._normalised(self.log_weights + self._whole(self.hidden_paths()))

    def paths(self) -> dict[str, Tensor]:
        """Return the paths that lead to the final particles, by site, (filter, particle, sequence, [time,] dim).

        With the weights `log_weights` they are draws from the posterior; many of them share their first steps.
        Padding is standard normal.
        """
        first = self._lineage()[0]
        found = {name: values_of(first, value) for name, value in self._starts.items()}
        if self._values:
            assert self.site is not None
            path = self._along_lineage(self._values)
            found[self.site] = torch.where(self.data.valid.unsqueeze(-1), path, torch.randn_like(path))
        return found

    def hidden_paths(self) -> Tensor:
        """Return what readouts saw on the paths to the final particles, (filter, particle, sequence, time, dim)."""
        return self._along_lineage(self._hidden)

    # -- how -------------------------------------------------------------------------------------------------------

    def _look(self, t: int, hidden: Tensor, memory: dict[str, Tensor | None]) -> dict[str, Seen]:
        """Return what each head with a complete frame says of step t, and let its readout remember the step."""
        found = {}
        for name, head in self.heads.items():
            frame, rest = divmod(t + 1, head.head.clock)
            frame -= 1
            if rest or frame >= self.data.observations[name].shape[1]:
                continue
            history = self.history[name][:, t : t + 1] if name in self.history else None
            inputs = self.inputs[name].at(frame, memory[name])
            distribution = self.rollout.heads[name](hidden.unsqueeze(-2), inputs, history)
            memory[name] = head.readout.remember(memory[name], hidden)
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
        self.smallest_sample = torch.minimum(self.smallest_sample, effective_sample_size(log_weights.detach()))
        if self.diagnose is not None:
            shape = self.diagnose(log_weights.detach().flatten(0, 1))
            self.largest_shape = torch.maximum(self.largest_shape, shape)
        return log_weights

    def _lineage(self) -> list[Tensor]:
        """Return which particle of each step the final particles came through."""
        index = torch.arange(self.shape[1], device=self.data.device)[None, :, None].expand(self.shape)
        found = [index]
        for ancestors in reversed(self._ancestors):
            found.append(ancestors.gather(1, found[-1]))
        return found[::-1]

    def _along_lineage(self, steps: Sequence[Tensor]) -> Tensor:
        """Return the values of all steps along the lineage of the final particles, time at dim -2."""
        return torch.stack([values_of(index, step) for step, index in zip(steps, self._lineage(), strict=True)], -2)


def counts_in_steps(head: Observation) -> bool:
    """Return whether a head's density is a product over steps, each of which depends on the present state alone."""
    return head.head.per_step and head.instantaneous and head.reads is None
