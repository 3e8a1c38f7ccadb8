"""Draws of a fitted model over a data set: part by part, seeded, padded and put together again."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, NamedTuple, TypeVar

import pyro
import torch
from pyro import poutine
from pyro.poutine.trace_struct import Trace
from torch import Tensor

from latentrnn.data import SequenceData
from latentrnn.inference.evidence.ais import anneal
from latentrnn.inference.evidence.evidence import AIS, PRIOR_SHARE, SMC
from latentrnn.inference.filters.particle_filter import ParticleFilter, of_steps
from latentrnn.inference.guides.guide import Guide
from latentrnn.inference.guides.windows import Window, reach
from latentrnn.inference.objectives.elbo import log_weights, sampled_sites
from latentrnn.models import sites
from latentrnn.models.rollout import Rollout
from latentrnn.models.state_space import LatentRNN
from latentrnn.support.arguments import check_seed, check_size
from latentrnn.support.devices import resolve_device
from latentrnn.support.random_numbers import RandomNumbers, random_state

T = TypeVar("T")
LARGEST_CHUNK = 2**24  # numbers that one chunk of draws may hold per state or head


class Place(NamedTuple):
    """Which draws, sequences and base steps a part of all draws holds."""

    samples: slice
    rows: slice
    steps: slice


class Draw(NamedTuple):
    """The rollout of a part of the data under draws of latents and parameters."""

    rollout: Rollout
    latents: dict[str, Tensor]
    parameters: dict[str, Tensor]
    place: Place

    @property
    def number(self) -> int:
        """How many draws there are of it."""
        return self.place.samples.stop - self.place.samples.start


def computed_in(model: LatentRNN, data: SequenceData) -> torch.dtype:
    """Return the model's own floating type, whatever the data came in: they meet in every product."""
    return next((parameter.dtype for parameter in model.parameters()), data.dtype)


