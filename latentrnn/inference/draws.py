"""Draws of a fitted model over a data set: chunk by chunk, seeded, padded and put together again."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple

import pyro
import torch
from pyro import poutine
from pyro.poutine.trace_struct import Trace
from torch import Tensor

from latentrnn.data import SequenceData
from latentrnn.inference.ais import anneal
from latentrnn.inference.elbo import log_weights, sampled_sites
from latentrnn.inference.evidence import AIS, SMC
from latentrnn.inference.guides import Guide
from latentrnn.inference.random import random_state
from latentrnn.inference.smc import ParticleFilter
from latentrnn.inference.svi import resolve_device
from latentrnn.models import sites
from latentrnn.models.ancestral import Course
from latentrnn.models.state_space import LatentRNN
from latentrnn.models.transitions.transition import check_size

LARGEST_CHUNK = 2**24  # numbers that one chunk of draws may hold per state or head


class Draw(NamedTuple):
    """The course of one chunk of sequences under draws of latents and parameters."""

    course: Course
    latents: dict[str, Tensor]
    parameters: dict[str, Tensor]


class Draws:
    """Where a posterior's random numbers come from.

    Args:
        model, guide: fitted; copies are used.
        data: the sequences.
        device: "auto" or a torch device.
        seed: of every random number.
    """

    def __init__(
        self, model: LatentRNN, guide: Guide, data: SequenceData, device: str | torch.device, seed: int
    ) -> None:
        self.device, self.seed = resolve_device(device), seed
        # dropout and its like belong to training: here they are their averages
        self.model = copy.deepcopy(model).to(self.device).eval()
        self.guide = copy.deepcopy(guide).to(self.device).eval()
        self.data = data.to(self.device)

    def seeded(self) -> Any:
        """Return a context in which torch's generators start from the seed."""
        return random_state(self.seed, self.device)

    def parameter_trace(self, num_samples: int) -> Trace:
        """Return draws of the parameters with priors as a trace to replay, sample axis at dim -2."""
        check_size("Posterior", "number of draws", num_samples)
        if self.guide.parameter_sites is None:
            return Trace()
        with torch.no_grad(), pyro.plate("draws", num_samples, dim=-2):
            trace = poutine.trace(self.guide.parameter_sites).get_trace()
        for name in [name for name, site in trace.nodes.items() if (name, site) not in sampled_sites(trace)]:
            trace.remove_node(name)
        return trace

    def chunks(self, num_samples: int) -> Iterator[SequenceData]:
        """Cut the data so that one chunk's draws stay within bounded memory."""
        check_size("Posterior", "number of draws", num_samples)
        width = max([self.model.transition.state_size, *(head.outputs for head in self.model.observations.values())])
        per_chunk = max(1, LARGEST_CHUNK // (num_samples * self.data.num_steps * width))
        if per_chunk >= len(self.data):
            yield self.data
            return
        for start in range(0, len(self.data), per_chunk):
            yield self.data[start : start + per_chunk]

    def courses(
        self, num_samples: int, *, latents: str = "posterior", parameters: str = "posterior", fed: bool = True
    ) -> Iterator[Draw]:
        """Yield, chunk by chunk, the course of the data under draws of latents and parameters."""
        with self.seeded(), torch.no_grad():
            fixed = self.parameter_trace(num_samples) if parameters == "posterior" else Trace()
            for data in self.chunks(num_samples):
                with pyro.plate("draws", num_samples, dim=-2):
                    guided = fixed
                    if latents == "posterior":
                        guided = poutine.trace(poutine.replay(self.guide, trace=fixed)).get_trace(data)
                    with poutine.trace() as recorder, poutine.replay(trace=guided):
                        course = self.model.unfold(data)
                drawn = {name: site["value"] for name, site in sampled_sites(recorder.trace)}
                if fed:
                    course.values = {name: data.observations[name] for name in course.feeding}
                local = {name: value for name, value in drawn.items() if name in sites.LATENTS}
                course.complete(torch.Size((num_samples, len(data))), given_data=latents == "posterior")
                yield Draw(course, local, {k: v for k, v in drawn.items() if k not in local})

    def course(self, parameters: Trace, data: SequenceData | None = None) -> Course:
        """Return the course of the data with latents from the prior (for filters, which draw their own)."""
        data = self.data if data is None else data
        with poutine.block(), poutine.replay(trace=parameters):
            course = self.model.unfold(data)
        course.values = {name: data.observations[name] for name in course.feeding}
        return course

    def filters(self, num_particles: int, settings: SMC) -> tuple[Tensor, Tensor]:
        """Return log Z and the smallest effective sample of independent particle filters, (filter, sequence) each.

        Every filter has its own draw of the parameters with priors.
        """
        found = []
        with self.seeded(), torch.no_grad():
            parameters = self.parameter_trace(settings.num_filters)
            for site in parameters.nodes.values():  # (filter, sequences' plate, ...) to (filter, particle, ...)
                site["value"] = site["value"].unsqueeze(1)
            for data in self.chunks(num_particles * settings.num_filters):
                course, proposals = self.course(parameters, data), None
                if settings.proposal == "guide":
                    proposals = self.guide.local.proposals(self.guide.numbers(data), data)
                run = ParticleFilter(
                    course,
                    num_particles,
                    settings.num_filters,
                    proposals=proposals,
                    resample_below=settings.resample_below,
                ).run()
                found.append((run.log_evidence, run.smallest_sample))
        log_evidence, smallest = zip(*found, strict=True)
        return torch.cat(log_evidence, 1).cpu(), torch.cat(smallest, 1).cpu()

    def annealed(self, num_particles: int, settings: AIS) -> Tensor:
        """Return log-weights of annealed draws, (particle, sequence)."""
        with self.seeded():
            chunks = [
                anneal(self.model, self.guide, data, num_particles, settings) for data in self.chunks(num_particles)
            ]
        return torch.cat(chunks, 1).cpu()

    def log_weights(self, num_particles: int, parameters: Trace | None = None) -> Tensor:
        """Return log-weights, (particle, sequence); exact and of one particle where nothing is random."""
        random = bool(self.model.latent_sites()) or (self.guide.parameter_sites is not None and parameters is None)
        count = num_particles if random else 1
        guide = self.guide if parameters is None else poutine.replay(self.guide, trace=parameters)
        with self.seeded() if parameters is None else nullcontext(), torch.no_grad():
            chunks = [log_weights(self.model, guide, data, count) for data in self.chunks(count)]
        return torch.cat(chunks, 1).cpu()


def padding_to_nan(value: Tensor, data: SequenceData, head: str) -> Tensor:
    """Put NaN where a sequence (at this head's clock) has ended; value is (sample, sequence, time, ...)."""
    spec = data.spec.heads[head]
    if not spec.per_step or not data.padded:
        return value
    inside = torch.arange(value.shape[2], device=value.device) < (data.lengths // spec.clock)[:, None]
    return torch.where(inside.reshape(*inside.shape, *[1] * (value.dim() - 3)), value, torch.nan)


def assemble(parts: Sequence[Tensor], steps: int) -> Tensor:
    """Join chunks along sequences, on the CPU, padded to a common length."""
    parts = [part.cpu() for part in parts]
    if parts[0].dim() >= 4 and any(part.shape[2] < steps for part in parts):
        pad = [torch.full((*p.shape[:2], steps - p.shape[2], *p.shape[3:]), torch.nan) for p in parts]
        parts = [torch.cat([p, q.to(p)], 2) for p, q in zip(parts, pad, strict=True)]
    return parts[0] if len(parts) == 1 else torch.cat(list(parts), 1)


def expanded(states: Tensor, num_samples: int) -> Tensor:
    """Return states with a sample axis, (sample, sequence, time, dim), where nothing random gave them one."""
    return states if states.dim() == 4 else states.expand(num_samples, *states.shape)
