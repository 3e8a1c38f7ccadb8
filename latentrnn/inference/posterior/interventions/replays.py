"""Draws of a posterior, a row each, that can be run again under other covariates, gradients included."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import pyro
import torch
from pyro import poutine
from torch import Tensor

from latentrnn.data import SequenceData
from latentrnn.inference.posterior.draws.sampler import ChunkIndex, PosteriorSampler, SampledRollout
from latentrnn.inference.posterior.interventions.counterfactual import Intervention, rollout_of, with_draw
from latentrnn.models.rollout import Rollout
from latentrnn.models.state_space import LatentRNN

LARGEST_REPLAY = 2**20  # numbers of a state or head in one run: with gradients, some twenty times as many are kept


@dataclass(frozen=True)
class Replay:
    """Some pairs of draw and sequence, as rows with one draw of the latents each.

    Attributes:
        model: with its parameters: those of one draw, where they have draws.
        sampled: rollout and latents of the rows, (1, row, ...).
        samples, sequences: of which draw and sequence each row is, (row,), on the CPU.
        draws: how many there are in all: one, where all are the same.
        width: numbers of a row that a run holds at once.
        largest: numbers that one run should hold.
    """

    model: LatentRNN
    sampled: SampledRollout
    samples: Tensor
    sequences: Tensor
    draws: int
    width: int
    largest: int

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def data(self) -> SequenceData:
        """The rows' sequences."""
        return self.sampled.rollout.data

    @property
    def most_rows(self) -> int:
        """How many rows one run should have."""
        return max(1, self.largest // self.width)

    def rollout(self, data: SequenceData) -> Rollout:
        """Return the rows' rollout, (1, row, ...), under the covariates of `data`, what was random staying as it is.

        As in `Posterior.counterfactual`, and with gradients, where these are wanted.
        """
        return rollout_of(self.model, self.sampled, Intervention(data, {}, 0, False), 1)

    def take(self, rows: Tensor) -> Replay:
        """Return some of the rows, each as often as it is named, on the CPU."""
        latents = {name: value[:, rows.to(value.device)] for name, value in self.sampled.latents.items()}
        states = self.sampled.rollout.path.states
        states = None if states is None else states[:, rows.to(states.device)]
        sampled = _sampled(self.model, _taken(self.data, rows), latents, states)
        return replace(self, sampled=sampled, samples=self.samples[rows], sequences=self.sequences[rows])


def replays(sampler: PosteriorSampler, num_samples: int) -> Iterator[Replay]:
    """Yield all pairs of draw and sequence; see `Posterior.replays`."""
    model = sampler.model
    num_samples = 1 if all_alike(model) else num_samples
    largest = LARGEST_REPLAY if sampler.max_elements is None else sampler.max_elements
    for sampled in sampler.rollouts(num_samples):
        data, first = sampled.rollout.data, sampled.indices.rows.start
        outputs = max(head.outputs for head in model.observations.values())
        width = data.num_steps * max(model.transition.state_size, sampled.rollout.transition_inputs.shape[-1], outputs)
        groups = [[number] for number in range(num_samples)] if sampled.parameters else [list(range(num_samples))]
        for numbers in groups:
            own = with_draw(model, sampled.parameters, numbers[0]) if sampled.parameters else model
            for rows in torch.arange(len(numbers) * len(data)).split(max(1, largest // width)):
                samples = torch.tensor(numbers)[rows // len(data)]
                sequences = rows % len(data)
                found = _rows(own, sampled, samples, sequences)
                yield Replay(own, found, samples, first + sequences, num_samples, width, largest)


def all_alike(model: LatentRNN) -> bool:
    """Return whether all draws of a posterior are the same: nothing in the model is random but what it observes."""
    return not (model.latent_sites() or model.latent.marginalises or model.given.sampled)


def _rows(model: LatentRNN, sampled: SampledRollout, samples: Tensor, sequences: Tensor) -> SampledRollout:
    """Return some pairs of draw and sequence of a chunk as rows."""
    shape = torch.Size((sampled.num_samples, sampled.rollout.data.num_sequences))

    def taken(value: Tensor) -> Tensor:
        value = value.expand(*shape, *value.shape[2:])
        return value[samples.to(value.device), sequences.to(value.device)].unsqueeze(0)

    latents = {name: taken(value) for name, value in sampled.latents.items()}
    states = sampled.rollout.path.states
    states = None if states is None else taken(states)
    return _sampled(model, _taken(sampled.rollout.data, sequences), latents, states)


def _sampled(model: LatentRNN, data: SequenceData, latents: dict[str, Tensor], states: Tensor | None) -> SampledRollout:
    """Return the rollout of rows under latents that are known; of states that are summed out, drawn ones."""
    with torch.no_grad(), pyro.plate("draws", 1, dim=-2), poutine.block(), poutine.condition(data=latents):
        rollout = model.unroll(data)
    if not model.latent_sites() and states is not None:
        rollout.path = rollout.path._replace(states=states)
    index = ChunkIndex(slice(0, 1), slice(0, len(data)), slice(0, data.num_steps))
    return SampledRollout(rollout, latents, {}, index)


def _taken(data: SequenceData, rows: Tensor) -> SequenceData:
    """Return sequences, some perhaps several times, with as many steps as all have."""
    found = data.batch(rows.cpu(), padded_as=torch.arange(len(data)), total=len(rows))
    return replace(found, indices=None)
