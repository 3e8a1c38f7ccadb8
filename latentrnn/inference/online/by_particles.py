"""A step by weighted particles, from the prior or from a guide, under every draw of the parameters."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from latentrnn.data import SequenceData
from latentrnn.inference.filters.particles import Moved, ParticleDynamics, Particles
from latentrnn.inference.filters.resampling import effective_sample_size
from latentrnn.inference.online.filtered_state import FilteredStates
from latentrnn.inference.online.followed import Followed, random_numbers_from
from latentrnn.inference.online.memory import Memory, Now
from latentrnn.inference.online.parameter_draws import normalised, weighed
from latentrnn.inference.online.prediction import average, predictions
from latentrnn.models.rollout.double_precision import to_double


class ByParticles:
    """Steps by particles.

    Args:
        followed: model and guide.
        seed: of what predictions draw.
    """

    def __init__(self, followed: Followed, seed: int) -> None:
        self.followed, self.seed = followed, seed

    def step(
        self, number: int, data: SequenceData, memory: Memory, names: tuple[str, ...]
    ) -> tuple[Memory, FilteredStates]:
        """Return what is remembered of a step, and what is known after it."""
        now = self.followed.now(data, memory.histories)
        with random_numbers_from(memory.generator):
            memory, found = self._step(number, now, memory, names)
            memory = memory._replace(generator=torch.get_rng_state())
        if memory.histories:
            memory = memory._replace(histories=self.followed.with_newest(memory.histories, data))
        return memory, found

    def _step(self, number: int, now: Now, memory: Memory, names: tuple[str, ...]) -> tuple[Memory, FilteredStates]:
        followed = self.followed
        latent, transition = followed.model.latent, followed.model.transition
        proposals, encoded = None, memory.encoded
        if followed.guided:
            numbers, encoded = followed.variational_parameters(now.data, encoded)
            proposals = followed.guide.local.proposals(numbers, now.data)
        dynamics = ParticleDynamics(
            latent, transition, followed.shape, now.inputs, memory.log_weights.dtype, proposals=proposals
        )
        particles = self._before(dynamics, memory)
        moved = dynamics.step(0, particles.carry, particles.value, now.inputs, now.gap)
        log_weights, pasts = _reweighted(particles.log_weights, moved), dict(particles.readout_memory)
        hidden = latent.output(transition, moved.carry)
        means, increment = {}, torch.zeros_like(log_weights)
        predicted: dict[str, tuple[Any, Any]] = {}
        for name in followed.heads_due(number):
            distribution = followed.distribution(name, now, hidden, pasts[name])
            head = followed.double_heads[name]
            mean = head.mean(distribution)
            means[name] = _by_stream(mean.expand(*followed.shape, *mean.shape[3:]).squeeze(3)).to(hidden.dtype)
            if bool(now.data.masks[name][:, -1].any()):
                entries = head.entry_log_prob(distribution, to_double(now.data.observations[name][:, -1:]))
                increment = increment + entries.squeeze(-2).sum(-1)
            predicted[name] = self._kept(name, distribution, now, hidden, pasts[name])
            pasts[name] = followed.heads[name].readout.remember(pasts[name], hidden)
        ahead = log_weights.log_softmax(1)
        log_prob, log_weights = normalised(log_weights + increment, 1)
        memory = memory._replace(
            carry=moved.carry, value=moved.value, log_weights=log_weights, readout_memory=pasts, encoded=encoded
        )
        drawn = memory.log_draw_weights
        if drawn is None:
            both, together, after = log_weights, log_prob.flatten(), None
        else:
            ahead = ahead + drawn
            together, after = weighed(drawn, log_prob)
            memory = memory._replace(log_draw_weights=after)
            both = log_weights + after
        before, weights = (_by_stream(part.exp()).to(hidden.dtype) for part in (ahead, both))
        return memory, FilteredStates(
            number,
            names,
            None if moved.value is None else _by_stream(moved.value),
            _by_stream(hidden),
            weights,
            {name: average(weights, mean) for name, mean in means.items()},
            {name: average(before, mean) for name, mean in means.items()},
            together,
            effective_sample_size(both.flatten(0, 1).unsqueeze(0)).squeeze(0),
            None,
            None if after is None else after.squeeze(1).exp().T.to(hidden.dtype),
            predictions=predictions(followed, self.seed, number, predicted, now.data, ahead),
        )

    def _kept(self, name: str, distribution: Any, now: Now, hidden: Tensor, past: Tensor | None) -> tuple[Any, Any]:
        """Return marginals of a head, or where it has none the head's distribution, that no later step writes over."""
        followed = self.followed
        marginals = followed.double_heads[name].marginals(distribution)
        if marginals is not None:
            return marginals, None
        inputs = followed.inputs(name, now, past)
        mask, totals, counted = (
            None if value is None else value.clone() for value in (inputs.mask, inputs.totals, inputs.counted)
        )
        inputs = inputs._replace(mask=mask, totals=totals, counted=counted)
        return None, followed.given(name, inputs, now, hidden)

    def _before(self, dynamics: ParticleDynamics, memory: Memory) -> Particles:
        """Return the particles that this step moves: new ones at the first, else the last step's, resampled."""
        if memory.carry is None:
            start = dynamics.init()
            return Particles(start.carry, None, _reweighted(memory.log_weights, start), memory.readout_memory)
        particles = Particles(memory.carry, memory.value, memory.log_weights, memory.readout_memory)
        # now, not when the last step was done: the next may never come
        return particles.resampled(0.5)[0] if self.followed.shape[1] > 1 else particles


def _by_stream(value: Tensor) -> Tensor:
    """Return (stream, particle, ...) of (draw, particle, stream, ...), the particles of all draws after one another."""
    return value.flatten(0, 1).transpose(0, 1)


def _reweighted(log_weights: Tensor, moved: Moved) -> Tensor:
    """Return log-weights that count what was drawn of another distribution than the prior."""
    if moved.log_densities is None:
        return log_weights
    log_prior, log_proposal = moved.log_densities
    return log_weights + log_prior - log_proposal
