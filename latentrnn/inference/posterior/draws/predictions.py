"""Latents, parameters, rates and replicates that a posterior draws, chunk by chunk, and whole arrays of the chunks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from latentrnn.data import SequenceData
from latentrnn.inference.guides.parameters import JOINT
from latentrnn.inference.posterior.draws.sampler import ChunkIndex, PosteriorSampler
from latentrnn.models import sites
from latentrnn.support.arguments import check_selection, check_size


class Chunk(NamedTuple):
    """A chunk of a named array.

    Attributes:
        name: of the array.
        values: (sample, sequence, time, ...), or (sample, sequence, ...) without a clock.
        indices: what it holds of the array.
        clock: base steps per step of the time axis; None where there is none.
    """

    name: str
    values: Tensor
    indices: ChunkIndex
    clock: int | None


class ChunkedArrays:
    """Arrays put together from their chunks, on the CPU; NaN where no chunk came.

    Args:
        num_samples: draws in all.
        data: all sequences.

    Attributes:
        arrays: by name.
    """

    def __init__(self, num_samples: int, data: SequenceData) -> None:
        self.num_samples, self.data = num_samples, data
        self.arrays: dict[str, Tensor] = {}

    def put(self, chunk: Chunk, *, add: bool = False) -> None:
        """Write a chunk where it belongs, or add it to what is there."""
        name, values, index, clock = chunk
        frames = () if clock is None else (self.data.num_steps // clock,)
        after = values.shape[2 if clock is None else 3 :]
        shape = (self.num_samples, len(self.data), *frames, *after)
        values = values.cpu()
        if name not in self.arrays:
            if values.shape == shape:
                self.arrays[name] = values
                return
            self.arrays[name] = values.new_full(shape, torch.nan)
        target = self.arrays[name][index.samples, index.rows]
        if clock is not None:
            start = index.steps.start // clock
            target = target[:, :, start : start + values.shape[2]]
        target.copy_(target + values if add else values)


def latent_chunks(sampler: PosteriorSampler, num_samples: int) -> Iterator[Chunk]:
    """Yield draws of what readouts see, of every latent site, and of what the latent reports; NaN in padding."""
    for sampled in sampler.rollouts(num_samples, parts=True):
        rollout, count = sampled.rollout, sampled.num_samples
        found = {sites.STATES: with_sample_axis(rollout.states(), count)}
        found |= sampled.latents
        found |= {name: with_sample_axis(value, count) for name, value in rollout.latent.report(rollout).items()}
        for name, value in found.items():
            if value.dim() == 4:
                value = torch.where(rollout.data.valid.unsqueeze(-1), value, torch.nan)
            yield Chunk(name, value, sampled.indices, 1 if value.dim() == 4 else None)


def parameters(sampler: PosteriorSampler, num_samples: int) -> dict[str, Tensor]:
    """Return draws of the parameters that have priors, (sample, *shape) by site."""
    num_samples = check_size("Posterior", "number of draws", num_samples)
    with sampler.drawing():
        trace = sampler.parameter_trace(num_samples)
    values = {name: site["value"] for name, site in trace.nodes.items() if name != JOINT}
    return {name: value.detach().squeeze(1).cpu() for name, value in values.items()}


def rates(sampler: PosteriorSampler, head: str, num_samples: int, *, keep_samples: bool) -> Tensor:
    """Return E[y | latents, parameters] of each draw, (sample, sequence, time, channel), or of their mean alone."""
    observation = sampler.model.observations[head]
    whole = ChunkedArrays(num_samples if keep_samples else 1, sampler.data)
    with sampler.drawing():
        for sampled in sampler.rollouts(num_samples, parts=True):
            data, index, count = sampled.rollout.data, sampled.indices, sampled.num_samples
            mean = observation.mean(sampled.rollout.distribution(head).expand((count, data.num_sequences)))
            mean = padding_to_nan(mean, data, head)
            add = False
            if not keep_samples:
                add, mean = index.samples.start > 0, mean.mean(0, keepdim=True) * (count / num_samples)
                index = index._replace(samples=slice(0, 1))
            for chunk in _chunks_of_head(head, mean, data, index):
                whole.put(chunk, add=add)
    return whole.arrays[head] if keep_samples else whole.arrays[head][0]


def replicate_chunks(
    sampler: PosteriorSampler,
    num_samples: int,
    heads: Sequence[str] | None = None,
    *,
    latents: str,
    parameters: str,
    fed: bool = False,
) -> Iterator[Chunk]:
    """Yield replicated data; latents and parameters are from the "posterior" or the "prior".

    Args:
        sampler: of the posterior.
        num_samples: number of draws.
        heads: which to yield; all by default.
        latents, parameters: where they come from.
        fed: whether heads that feed back are given their recorded past, and do not run free.
    """
    known = list(sampler.model.observations)
    names = known if heads is None else check_selection("predictive", "heads", heads, known, "head")
    for sampled in sampler.rollouts(num_samples, latents=latents, parameters=parameters, fed=fed, parts=True):
        rollout = sampled.rollout
        shape = torch.Size((sampled.num_samples, rollout.data.num_sequences))
        values: dict[str, Tensor] = {}
        if not fed:
            values = {n: rollout.feedback_distribution(n).expand(shape).sample() for n in rollout.feedback_heads}
        rollout.values = rollout.values | values
        values |= {n: rollout.distribution(n).expand(shape).sample() for n in names if n not in values}
        for name in names:
            replicate = padding_to_nan(values[name], rollout.data, name)
            yield from _chunks_of_head(name, replicate, rollout.data, sampled.indices)


def _chunks_of_head(head: str, value: Tensor, data: SequenceData, index: ChunkIndex) -> Iterator[Chunk]:
    """Yield a head's values with their index; one value per sequence is known in the window in which it ends."""
    spec = data.spec.heads[head]
    if spec.per_step:
        yield Chunk(head, value, index, spec.clock)
    elif data.around is None:
        yield Chunk(head, value, index, None)
    else:
        for row in data.around.ends.nonzero().flatten().tolist():
            first = index.rows.start + row
            yield Chunk(head, value[:, row : row + 1], index._replace(rows=slice(first, first + 1)), None)


