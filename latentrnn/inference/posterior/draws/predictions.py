"""Latents, parameters, rates and replicates that a posterior draws, chunk by chunk, and whole arrays of the chunks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from pyro.poutine.trace_struct import Trace
from torch import Tensor

from latentrnn.data import SequenceData
from latentrnn.inference.guides.parameters import JOINT
from latentrnn.inference.posterior.draws.sampler import ChunkIndex, PosteriorSampler, SampledRollout
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
        known = {name: with_sample_axis(value, count) for name, value in rollout.latent.report(rollout).items()}
        yield from _chunks_of_latents(sampled, known)


def _chunks_of_latents(sampled: SampledRollout, known: Mapping[str, Tensor]) -> Iterator[Chunk]:
    """Yield what readouts see, every latent site, and what else is known of the latents; NaN in padding."""
    rollout = sampled.rollout
    found = {sites.STATES: with_sample_axis(rollout.states(), sampled.num_samples)} | sampled.latents
    for name, value in (found | dict(known)).items():
        if value.dim() == 4:
            value = torch.where(rollout.data.valid.unsqueeze(-1), value, torch.nan)
        yield Chunk(name, value, sampled.indices, 1 if value.dim() == 4 else None)


def parameters(sampler: PosteriorSampler, num_samples: int) -> dict[str, Tensor]:
    """Return draws of the parameters that have priors, (sample, *shape) by site."""
    num_samples = check_size("Posterior", "number of draws", num_samples)
    with sampler.drawing():
        return values_of(sampler.parameter_trace(num_samples))


def values_of(trace: Trace) -> dict[str, Tensor]:
    """Return the draws that a trace of parameters holds, (sample, *shape) by site, on the CPU."""
    values = {name: site["value"] for name, site in trace.nodes.items() if name != JOINT}
    return {name: value.detach().squeeze(1).cpu() for name, value in values.items()}


def rate_chunks(sampler: PosteriorSampler, head: str, num_samples: int) -> Iterator[Chunk]:
    """Yield E[y | latents, parameters] of each draw of one head; NaN in padding."""
    observation = sampler.model.observations[head]
    for sampled in sampler.rollouts(num_samples, parts=True):
        data, count = sampled.rollout.data, sampled.num_samples
        mean = observation.mean(sampled.rollout.distribution(head).expand((count, data.num_sequences)))
        yield from _chunks_of_head(head, padding_to_nan(mean, data, head), data, sampled.indices)


def rates(sampler: PosteriorSampler, head: str, num_samples: int, *, keep_samples: bool) -> Tensor:
    """Return E[y | latents, parameters] of each draw, (sample, sequence, time, channel), or of their mean alone."""
    with sampler.drawing():
        chunks = rate_chunks(sampler, head, num_samples)
        put_together = collected if keep_samples else averaged
        return put_together(chunks, num_samples, sampler.data)[head]


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
        yield from _chunks_of_replicates(sampled, names, fed=fed)


def _chunks_of_replicates(sampled: SampledRollout, names: Sequence[str], *, fed: bool) -> Iterator[Chunk]:
    """Draw heads, and yield them; those that feed back run free, unless they are given their recorded past."""
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


class JointDraws(NamedTuple):
    """Draws of all that a model describes, on the CPU; equal positions on the sample axis belong together.

    Attributes:
        parameters: those with priors, (sample, *shape) by site.
        latents: what readouts see, and every latent site, (sample, sequence, [time,] dim); NaN in padding.
        observations: (sample, sequence, [time,] channel) by head; NaN in padding.
    """

    parameters: dict[str, Tensor]
    latents: dict[str, Tensor]
    observations: dict[str, Tensor]


def draws_from_prior(
    sampler: PosteriorSampler, num_samples: int, parameters: Trace | None = None, *, latents: bool = True
) -> JointDraws:
    """Draw parameters, latents and observations from the model alone; heads that feed back run free.

    Args:
        sampler: of the model and the data whose layout is drawn; call within `sampler.drawing`.
        num_samples: number of draws.
        parameters: draws of the parameters, to be taken as they are.
        latents: whether to keep the latents.
    """
    given = sampler.prior_trace(num_samples) if parameters is None else parameters
    heads, states = (ChunkedArrays(num_samples, sampler.data) for _ in range(2))
    for sampled in sampler.rollouts(num_samples, latents="prior", parameters=given, fed=False, parts=True):
        for chunk in _chunks_of_replicates(sampled, list(sampler.model.observations), fed=False):
            heads.put(chunk)
        for chunk in _chunks_of_latents(sampled, {}) if latents else ():
            states.put(chunk)
    return JointDraws(values_of(given), states.arrays, heads.arrays)


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


def averaged(chunks: Iterable[Chunk], num_samples: int, data: SequenceData) -> dict[str, Tensor]:
    """Return means over draws by name, (sequence, ...); memory is that of one draw and of one chunk."""
    whole = ChunkedArrays(1, data)
    for chunk in chunks:
        samples = chunk.indices.samples
        mean = chunk.values.mean(0, keepdim=True) * (len(chunk.values) / num_samples)
        part = chunk._replace(values=mean, indices=chunk.indices._replace(samples=slice(0, 1)))
        whole.put(part, add=samples.start > 0)
    return {name: value[0] for name, value in whole.arrays.items()}


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
