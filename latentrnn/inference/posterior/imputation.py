"""Draws of what was not observed, given what was."""

from __future__ import annotations

import torch
from torch import Tensor

from latentrnn.inference.posterior.draws.predictions import concatenate_sequences, padding_to_nan
from latentrnn.inference.posterior.draws.sampler import PosteriorSampler


def impute(sampler: PosteriorSampler, name: str, num_samples: int) -> Tensor:
    """Complete a head; see `Posterior.impute`."""
    head, data = sampler.model.observations[name], sampler.data
    _check_totals(sampler, name)
    parts = []
    for sampled in sampler.rollouts(num_samples):
        rollout = sampled.rollout
        rollout.inputs = {other: inputs._replace(mask=None) for other, inputs in rollout.inputs.items()}
        distribution = rollout.distribution(name).expand(torch.Size((num_samples, rollout.data.num_sequences)))
        value = head.sample_missing(distribution, rollout.data.observations[name], rollout.data.masks[name])
        parts.append(padding_to_nan(value, rollout.data, name))
    return concatenate_sequences(parts, data.observations[name].shape[1] if head.head.per_step else 0)


def _check_totals(sampler: PosteriorSampler, name: str) -> None:
    data, head = sampler.data, sampler.model.observations[name]
    if head.inputs(data).totals is None:
        return
    clock = head.head.clock
    inside = torch.arange(data.masks[name].shape[1], device=data.device) < (data.lengths // clock)[:, None]
    holes = inside & ~data.masks[name].all(-1)
    known = ~data.totals[name].isnan() if name in data.totals else torch.zeros_like(holes)
    unknown = (holes & ~known).nonzero()
    if len(unknown):
        sequence, step = unknown[0].tolist()
        raise ValueError(
            f"impute: the channels of {name!r} share a total, which is not known at sequence {sequence}, step {step}, "
            "where some are missing; give it with SequenceData.from_arrays(totals=...)"
        )