def collected(chunks: Iterable[Chunk], num_samples: int, data: SequenceData) -> dict[str, Tensor]:
    """Return whole arrays by name."""
    whole = ChunkedArrays(num_samples, data)
    for chunk in chunks:
        whole.put(chunk)
    return whole.arrays


def concatenate_sequences(parts: Sequence[Tensor], steps: int) -> Tensor:
    """Concatenate chunks of whole sequences, on the CPU, padded to a common length."""
    parts = [part.cpu() for part in parts]
    if parts[0].dim() >= 4 and any(part.shape[2] < steps for part in parts):
        pad = [torch.full((*p.shape[:2], steps - p.shape[2], *p.shape[3:]), torch.nan) for p in parts]
        parts = [torch.cat([p, q.to(p)], 2) for p, q in zip(parts, pad, strict=True)]
    return parts[0] if len(parts) == 1 else torch.cat(list(parts), 1)


def padding_to_nan(value: Tensor, data: SequenceData, head: str) -> Tensor:
    """Put NaN where a sequence (at this head's clock) has ended; value is (sample, sequence, time, ...)."""
    spec = data.spec.heads[head]
    if not spec.per_step or not data.padded:
        return value
    inside = torch.arange(value.shape[2], device=value.device) < (data.lengths // spec.clock)[:, None]
    return torch.where(inside.reshape(*inside.shape, *[1] * (value.dim() - 3)), value, torch.nan)


def with_sample_axis(states: Tensor, num_samples: int) -> Tensor:
    """Return states with a sample axis, (sample, sequence, time, dim), where nothing random gave them one."""
    return states if states.dim() == 4 else states.expand(num_samples, *states.shape)
