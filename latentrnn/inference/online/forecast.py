"""Sample paths of the steps to come, from where an online filter is."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from latentrnn.data.ingest.names import check_mapping
from latentrnn.data.ingest.plain_numbers import to_tensor
from latentrnn.inference.filters.particles import ParticleDynamics
from latentrnn.inference.online.followed import Followed
from latentrnn.inference.online.memory import Memory, Now
from latentrnn.inference.online.stream import Stream
from latentrnn.inference.posterior.forecast import Forecast, HeadAxes, used_covariates
from latentrnn.models.latents import Carry
from latentrnn.models.observations import HeadInputs
from latentrnn.models.rollout.double_precision import to_double
from latentrnn.support.arguments import check_size
from latentrnn.support.clock import step_length
from latentrnn.support.isolation import random_state


class Standing(NamedTuple):
    """Where a filter is.

    Attributes:
        followed: model and guide.
        memory: of earlier steps.
        stream: the last few steps.
        streams: names; None for one sequence without a name.
        seed: of the filter.
    """

    followed: Followed
    memory: Memory
    stream: Stream
    streams: tuple[str, ...] | None
    seed: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """(draw, particle, stream)."""
        return self.followed.shape


@torch.inference_mode()
def forecast(
    online: Standing,
    horizon: int,
    covariates: Mapping[str, Any] | None,
    times: Any,
    totals: Mapping[str, Any] | None,
    num_samples: int,
) -> Forecast:
    """Forecast every stream from where the filter is; see `OnlineFilter.forecast`."""
    horizon, num_samples = (
        check_size("forecast", name, value) for name, value in (("horizon", horizon), ("num_samples", num_samples))
    )
    if online.stream.steps == 0:
        raise ValueError("forecast: nothing was taken in yet; before the first step there is `model.prior_predictive`")
    known = _Ahead(online, horizon, covariates, times, totals)
    seed = np.random.SeedSequence((online.seed, online.stream.steps, 1)).generate_state(1)[0]
    with random_state(int(seed)):
        return _simulated(online, known, horizon, num_samples)


def _simulated(online: Standing, known: _Ahead, horizon: int, num_samples: int) -> Forecast:
    memory, stream = online.memory, online.stream
    draws, _, streams = online.shape
    log_draws = memory.log_draw_weights
    draw_weights = torch.ones(draws, streams) if log_draws is None else log_draws.squeeze(1).exp()
    order = torch.randperm(num_samples)  # paths are exchangeable, whatever resampling's order
    chosen = _resampled(draw_weights.double().unsqueeze(0), num_samples)[0][order]  # draw of every path, (path, stream)
    counts = torch.stack([(chosen == draw).sum(0) for draw in range(draws)])
    paths = int(counts.max())
    followed = copy.copy(online.followed)
    followed.shape = (draws, paths, streams)
    carry, value, pasts = _starts(online, paths)
    histories = {name: past.expand(draws, paths, *past.shape) for name, past in memory.histories.items()}
    # the k-th path of a stream under a draw is the k-th of those simulated under it
    place = (
        torch.stack([torch.cumsum(chosen == draw, 0) for draw in range(draws)]).gather(0, chosen.unsqueeze(0))[0] - 1
    )
    taken = chosen, place, torch.arange(streams).expand_as(chosen)

    frames: dict[str, list[_Frame]] = {name: [] for name in followed.heads}
    samples: dict[str, list[Tensor]] = {name: [] for name in followed.heads}
    latent, transition = followed.model.latent, followed.model.transition
    for k in range(horizon):
        stream = copy.deepcopy(stream)  # heads keep views of its buffers
        number, data = stream.steps, known.put(stream, k)
        now = followed.now(data, histories)
        dynamics = ParticleDynamics(latent, transition, followed.shape, now.inputs, torch.float64)
        moved = dynamics.step(0, carry, value, now.inputs, now.gap)
        carry, value = moved.carry, moved.value
        hidden = latent.output(transition, carry)
        for name in followed.heads_due(number):
            inputs = followed.inputs(name, now, pasts[name])._replace(mask=None)
            head = followed.double_heads[name]
            distribution = followed.given(name, inputs, now, hidden)
            shape = (*followed.shape, 1, head.head.channels)
            nothing = torch.zeros(shape, dtype=torch.float64)
            distribution = distribution.expand(torch.Size(followed.shape))
            drawn = head.sample_missing(distribution, nothing, nothing.bool())
            frames[name].append(_Frame(now, inputs, hidden))
            samples[name].append(drawn[(*taken, slice(None))].squeeze(-2))
            pasts[name] = followed.heads[name].readout.remember(pasts[name], hidden)
            if name in histories:
                new = followed.heads[name].encode_history(drawn.to(hidden), None)
                histories[name] = torch.cat([histories[name][..., 1:, :], new], -2)
    for name, parts in samples.items():
        if not parts:
            clock = followed.clocks[name]
            raise ValueError(f"forecast: {name!r} has a frame every {clock} steps, none within {horizon} from here")
    dtype = online.memory.log_weights.dtype if hidden.dtype == torch.float64 else hidden.dtype
    return Forecast(
        {name: torch.stack(parts, 2).to(dtype) for name, parts in samples.items()},
        online.streams or ("stream",),
        followed.model.spec.dt,
        _PathDensity(followed, frames, taken),
        {name: known.axes(followed, name) for name in samples},
    )


def _starts(online: Standing, paths: int) -> tuple[Carry, Tensor | None, dict[str, Tensor | None]]:
    """Return where paths start, (draw, path, stream, ...): carries, last values, and what readouts remember."""
    memory, (draws, count, streams) = online.memory, online.shape
    if memory.moments is not None:
        loc, root = memory.moments
        noise = torch.randn(draws, paths, streams, root.shape[-1], 1, dtype=root.dtype)
        state = (loc + (root @ noise).squeeze(-1)).to(online.stream.dtype)
        return Carry(state), None, dict(memory.readout_memory)
    assert memory.carry is not None
    ancestors = _resampled(memory.log_weights.softmax(1), paths)
    if count == 1:
        ancestors = torch.zeros(draws, paths, streams, dtype=torch.int64)

    def of(kept: Tensor | None) -> Tensor | None:
        if kept is None:
            return None
        kept = kept.expand(draws, count, streams, *kept.shape[3:])
        places = ancestors.reshape(*ancestors.shape, *[1] * (kept.dim() - 3))
        return kept.gather(1, places.expand(*ancestors.shape, *kept.shape[3:]))

    start = of(memory.carry.state)
    assert start is not None
    pasts = {name: of(past) for name, past in memory.readout_memory.items()}
    return Carry(start, of(memory.carry.innovation)), of(memory.value), pasts


def _resampled(weights: Tensor, count: int) -> Tensor:
    """Return ancestors, (draw, count, stream), by systematic resampling of weights (draw, particle, stream)."""
    held = weights.cumsum(1).transpose(1, 2).contiguous()
    held = held / held[..., -1:]
    start = torch.rand(*held.shape[:2], 1, dtype=held.dtype)
    positions = ((torch.arange(count) + start) / count).contiguous()
    return torch.searchsorted(held, positions).clamp(max=weights.shape[1] - 1).transpose(1, 2)


class _Ahead:
    """What is known of the steps to come: covariates, times and totals, checked."""

    def __init__(
        self,
        online: Standing,
        horizon: int,
        covariates: Mapping[str, Any] | None,
        times: Any,
        totals: Mapping[str, Any] | None,
    ) -> None:
        stream, spec = online.stream, online.followed.model.spec
        self.many, self.first, self.count, self.horizon = (
            online.streams is not None,
            stream.steps,
            stream.count,
            horizon,
        )
        given = check_mapping("covariates", covariates, spec.covariates, "a covariate")
        probe = copy.deepcopy(stream).put(stream.nothing(time=stream.times[:, -1] + 1 if spec.irregular else None))
        missing = sorted(used_covariates(online.followed.model, probe, online.followed.heads) - set(given))
        if missing:
            raise ValueError(
                f"forecast: the model is driven by {missing}, of which the future must be given: expected covariates= "
                f"of {'(stream, step, feature)' if self.many else '(step, feature)'}, {horizon} steps"
            )
        self.covariates = {
            name: self._array(f"covariates[{name!r}]", value, (horizon, spec.covariates[name].features)).to(
                stream.dtype
            )
            for name, value in given.items()
        }
        self.times = self._times(stream, times, horizon) if spec.irregular else None
        if times is not None and not spec.irregular:
            raise ValueError("times: the data have a regular clock; expected none")
        self.totals = self._totals(
            online, check_mapping("totals", totals, stream.counted, "a head with totals"), horizon
        )
        self.dt = step_length(spec.dt)

    def put(self, stream: Stream, k: int) -> Any:
        """Take step k of the future into a stream, and return it with those before it."""
        known = {name: values[:, k] for name, values in self.covariates.items()}
        step = stream.nothing(known, None if self.times is None else self.times[:, k])
        for name, values in self.totals.items():
            clock = stream.heads[name].clock
            if (stream.steps + 1) % clock == 0:
                step.totals[name] = values[:, (stream.steps + 1) // clock - 1 - self.first // clock]
        return stream.put(step)

    def axes(self, followed: Followed, name: str) -> HeadAxes:
        """Return when the frames of a head begin, in seconds or steps since the first step."""
        clock, spec = followed.clocks[name], followed.model.spec
        frames = torch.arange(self.first // clock, (self.first + self.horizon) // clock)
        if self.times is None:
            at = (frames * clock * self.dt).double().expand(self.count, -1)
        else:
            at = self.times[:, (frames * clock - self.first).clamp_min(0)]
        unit = "step" if self.times is None and spec.dt is None else "s"
        return HeadAxes(at, tuple(spec.heads[name].channel_names), unit, levels=spec.heads[name].levels)

    def _array(self, where: str, value: Any, shape: tuple[int, ...]) -> Tensor:
        found = to_tensor(where, value).double()
        expected = (self.count, *shape) if self.many else shape
        if found.shape != expected:
            axes = ("stream, " if self.many else "") + "step, feature"[: 4 if len(shape) == 1 else None]
            raise ValueError(f"{where}: expected ({axes}) of shape {expected}; found shape {tuple(found.shape)}")
        if not bool(found.isfinite().all()):
            raise ValueError(f"{where}: expected numbers, found NaN or infinity")
        return found if self.many else found.unsqueeze(0)

    def _times(self, stream: Stream, times: Any, horizon: int) -> Tensor:
        if times is None:
            raise ValueError(f"times: the steps are irregular; expected the seconds of {horizon} steps to come")
        found = to_tensor("times", times).double()
        if found.shape == (horizon,):
            found = found.expand(self.count, -1)
        if found.shape != (self.count, horizon):
            raise ValueError(f"times: expected ({horizon},) seconds; found shape {tuple(found.shape)}")
        last = stream.times[:, min(stream.steps, stream.size) - 1 :][:, :1]
        if not bool((torch.diff(torch.cat([last, found], 1)) > 0).all()):
            raise ValueError(f"times: expected seconds that grow, from the last step's {float(last.max())} on")
        return found

    def _totals(self, online: Standing, given: Mapping[str, Any], horizon: int) -> dict[str, Tensor]:
        found = {}
        for name in online.stream.counted:
            clock = online.followed.clocks[name]
            frames = (self.first + horizon) // clock - self.first // clock
            if name not in given:
                raise ValueError(
                    f"forecast: the channels of {name!r} share a total at every step, and those of the future must be "
                    f"given: expected totals= of {frames} frames under {name!r}"
                )
            found[name] = self._array(f"totals[{name!r}]", given[name], (frames,))
        return found


@dataclass(frozen=True, eq=False)
class _Frame:
    """What a head's density at one frame needs, under every simulated path."""

    now: Now
    inputs: HeadInputs
    hidden: Tensor


@dataclass(frozen=True, eq=False)
class _PathDensity:
    """The density of what comes, averaged over simulated paths; a class, so that a forecast can be pickled."""

    followed: Followed
    frames: Mapping[str, list[_Frame]]
    taken: tuple[Tensor, Tensor, Tensor]

    def __call__(self, name: str, values: Tensor, mask: Tensor) -> Tensor:
        head, found = self.followed.double_heads[name], []
        with torch.inference_mode():
            for k, frame in enumerate(self.frames[name][: values.shape[1]]):
                seen = mask[:, k : k + 1]
                inputs = frame.inputs._replace(mask=seen, partial=True)
                distribution = self.followed.given(name, inputs, frame.now, frame.hidden)
                entries = head.entry_log_prob(distribution, to_double(values[:, k : k + 1])).squeeze(-2)
                chosen = entries.expand(*self.followed.shape, -1)[self.taken]
                seen = seen.squeeze(1) if chosen.shape[-1] == seen.shape[-1] else seen.squeeze(1).any(-1, keepdim=True)
                found.append((torch.logsumexp(chosen, 0) - math.log(len(chosen))).masked_fill(~seen, torch.nan))
        return torch.stack(found, 1).clone()
