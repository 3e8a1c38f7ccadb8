"""Rollouts of a fitted model over a data set, sampled from a seed chunk by chunk."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar

import pyro
import torch
from pyro import poutine
from pyro.poutine.trace_struct import Trace
from torch import Tensor

from latentrnn.data import SequenceData
from latentrnn.inference.guides.guide import Guide
from latentrnn.inference.guides.windows import Window, window_plan
from latentrnn.inference.objectives.terms import sampled_sites
from latentrnn.models import sites
from latentrnn.models.component import floating_type
from latentrnn.models.rollout import Rollout
from latentrnn.models.state_space import LatentRNN
from latentrnn.support.arguments import check_seed, check_size
from latentrnn.support.devices import resolve_device
from latentrnn.support.isolation import RandomNumbers, random_state

T = TypeVar("T")
LARGEST_CHUNK = 2**24  # numbers that one chunk of draws may hold per state or head


class ChunkIndex(NamedTuple):
    """The draws, sequences and base steps that a chunk of all draws holds."""

    samples: slice
    rows: slice
    steps: slice

    @property
    def num_samples(self) -> int:
        """How many draws it holds."""
        return self.samples.stop - self.samples.start


class SampledRollout(NamedTuple):
    """The rollout of a chunk of the data under draws of latents and parameters."""

    rollout: Rollout
    latents: dict[str, Tensor]
    parameters: dict[str, Tensor]
    indices: ChunkIndex

    @property
    def num_samples(self) -> int:
        """How many draws there are of it."""
        return self.indices.num_samples


def computed_in(model: LatentRNN, data: SequenceData) -> torch.dtype:
    """Return the model's own floating type, whatever the data came in: they meet in every product."""
    return floating_type(model, data.dtype)


