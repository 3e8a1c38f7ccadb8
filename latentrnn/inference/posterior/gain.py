"""Draws of a head's stimulus gain, in the one convention in which gains are reported."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from latentrnn.inference.posterior.conditioning import conditional_on
from latentrnn.inference.posterior.draws.predictions import concatenate_sequences, with_sample_axis
from latentrnn.inference.posterior.draws.sampler import PosteriorSampler
from latentrnn.models import sites
from latentrnn.models.observations import Observation


class _Draws(NamedTuple):
    beta: Tensor
    gate: Tensor


class GainSamples(_Draws):
    """Draws of a head's stimulus gain, in the convention that the largest gate over the data is one.

    Unpacks into `beta, gate`.

    Attributes:
        beta: gain of a fully open gate, (sample, channel, feature), in the data's units (per unit of the stimulus).
        gate: (sample, sequence, time, feature).
        conditional_on: what the draws take as known, in words: all that was learned without a prior; None if nothing.
            Intervals leave its uncertainty out.
    """

    conditional_on: str | None = None

    def given(self, conditional_on: str | None) -> GainSamples:
        """Return the same draws, conditional on something."""
        found = GainSamples(self.beta, self.gate)
        found.conditional_on = conditional_on
        return found

    def __repr__(self) -> str:
        given = f", conditional on {self.conditional_on}" if self.conditional_on else ""
        return f"GainSamples(beta of shape {tuple(self.beta.shape)}, gate of shape {tuple(self.gate.shape)}{given})"


def gain_samples(sampler: PosteriorSampler, observation: Observation, num_samples: int) -> GainSamples:
    """Draw the gain of a head that has one; see `Posterior.gain`."""
    assert observation.gain is not None
    head = observation.head.name
    gates, betas = [], torch.zeros(0)
    for sampled in sampler.rollouts(num_samples):
        rollout = sampled.rollout
        states = with_sample_axis(rollout.states(), num_samples)
        states = observation.at_clock(states, rollout.data.observations[head].shape[1])
        drawn = rollout.observations[head].gain  # with its draws, if any
        assert drawn is not None
        gate = drawn.gate(states, rollout.inputs[head].stimulus)
        scored = rollout.data.scored(head).any(-1)
        gates.append(torch.where(scored.unsqueeze(-1), gate, torch.nan))
        site = sites.parameter_site(head, "gain.beta")
        beta = observation.from_units("gain.beta", observation.gain.beta)
        if site in sampled.parameters:
            beta = sampled.parameters[site].squeeze(1)
        betas = beta.detach().expand(num_samples, *beta.shape[-2:]).cpu()
    gate = concatenate_sequences(gates, sampler.data.observations[head].shape[1])
    largest = gate.nan_to_num(0.0).amax((1, 2)).clamp_min(1e-12)
    found = GainSamples(betas * largest[:, None], gate / largest[:, None, None])
    return found.given(conditional_on(sampler.model, sampler.guide))
