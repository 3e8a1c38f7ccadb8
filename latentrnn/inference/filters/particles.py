"""Particles and how they move: the first values and one step, drawn from the prior, a guide, or a mixture of both."""

from __future__ import annotations

import math
from typing import NamedTuple

import pyro.distributions as dist
import torch
from torch import Tensor

from latentrnn.inference.filters.resampling import systematic_resampling, values_of
from latentrnn.inference.guides.families import Proposals
from latentrnn.models.latents import Carry, Latent
from latentrnn.models.transitions import Transition


class Particles(NamedTuple):
    """Particles of independent filters after a step, (filter, particle, sequence, ...).

    Attributes:
        carry: what the latent needs of this step at the next one.
        value: what was drawn at this step; None where nothing was.
        log_weights: given everything up to and with this step.
        readout_memory: by head earlier states that its readout remembers; None before the first.
    """

    carry: Carry
    value: Tensor | None
    log_weights: Tensor
    readout_memory: dict[str, Tensor | None]

    def resampled(self, below: float) -> tuple[Particles, Tensor]:
        """Return resampled particles, and which particle each of them came from; see `systematic_resampling`."""
        log_weights, ancestors = systematic_resampling(self.log_weights, below)
        innovation = self.carry.innovation
        carry = Carry(
            values_of(ancestors, self.carry.state), None if innovation is None else values_of(ancestors, innovation)
        )
        value = None if self.value is None else values_of(ancestors, self.value)
        memory = {n: None if past is None else values_of(ancestors, past) for n, past in self.readout_memory.items()}
        return Particles(carry, value, log_weights, memory), ancestors


class Moved(NamedTuple):
    """Particles that were started, or moved by a step, and do not yet count its observations.

    Attributes:
        carry: what the latent needs of this step at the next one.
        value: what was drawn at this step; None where nothing was.
        log_densities: of what was drawn, by prior and by proposal, (filter, particle, sequence) each, whose difference
            is to be added to the log-weights; None where the prior was the proposal.
    """

    carry: Carry
    value: Tensor | None
    log_densities: tuple[Tensor, Tensor] | None


class ParticleDynamics:
    """Starts particles, and moves them step by step, by draws of a proposal.

    Args:
        latent, transition: of the model.
        shape: (filter, particle, sequence).
        like: a tensor of the type and on the device of the states.
        dtype: of the log-weights.
        proposals: a guide's distribution step by step; None for the prior.
        prior_share: of the particles, on average, that come from the prior all the same (a defensive mixture).

    Attributes:
        starts: values of the sites before the first step, once there are any.
    """

    def __init__(
        self,
        latent: Latent,
        transition: Transition,
        shape: tuple[int, int, int],
        like: Tensor,
        dtype: torch.dtype,
        *,
        proposals: Proposals | None = None,
        prior_share: float = 0.0,
    ) -> None:
        self.latent, self.transition, self.shape, self.like, self.dtype = latent, transition, shape, like, dtype
        self.proposals, self.prior_share = proposals, 0.0 if proposals is None else prior_share
        self.starts: dict[str, Tensor] = {}
        self._first: Tensor | None = None  # the first step's value, where it was drawn with the starts
        self._mixed_first: tuple[Tensor, Tensor] | None = None  # which of these are from the prior; their log-prior

    def init(self) -> Moved:
        """Draw what lies before the first step."""
        priors = self.latent.start_prior(self.shape)
        log_densities: tuple[Tensor, Tensor] | None = None
        if self.proposals is None:
            self.starts = {name: prior.rsample() for name, prior in priors.items()}
        elif self.prior_share:
            log_densities = self._init_mixture(self.proposals, priors)
        else:
            start = self.proposals.begin(self.shape)
            self.starts, self._first = start.values, start.first
            log_prior = torch.zeros(self.shape, dtype=self.dtype, device=self.like.device)
            for name, prior in priors.items():
                log_prior = log_prior + prior.log_prob(self.starts[name])
            log_densities = log_prior, start.log_density
        return Moved(self.latent.begin_with(self.shape, self.starts), None, log_densities)

    def step(self, t: int, carry: Carry, before: Tensor | None, inputs: Tensor, gap: Tensor | None) -> Moved:
        """Move particles to step t.

        Args:
            t: the step, as the proposals count.
            carry: of the step before.
            before: the value of the step before; None at the first.
            inputs: of the transition, (filter, particle, sequence, channel).
            gap: seconds since the step before, (sequence,), where steps are irregular.
        """
        step = self.latent.step(self.transition, carry, inputs, gap)
        if step.prior is None:
            return Moved(step.move(None), None, None)
        if self.proposals is None:
            value = step.prior.rsample()
            return Moved(step.move(value), value, None)
        value, log_prior, log_proposal = self._draw(self.proposals, t, step.prior, before)
        return Moved(step.move(value), value, (log_prior, log_proposal))

    def _draw(
        self, proposals: Proposals, t: int, prior: dist.Distribution, before: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Draw a value from the proposals; return it with its log-density by prior and proposal."""
        if self._first is not None:
            return self._draw_first(proposals, prior, self._first)
        proposal = proposals.step(t, before, self.starts).expand(self.shape)
        value = proposal.rsample()
        if not self.prior_share:
            return value, prior.log_prob(value), proposal.log_prob(value)
        value = torch.where(self._from_prior().unsqueeze(-1), prior.sample(), value)
        log_prior = prior.log_prob(value)
        return value, log_prior, self._mixture(log_prior, proposal.log_prob(value))

    def _draw_first(
        self, proposals: Proposals, prior: dist.Distribution, first: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the first value, which was drawn jointly with the starts."""
        self._first = None
        if self._mixed_first is None:  # its density was counted with the starts
            log_prior = prior.log_prob(first)
            return first, log_prior, torch.zeros_like(log_prior)
        chosen, log_prior = self._mixed_first
        first = torch.where(chosen.unsqueeze(-1), prior.sample(), first)
        log_prior = log_prior + prior.log_prob(first)
        return first, log_prior, self._mixture(log_prior, proposals.density(self.starts, first, self.shape))

    def _init_mixture(self, proposals: Proposals, priors: dict[str, dist.Distribution]) -> tuple[Tensor, Tensor]:
        """Let a share of the particles start from the prior; return log-densities of the starts."""
        start = proposals.begin(self.shape)
        chosen = self._from_prior()
        log_prior = self.like.new_zeros(self.shape)
        for name, prior in priors.items():
            self.starts[name] = torch.where(chosen.unsqueeze(-1), prior.sample(), start.values[name])
            log_prior = log_prior + prior.log_prob(self.starts[name])
        if start.first is not None:  # the density of both is known at the first step
            self._first, self._mixed_first = start.first, (chosen, log_prior)
            return torch.zeros_like(log_prior), torch.zeros_like(log_prior)
        return log_prior, self._mixture(log_prior, proposals.density(self.starts, None, self.shape))

    def _from_prior(self) -> Tensor:
        """Choose the particles that come from the prior, each by a draw of its own, so that Z stays unbiased."""
        return torch.rand(self.shape, device=self.like.device) < self.prior_share

    def _mixture(self, log_prior: Tensor, log_proposal: Tensor) -> Tensor:
        """Return the log-density of the mixture of prior and guide."""
        return torch.logaddexp(log_prior + math.log(self.prior_share), log_proposal + math.log1p(-self.prior_share))
