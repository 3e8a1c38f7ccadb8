"""Latents, parameters, rates and replicates that a posterior draws, chunk by chunk."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from latentrnn.data import SequenceData
from latentrnn.inference.guides.parameters import JOINT
from latentrnn.inference.posterior.draws.chunks import (
    Chunk,
    ChunkedArrays,
    ChunkIndex,
    padding_to_nan,
    with_sample_axis,
)
from latentrnn.inference.posterior.draws.sampler import PosteriorSampler
from latentrnn.models import sites
from latentrnn.support.arguments import check_selection


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
