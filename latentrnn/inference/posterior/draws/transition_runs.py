"""How the transition of a fitted model went through the data: what came in, and every state before and after a step."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from latentrnn.inference.posterior.draws.predictions import with_sample_axis
from latentrnn.inference.posterior.draws.sampler import PosteriorSampler
from latentrnn.models.rollout import Rollout
from latentrnn.models.transitions import Transition


class TransitionRun(NamedTuple):
    """Some of the sequences under all draws, with whole states; on the posterior's device.

    Attributes:
        rollout: what the model made of the draws: its transition, with the draws of its parameters, heads and data.
        inputs: a_{1:T} whole, (sample, sequence, time, channel): covariates, the past that feeds back, what is drawn.
        before: s_{0:T-1}, (sample, sequence, time, state_size).
        states: s_{1:T}, likewise; where the latent draws them, s_t is not what the step makes of s_{t-1}.
        rows: which of the sequences these are.
    """

    rollout: Rollout
    inputs: Tensor
    before: Tensor
    states: Tensor
    rows: slice

    @property
    def transition(self) -> Transition:
        """The transition, with the draws of its parameters."""
        return self.rollout.transition

    def gates(self) -> dict[str, Tensor]:
        """Return every gate of every step, (sample, sequence, time, size), by name; layers lie side by side."""
        # all steps are rows of one call: every state before a step is known
        before, inputs = self.before.flatten(1, 2), self.inputs.flatten(1, 2).unsqueeze(-2)
        found = self.transition.record(inputs, before).gates
        return {
            name: value.squeeze(-2).expand(*before.shape[:-1], -1).unflatten(1, self.before.shape[1:3])
            for name, value in found.items()
        }


def transition_runs(sampler: PosteriorSampler, num_samples: int) -> Iterator[TransitionRun]:
    """Yield the runs of the sequences, chunk by chunk; see `Posterior.transition_runs`."""
    for sampled in sampler.rollouts(num_samples):
        rollout = sampled.rollout
        shape = torch.Size((num_samples, rollout.data.num_sequences))
        inputs = with_sample_axis(rollout.whole_inputs(), num_samples).expand(*shape, -1, -1)
        start = rollout.path.initial_state.expand(*shape, rollout.transition.state_size)
        if rollout.latent.draws_states:
            assert rollout.path.states is not None
            states = rollout.path.states.expand(*shape, -1, -1)
        else:
            states = _states(rollout.transition, inputs, start)
        before = torch.cat([start.unsqueeze(-2), states[..., :-1, :]], -2)
        yield TransitionRun(rollout, inputs, before, states, sampled.indices.rows)


def _states(transition: Transition, inputs: Tensor, state: Tensor) -> Tensor:
    found = []
    for a_t in inputs.unbind(-2):
        state = transition.step(state, a_t)
        found.append(state)
    return torch.stack(found, -2)
