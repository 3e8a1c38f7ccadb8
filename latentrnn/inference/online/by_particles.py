"""A step by weighted particles, from the prior or from a guide, under every draw of the parameters."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor

from latentrnn.data import SequenceData
from latentrnn.inference.filters.particles import Moved, ParticleDynamics, Particles
from latentrnn.inference.filters.resampling import effective_sample_size
from latentrnn.inference.online.filtered_state import FilteredStates
from latentrnn.inference.online.followed import Followed, random_numbers_from
from latentrnn.inference.online.memory import Memory
from latentrnn.inference.online.parameter_draws import normalised, weighed
from latentrnn.inference.online.prediction import Kept, LatePredictions, average, copied
from latentrnn.inference.online.repeated import RepeatedStep, repeatable
from latentrnn.models.latents import Carry


class ByParticles:
    """Steps by particles, recorded and repeated where they do nothing but torch's operations.

    Args:
        followed: model and guide.
        seed: of what predictions draw.
    """

    def __init__(self, followed: Followed, seed: int) -> None:
        self.followed, self.seed = followed, seed
        parts = (followed.model, followed.guide) if followed.guided else (followed.model,)
        self.repeated = RepeatedStep(repeats=repeatable(*parts))

    def step(
        self, number: int, data: SequenceData, memory: Memory, names: tuple[str, ...]
    ) -> tuple[Memory, FilteredStates]:
        """Return what is remembered of a step, and what is known after it."""
        followed = self.followed
        due, carry = followed.heads_due(number), memory.carry
        seen = [name for name in due if bool(data.masks[name][:, -1].any())]
        remembered = {
            "value": memory.value,
            "log_weights": memory.log_weights,
            "encoded": memory.encoded,
            "log_draw_weights": memory.log_draw_weights,
        }
        remembered |= {f"past.{name}": past for name, past in memory.readout_memory.items()}
        remembered |= {f"history.{name}": window for name, window in memory.histories.items()}
        if carry is not None:
            remembered |= {"state": carry.state, "innovation": carry.innovation}
        given = {name: value for name, value in remembered.items() if value is not None}
        times = () if data.times is None else (data.times,)
        buffers = (data.observations, data.masks, data.covariates, data.totals)
        tensors = [*(value for each in buffers for value in each.values()), *times, *given.values()]

        def told(*tensors: Tensor) -> tuple[Any, ...]:
            known = dict(zip(given, tensors[len(tensors) - len(given) :], strict=True))
            before = memory._replace(
                carry=Carry(known["state"], known.get("innovation")) if "state" in known else None,
                value=known.get("value"),
                log_weights=known["log_weights"],
                readout_memory={name: known.get(f"past.{name}") for name in memory.readout_memory},
                histories={name: known[f"history.{name}"] for name in memory.histories},
                encoded=known.get("encoded"),
                log_draw_weights=known.get("log_draw_weights"),
            )
            return self._told(data, due, seen, before)

        # of the stream's windows there are few, each in a place of its own
        kind = id(data), tuple(due), tuple(seen), tuple(given)
        with random_numbers_from(memory.generator):
            changed, found, kept, log_weights = self.repeated(kind, told, tensors)
            generator = torch.get_rng_state()
        carry = Carry(changed.pop("state"), changed.pop("innovation"))
        memory = memory._replace(carry=carry, generator=generator, **changed)
        places = list(followed.heads)
        predictions = {}
        for name, (hidden, inputs, history, observed, mask) in kept.items():
            seed = self.seed, number, places.index(name)
            head = followed.double_heads[name]
            predictions[name] = Kept(head, hidden, inputs, history, observed, mask, log_weights, seed)
        return memory, FilteredStates(number, names, **found, spread=None, predictions=LatePredictions(predictions))

    def _told(self, data: SequenceData, due: list[str], seen: Collection[str], memory: Memory) -> tuple[Any, ...]:
        """Return what is remembered of a step, what is known after it, and by head what predictions are made of.

        Args:
            data: the last few steps.
            due: heads with a frame that is complete.
            seen: those of which something was observed.
            memory: of the step before.
        """
        followed = self.followed
        now = followed.now(data, memory.histories)
        latent, transition = followed.model.latent, followed.model.transition
        proposals, encoded = None, memory.encoded
        if followed.guided:
            numbers, encoded = followed.variational_parameters(data, encoded)
            proposals = followed.guide.local.proposals(numbers, data)
        dynamics = ParticleDynamics(
            latent, transition, followed.shape, now.inputs, memory.log_weights.dtype, proposals=proposals
        )
        particles = self._before(dynamics, memory)
        moved = dynamics.step(0, particles.carry, particles.value, now.inputs, now.gap)
        log_weights, pasts = _reweighted(particles.log_weights, moved), dict(particles.readout_memory)
        hidden = latent.output(transition, moved.carry)
        means, kept = {}, {}
        ahead, increment = log_weights.log_softmax(1), torch.zeros_like(log_weights)
        for name in due:
            inputs = followed.inputs(name, now, pasts[name])
            distribution = followed.given(name, inputs, now, hidden)
            head = followed.double_heads[name]
            mean = head.mean(distribution)
            means[name] = _by_stream(mean.expand(*followed.shape, *mean.shape[3:]).squeeze(3)).to(hidden.dtype)
            observed = data.observations[name][:, -1:].to(torch.float64, copy=True)
            if name in seen:
                entries = head.entry_log_prob(distribution, observed)
                increment = increment + entries.squeeze(-2).sum(-1)
            history = followed.history(name, now)
            mask = data.masks[name][:, -1].clone()
            kept[name] = hidden, copied(inputs), history, observed.squeeze(-2), mask
            pasts[name] = followed.heads[name].readout.remember(pasts[name], hidden)
        log_prob, log_weights = normalised(log_weights + increment, 1)
        drawn = memory.log_draw_weights
        if drawn is None:
            both, together, after = log_weights, log_prob.flatten(), None
        else:
            ahead = ahead + drawn
            together, after = weighed(drawn, log_prob)
            both = log_weights + after
        before, weights = (_by_stream(part.exp()).to(hidden.dtype) for part in (ahead, both))
        changed = {
            "state": moved.carry.state,
            "innovation": moved.carry.innovation,
            "value": moved.value,
            "log_weights": log_weights,
            "readout_memory": pasts,
            "histories": followed.with_newest(memory.histories, data),
            "encoded": encoded,
            "log_draw_weights": after,
        }
        found = {
            "values": None if moved.value is None else _by_stream(moved.value),
            "states": _by_stream(hidden),
            "weights": weights,
            "rates": {name: average(weights, mean) for name, mean in means.items()},
            "predicted": {name: average(before, mean) for name, mean in means.items()},
            "log_prob": together,
            "effective_sample_size": effective_sample_size(both.flatten(0, 1).unsqueeze(0)).squeeze(0),
            "draw_weights": None if after is None else after.squeeze(1).exp().T.to(hidden.dtype),
        }
        return changed, found, kept, ahead

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