class Draws:
    """Where a posterior's random numbers come from.

    Args:
        model, guide: fitted; copies are used.
        data: the sequences.
        device: "auto" or a torch device.
        seed: of every random number.
        window: how to go through long sequences; None for as they are.
        max_elements: numbers that one part may hold per state or head; None for `LARGEST_CHUNK`.
    """

    def __init__(
        self,
        model: LatentRNN,
        guide: Guide,
        data: SequenceData,
        device: str | torch.device,
        seed: int,
        window: Window | None = None,
        max_elements: int | None = None,
    ) -> None:
        self.device, self.seed = resolve_device(device), check_seed("Posterior", seed)
        self.window, self.max_elements = window, max_elements
        if max_elements is not None:
            check_size("Posterior", "max_elements", max_elements)
        self.cut = None if window is None else reach("Posterior", window, model, guide)
        # dropout and its like belong to training: here they are their averages
        self.model = copy.deepcopy(model).to(self.device).eval()
        self.guide = copy.deepcopy(guide).to(self.device).eval()
        self.data = data.to(self.device, computed_in(model, data))

    def seeded(self) -> Any:
        """Return a context in which torch's generators start from the seed."""
        return random_state(self.seed, self.device)

    @contextmanager
    def drawing(self) -> Iterator[None]:
        """Start from the seed within the block, as in `seeded`, without gradients."""
        with self.seeded(), torch.no_grad():
            yield

    def in_parts(self, make: Callable[[], Iterator[T]]) -> Iterator[T]:
        """Yield what an iterator draws from the seed on; between parts torch is the caller's."""
        yield from RandomNumbers(self.seed, self.device).in_parts(make)

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

    @property
    def windowed(self) -> bool:
        """Whether the sequences are gone through in more than one window."""
        return self.cut is not None and len(self.cut.windows(self.data.num_steps)) > 1

    def chunks(self, num_samples: int) -> Iterator[SequenceData]:
        """Cut the data so that one chunk's draws stay within bounded memory, as far as whole sequences let it.

        Raises:
            ValueError: the sequences are to be gone through in windows, which this does not do.
        """
        if self.windowed:
            raise ValueError(
                f"Posterior: with {self.window} there are draws, rates, replicates, evidence ('elbo' and 'iwae') and "
                "log-likelihoods; for anything else take the posterior of shorter sequences, without a window"
            )
        return (data for _, data in self._rows(num_samples))

    def _sizes(self, num_samples: int) -> tuple[int, int]:
        """Return how many draws and how many sequences there are in a part."""
        check_size("Posterior", "number of draws", num_samples)
        width = max([self.model.transition.state_size, *(head.outputs for head in self.model.observations.values())])
        steps = self.data.num_steps if self.cut is None else min(self.data.num_steps, self.cut.steps)
        per_draw = steps * width
        largest = LARGEST_CHUNK if self.max_elements is None else self.max_elements
        rows = largest // (num_samples * per_draw)
        return (num_samples, rows) if rows else (max(1, min(num_samples, largest // per_draw)), 1)

    def _rows(self, num_samples: int) -> Iterator[tuple[slice, SequenceData]]:
        per_chunk = self._sizes(num_samples)[1]
        if per_chunk >= len(self.data):
            yield slice(0, len(self.data)), self.data
            return
        for start in range(0, len(self.data), per_chunk):
            part = self.data[start : start + per_chunk]
            yield slice(start, start + len(part)), part

    def _windows(self, data: SequenceData) -> Iterator[tuple[slice, SequenceData]]:
        start = 0
        for window in [data] if self.cut is None else self.cut.through(data):
            yield slice(start, start + window.num_steps), window
            start += window.num_steps

    def rollouts(
        self,
        num_samples: int,
        *,
        latents: str = "posterior",
        parameters: str = "posterior",
        fed: bool = True,
        parts: bool = False,
    ) -> Iterator[Draw]:
        """Yield, part by part, the rollout of the data under draws of latents and parameters.

        It draws from torch's generators as they are: go through it within `drawing`, or by `in_parts`.

        Args:
            num_samples: number of draws.
            latents, parameters: "posterior" or "prior".
            fed: whether heads that feed back are given their recorded past.
            parts: whether the caller puts parts together by their place; else each has all draws, and whole sequences.
        """
        if not parts:
            self.chunks(num_samples)
        if self.windowed and not fed and any(head.feedback is not None for head in self.model.observations.values()):
            raise ValueError(
                f"predictive: heads that feed back run free from each sequence's first step, which {self.window} would "
                "forget; use feedback='recorded', or no window"
            )
        per_part = self._sizes(num_samples)[0] if parts else num_samples
        fixed = self.parameter_trace(num_samples) if parameters == "posterior" else Trace()
        for rows, data in self._rows(num_samples):
            for first in range(0, num_samples, per_part):
                samples = slice(first, min(first + per_part, num_samples))
                given = _rows_of(fixed, samples)
                for steps, window in self._windows(data):
                    place = Place(samples, rows, steps)
                    yield self._draw(window, given, place, latents=latents, fed=fed)

    def _draw(self, data: SequenceData, given: Trace, place: Place, *, latents: str, fed: bool) -> Draw:
        count = place.samples.stop - place.samples.start
        with pyro.plate("draws", count, dim=-2):
            guided = given
            if latents == "posterior":
                guided = poutine.trace(poutine.replay(self.guide, trace=given)).get_trace(data)
            with poutine.trace() as recorder, poutine.replay(trace=guided):
                rollout = self.model.unroll(data)
        drawn = {name: site["value"] for name, site in sampled_sites(recorder.trace)}
        if fed:
            rollout.values = {name: data.observations[name] for name in rollout.feedback_heads}
        local = {name: value for name, value in drawn.items() if name in sites.LATENTS}
        rollout.sample_marginalised(torch.Size((count, len(data))), given_data=latents == "posterior")
        if data.around is not None:
            rollout.states()  # now, for the next window goes on from them
        return Draw(rollout, local, {k: v for k, v in drawn.items() if k not in local}, place)

    def rollout(self, parameters: Trace, data: SequenceData | None = None) -> Rollout:
        """Return the rollout of the data with latents from the prior (for filters, which draw their own).

        Its densities are in double precision.
        """
        if data is None:
            self.chunks(1)
            data = self.data
        with poutine.block(), poutine.replay(trace=parameters):
            rollout = self.model.unroll(data)
        rollout.values = {name: data.observations[name] for name in rollout.feedback_heads}
        rollout.use_double_precision()
        return rollout

    def filters(self, num_particles: int, settings: SMC) -> tuple[Tensor, Tensor, Tensor]:
        """Return log Z and the smallest effective sample of independent particle filters, (filter, sequence) each.

        Every filter has its own draw of the parameters with priors. The last is the largest k-hat of all steps, of the
        weights of all filters together, (sequence,).
        """
        check_size("evidence", "num_particles", num_particles)
        found = []
        with self.drawing():
            parameters = self.parameter_trace(settings.num_filters)
            for site in parameters.nodes.values():  # (filter, sequences' plate, ...) to (filter, particle, ...)
                site["value"] = site["value"].unsqueeze(1)
            count = num_particles * settings.num_filters
            if all(map(of_steps, self.model.observations.values())):  # then no more than one step is held at once
                count = max(1, count // self.data.num_steps)
            for data in self.chunks(count):
                rollout, proposals = self.rollout(parameters, data), None
                if settings.proposal != "prior":
                    proposals = self.guide.local.proposals(self.guide.variational_parameters(data), data)
                run = ParticleFilter(
                    rollout,
                    num_particles,
                    settings.num_filters,
                    proposals=proposals,
                    prior_share=PRIOR_SHARE if settings.proposal == "mixture" else 0.0,
                    resample_below=settings.resample_below,
                    diagnose=True,
                ).run()
                found.append((run.log_evidence.cpu(), run.smallest_sample.cpu(), run.largest_shape.cpu()))
        log_evidence, smallest, shapes = zip(*found, strict=True)
        return torch.cat(log_evidence, 1), torch.cat(smallest, 1), torch.cat(shapes)

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
        per_part, columns = self._sizes(count)[0], []
        with self.seeded() if parameters is None else nullcontext(), torch.no_grad():
            for _, data in self._rows(count):
                particles = [min(per_part, count - first) for first in range(0, count, per_part)]
                columns.append(torch.cat([self._path_weights(data, number, parameters) for number in particles]))
        return torch.cat(columns, 1).cpu()

    def _path_weights(self, data: SequenceData, count: int, parameters: Trace | None) -> Tensor:
        """Return the log-weights of whole paths, those of their windows added up."""
        if self.windowed and parameters is None:
            parameters = self.parameter_trace(count)  # the same in all windows
        guide = self.guide if parameters is None else poutine.replay(self.guide, trace=parameters)
        weights = [log_weights(self.model, guide, window, count) for _, window in self._windows(data)]
        return weights[0] if len(weights) == 1 else torch.stack(weights).sum(0)


def padding_to_nan(value: Tensor, data: SequenceData, head: str) -> Tensor:
    """Put NaN where a sequence (at this head's clock) has ended; value is (sample, sequence, time, ...)."""
    spec = data.spec.heads[head]
    if not spec.per_step or not data.padded:
        return value
    inside = torch.arange(value.shape[2], device=value.device) < (data.lengths // spec.clock)[:, None]
    return torch.where(inside.reshape(*inside.shape, *[1] * (value.dim() - 3)), value, torch.nan)


def _rows_of(trace: Trace, samples: slice) -> Trace:
    """Return some of the draws of a trace of parameters."""
    found = Trace()
    for name, site in trace.nodes.items():
        found.add_node(name, **{**site, "value": site["value"][samples]})
    return found


def assemble(parts: Sequence[Tensor], steps: int) -> Tensor:
    """Join chunks along sequences, on the CPU, padded to a common length."""
    parts = [part.cpu() for part in parts]
    if parts[0].dim() >= 4 and any(part.shape[2] < steps for part in parts):
        pad = [torch.full((*p.shape[:2], steps - p.shape[2], *p.shape[3:]), torch.nan) for p in parts]
        parts = [torch.cat([p, q.to(p)], 2) for p, q in zip(parts, pad, strict=True)]
    return parts[0] if len(parts) == 1 else torch.cat(list(parts), 1)


class Assembly:
    """Arrays put together from their parts, on the CPU; NaN where no part came.

    Args:
        samples: draws in all.
        data: all sequences.
    """

    def __init__(self, samples: int, data: SequenceData) -> None:
        self.samples, self.data = samples, data
        self.found: dict[str, Tensor] = {}

    def put(self, name: str, value: Tensor, place: Place, *, clock: int | None = 1, add: bool = False) -> None:
        """Put a part in its place.

        Args:
            name: of the array.
            value: (sample, sequence, time, ...), or (sample, sequence, ...).
            place: of the part.
            clock: base steps per step of the time axis; None where there is none.
            add: whether to add it to what is there.
        """
        frames = () if clock is None else (self.data.num_steps // clock,)
        after = value.shape[2 if clock is None else 3 :]
        shape = (self.samples, len(self.data), *frames, *after)
        value = value.cpu()
        if name not in self.found:
            if value.shape == shape:
                self.found[name] = value
                return
            self.found[name] = value.new_full(shape, torch.nan)
        target = self.found[name][place.samples, place.rows]
        if clock is not None:
            start = place.steps.start // clock
            target = target[:, :, start : start + value.shape[2]]
        target.copy_(target + value if add else value)


def expanded(states: Tensor, num_samples: int) -> Tensor:
    """Return states with a sample axis, (sample, sequence, time, dim), where nothing random gave them one."""
    return states if states.dim() == 4 else states.expand(num_samples, *states.shape)