class PosteriorSampler:
    """Samples latents, parameters and rollouts of a posterior, chunk by chunk, from a seed.

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
        self.cut = None if window is None else window_plan("Posterior", window, model, guide)
        # dropout and its like belong to training: here they are their averages
        self.model = copy.deepcopy(model).to(self.device).eval()
        self.guide = copy.deepcopy(guide).to(self.device).eval()
        self.data = data.to(self.device, computed_in(model, data))

    def reseeded(self, seed: int) -> PosteriorSampler:
        """Return the same sampler with another seed."""
        other = copy.copy(self)
        other.seed = seed
        return other

    def restricted(self, count: int) -> PosteriorSampler:
        """Return a sampler of the first sequences alone."""
        other = copy.copy(self)
        other.data = self.data[:count]
        return other

    def with_guide(self, guide: Guide) -> PosteriorSampler:
        """Return a sampler from another guide, which goes through whole sequences."""
        other = copy.copy(self)
        other.guide, other.window, other.cut = guide, None, None
        return other

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
        sites = self.guide.parameter_sites
        return Trace() if sites is None else _drawn(sites, num_samples)

    def prior_trace(self, num_samples: int) -> Trace:
        """Return draws of the same parameters from their priors, likewise."""
        return _drawn(self.model.draw_parts, num_samples)

    @property
    def windowed(self) -> bool:
        """Whether the sequences are gone through in more than one window."""
        return self.cut is not None and len(self.cut.windows(self.data.num_steps)) > 1

    def refuse_windows(self) -> None:
        """Raise a ValueError where the sequences are to be gone through in windows, for what does not do that."""
        if self.windowed:
            raise ValueError(
                f"Posterior: with {self.window} there are draws, rates, replicates, evidence ('elbo' and 'iwae') and "
                "log-likelihoods; for anything else take the posterior of shorter sequences, without a window"
            )

    def chunks(self, num_samples: int) -> Iterator[SequenceData]:
        """Cut the data so that one chunk's draws stay within bounded memory, as far as whole sequences let it.

        Raises:
            ValueError: the sequences are to be gone through in windows, which this does not do.
        """
        self.refuse_windows()
        return (data for _, data in self.rows(self.chunk_sizes(num_samples)[1]))

    def chunk_sizes(self, num_samples: int) -> tuple[int, int]:
        """Return how many draws and how many sequences there are in a chunk."""
        width = max([self.model.transition.state_size, *(head.width for head in self.model.observations.values())])
        steps = self.data.num_steps if self.cut is None else min(self.data.num_steps, self.cut.steps)
        per_draw = steps * width
        largest = LARGEST_CHUNK if self.max_elements is None else self.max_elements
        rows = largest // (num_samples * per_draw)
        return (num_samples, rows) if rows else (max(1, min(num_samples, largest // per_draw)), 1)

    def rows(self, per_chunk: int) -> Iterator[tuple[slice, SequenceData]]:
        """Yield which sequences are in a chunk, so many at most, and these."""
        if per_chunk >= len(self.data):
            yield slice(0, len(self.data)), self.data
            return
        for start in range(0, len(self.data), per_chunk):
            part = self.data[start : start + per_chunk]
            yield slice(start, start + len(part)), part

    def windows(self, data: SequenceData) -> Iterator[tuple[slice, SequenceData]]:
        """Yield the base steps of each window of some sequences, and the window."""
        start = 0
        for window in [data] if self.cut is None else self.cut.through(data):
            yield slice(start, start + window.num_steps), window
            start += window.num_steps

    def rollouts(
        self,
        num_samples: int,
        *,
        latents: str = "posterior",
        parameters: str | Trace = "posterior",
        fed: bool = True,
        parts: bool = False,
    ) -> Iterator[SampledRollout]:
        """Yield, part by part, the rollout of the data under draws of latents and parameters.

        It draws from torch's generators as they are: go through it within `drawing`, or by `in_parts`.

        Args:
            num_samples: number of draws.
            latents: "posterior" or "prior".
            parameters: "posterior", "prior", or a trace of draws.
            fed: whether heads that feed back are given their recorded past.
            parts: whether the caller puts chunks together by their indices; else each has all draws of whole sequences.
        """
        num_samples = check_size("Posterior", "number of draws", num_samples)
        if not parts:
            self.refuse_windows()
        if self.windowed and not fed and any(head.feedback is not None for head in self.model.observations.values()):
            raise ValueError(
                f"predictive: heads that feed back run free from each sequence's first step, which {self.window} would "
                "forget; use feedback='recorded', or no window"
            )
        per_part, per_chunk = self.chunk_sizes(num_samples)
        per_part = per_part if parts else num_samples
        if isinstance(parameters, Trace):
            fixed = parameters
        else:  # once, so that they are the same in all parts
            fixed = self.parameter_trace(num_samples) if parameters == "posterior" else self.prior_trace(num_samples)
        for rows, data in self.rows(per_chunk):
            for first in range(0, num_samples, per_part):
                samples = slice(first, min(first + per_part, num_samples))
                given = samples_of(fixed, samples)
                for steps, window in self.windows(data):
                    index = ChunkIndex(samples, rows, steps)
                    yield self._sample(window, given, index, latents=latents, fed=fed)

    def _sample(
        self, data: SequenceData, given: Trace, index: ChunkIndex, *, latents: str, fed: bool
    ) -> SampledRollout:
        count = index.num_samples
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
        return SampledRollout(rollout, local, {k: v for k, v in drawn.items() if k not in local}, index)

    def prior_rollout(self, parameters: Trace, data: SequenceData | None = None) -> Rollout:
        """Return the rollout of the data with latents from the prior (for filters, which draw their own).

        Its densities are in double precision.
        """
        if data is None:
            self.refuse_windows()
            data = self.data
        with poutine.block(), poutine.replay(trace=parameters):
            rollout = self.model.unroll(data)
        rollout.values = {name: data.observations[name] for name in rollout.feedback_heads}
        rollout.use_double_precision()
        return rollout


def _drawn(program: Callable[[], Any], num_samples: int) -> Trace:
    """Return draws of a program's random variables, sample axis at dim -2."""
    with torch.no_grad(), pyro.plate("draws", num_samples, dim=-2):
        trace = poutine.trace(program).get_trace()
    for name in [name for name, site in trace.nodes.items() if (name, site) not in sampled_sites(trace)]:
        trace.remove_node(name)
    return trace


def samples_of(trace: Trace, samples: slice) -> Trace:
    """Return some of the draws of a trace of parameters."""
    found = Trace()
    for name, site in trace.nodes.items():
        found.add_node(name, **{**site, "value": site["value"][samples]})
    return found
