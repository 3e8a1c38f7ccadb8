"""Sample paths of the future, from the posterior of the last state on by the model's own steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyro
import torch
from numpy.typing import NDArray
from pyro import poutine
from torch import Tensor

from latentrnn.data import SequenceData
from latentrnn.data.calendar import Calendar
from latentrnn.data.ingest.names import check_mapping
from latentrnn.data.views.horizon import extend
from latentrnn.inference.posterior.draws.sampler import PosteriorSampler, SampledRollout
from latentrnn.inference.posterior.sample_scores import aligned_samples, coverage, crps, quantiles
from latentrnn.models.features.gap import gaps
from latentrnn.models.rollout import Rollout
from latentrnn.models.state_space import LatentRNN
from latentrnn.support.arguments import check_number, check_selection, check_size
from latentrnn.support.clock import step_length
from latentrnn.support.isolation import isolated
from latentrnn.support.notebooks import ShownInNotebooks
from latentrnn.support.shown import shapes

if TYPE_CHECKING:
    import pandas

Density = Callable[[str, Tensor, Tensor], Tensor]


class HeadAxes(NamedTuple):
    """When the frames of a head's forecast begin, and what its channels are called.

    Attributes:
        times: since a sequence's first step, seconds or steps, (sequence, frame); NaN where there is no frame.
        channels: names.
        unit: of the times, "s" or "step".
        dates: when that is, (sequence, frame), in UTC where the calendar has a time zone; None for data without dates.
        calendar: of the recording, which says how dates are shown.
        levels: of each channel what its codes stand for, empty where they are numbers; None where all are.
    """

    times: Tensor
    channels: tuple[str, ...]
    unit: str
    dates: NDArray[np.datetime64] | None = None
    calendar: Calendar | None = None
    levels: tuple[tuple[str, ...], ...] | None = None


@dataclass(frozen=True, eq=False)
class Forecast(ShownInNotebooks):
    """Paths after the end of every sequence, in the data's units.

    Frame k of a head on the base clock is k + 1 steps ahead; a slow head has the frames that are complete by then,
    where a sequence has fewer than others NaN.

    Attributes:
        samples: head to (sample, sequence, frame, channel).
        names: names of the sequences.
        dt: seconds per base step, None for unit or irregular steps.
        density: (head, observed, mask) to log-densities; None where there are samples only.
        axes: head to when its frames are and what its channels are called; None where that is not known.
    """

    samples: dict[str, Tensor]
    names: tuple[str, ...]
    dt: float | None
    density: Density | None = field(default=None, repr=False)
    axes: Mapping[str, HeadAxes] | None = field(default=None, repr=False)

    def __repr__(self) -> str:
        return f"Forecast({shapes(self.samples, ('samples', 'sequences', 'frames', 'channels'))})"

    def mean(self, head: str) -> Tensor:
        """Return the mean over samples, (sequence, frame, channel)."""
        return self._of(head).mean(0)

    @isolated
    def quantiles(self, head: str, probabilities: float | Sequence[float] = (0.05, 0.5, 0.95)) -> Tensor:
        """Return quantiles over samples, (quantile, sequence, frame, channel) (type 6: order statistic p (S + 1))."""
        return quantiles(self._of(head), probabilities)

    def to_dataframe(self, *, prob: float = 0.9) -> pandas.DataFrame:
        """Return mean, standard deviation and central interval of every entry, a row each.

        Args:
            prob: of the interval.

        Returns:
            A data frame with the columns "head", "sequence", "frame" (from 1, the first after the end), "time" (when
            the frame begins, since the sequence's first step, in the unit that `attrs["time_unit"]` names), "date"
            where the recording came with dates, "channel", "mean", "sd", and the ends of the interval (e.g. "5%" and
            "95%"). A channel whose codes stand for names has a row for each of them, which the column "level" says,
            with its probability as "mean" and no deviation or interval; of other channels "level" is empty.

        Raises:
            ValueError: a probability out of range.
        """
        import pandas

        prob = check_number("to_dataframe", "prob", prob, above=0, below=1)
        ends = [round((1 - prob) / 2, 12), round((1 + prob) / 2, 12)]
        columns = ["mean", "sd", *(f"{100 * end:g}%" for end in ends)]
        frames = []
        for head, samples in self.samples.items():
            axes = None if self.axes is None else self.axes[head]
            labels, samples, shares = _by_level(samples, axes)
            _, sequences, count, channels = samples.shape
            spread = samples.std(0) if len(samples) > 1 else torch.full_like(samples[0], torch.nan)
            values = [samples.mean(0), *(v.masked_fill(shares, torch.nan) for v in (spread, *quantiles(samples, ends)))]
            index = pandas.MultiIndex.from_product(
                [[head], self.names, range(1, count + 1), range(channels)], names=["head", "sequence", "frame", "place"]
            )
            frame = pandas.DataFrame(dict(zip(columns, (v.flatten().numpy() for v in values), strict=True)), index)
            times = torch.full((sequences, count), torch.nan) if axes is None else axes.times
            frame.insert(0, "time", times.unsqueeze(-1).expand(-1, -1, channels).flatten().numpy())
            dated = []
            if axes is not None and axes.dates is not None and axes.calendar is not None:
                frame.insert(1, "date", axes.calendar.index(np.repeat(axes.dates.reshape(-1), channels)))
                dated = ["date"]
            for place, name in enumerate(("channel", "level")):
                frame[name] = [label[place] for label in labels] * (sequences * count)
            frames.append(frame[frame["mean"].notna()].reset_index())
        found = pandas.concat(frames, ignore_index=True)
        named = ["level"] if (found["level"] != "").any() else []
        found = found[["head", "sequence", "frame", "time", *dated, "channel", *named, *columns]]
        if self.axes:
            found.attrs["time_unit"] = next(iter(self.axes.values())).unit  # heads share a clock
        return found

    def symbols(self, head: str) -> NDArray[np.object_]:
        """Return the samples by the names that their codes stand for, (sample, sequence, frame, channel).

        Args:
            head: a head that was read from names (`SequenceData.from_dataframe`).

        Returns:
            Names; None where a sequence has no such frame.

        Raises:
            ValueError: an unknown head, or one whose values are numbers.
        """
        samples = self._of(head)
        levels = None if self.axes is None else self.axes[head].levels
        if levels is None or not all(levels):
            raise ValueError(f"symbols: {head!r} has values that are numbers; see `samples`")
        found = np.full(tuple(samples.shape), None, dtype=object)
        for channel, names in enumerate(levels):
            codes = samples[..., channel].numpy()
            there = np.isfinite(codes)
            found[..., channel][there] = np.asarray(names, dtype=object)[codes[there].astype(int)]
        return found

    @isolated
    def crps(self, head: str, observed: Any, mask: Any = None) -> Tensor:
        """Return the fair continuous ranked probability score of every entry, NaN where missing; see `lr.crps`."""
        return crps(self._of(head), observed, mask)

    @isolated
    def coverage(self, head: str, observed: Any, level: float = 0.9, mask: Any = None) -> Tensor:
        """Return whether every entry lies in its central interval, 1.0 or 0.0, NaN where missing; see `lr.coverage`."""
        return coverage(self._of(head), observed, mask, level=level)

    @isolated
    def log_score(self, head: str, observed: Any, mask: Any = None) -> Tensor:
        """Return log p(y_{T+k} | y_{<=T}, covariates) of every entry, nats, NaN where missing.

        The density is averaged over the sampled paths of everything before the entry; each step is scored by itself.

        Args:
            head: the head's name.
            observed: (sequence, frame, channel); NaN is missing.
            mask: booleans like `observed`.

        Returns:
            (sequence, frame, channel), or (sequence, frame, 1) for a family that joins channels.

        Raises:
            ValueError: shapes that differ, or a forecast that is only samples (a baseline).

        References:
            Krüger, Lerch, Thorarinsdottir, Gneiting. Predictive inference based on Markov chain Monte Carlo output.
            2021.
        """
        _, values = aligned_samples(self._of(head), observed, mask)
        if self.density is None:
            raise ValueError("log_score: a forecast of samples alone has no densities; use crps")
        return self.density(head, values.nan_to_num(0.0), ~values.isnan())

    def _of(self, head: str) -> Tensor:
        if not isinstance(head, str) or head not in self.samples:
            raise ValueError(f"unknown head {head!r}; the forecast has {sorted(self.samples)}")
        return self.samples[head]


def _by_level(samples: Tensor, axes: HeadAxes | None) -> tuple[list[tuple[Any, str]], Tensor, Tensor]:
    """Return channel and level of each column, samples with an indicator for every level, and which are indicators."""
    channels = range(samples.shape[-1]) if axes is None else axes.channels
    levels = None if axes is None else axes.levels
    labels: list[tuple[Any, str]] = []
    columns, shares = [], []
    for place, channel in enumerate(channels):
        values = samples[..., place]
        names = () if levels is None else levels[place]
        labels += [(channel, name) for name in names] or [(channel, "")]
        codes = [torch.where(values.isnan(), torch.nan, (values == code).double()) for code in range(len(names))]
        columns += codes or [values]
        shares += [bool(names)] * max(len(names), 1)
    return labels, torch.stack(columns, -1) if any(shares) else samples, torch.tensor(shares)


def forecast(
    sampler: PosteriorSampler,
    horizon: int,
    covariates: Mapping[str, Any] | None,
    times: Any,
    totals: Mapping[str, Any] | None,
    num_samples: int,
    heads: Sequence[str] | None,
) -> Forecast:
    """Forecast every sequence from its own end; see `Posterior.forecast`."""
    horizon, num_samples = (
        check_size("forecast", name, value) for name, value in (("horizon", horizon), ("num_samples", num_samples))
    )
    model, data = sampler.model, sampler.data
    names = [name for name, head in model.observations.items() if head.head.per_step]
    names = names if heads is None else check_selection("forecast", "heads", heads, model.observations, "head")
    for name in names:
        if not model.observations[name].head.per_step:
            raise ValueError(f"forecast: {name!r} has one value per sequence; see `predictive`")
    covariates = check_mapping("covariates", covariates, data.spec.covariates, "a covariate")
    per_step = [name for name, head in data.spec.heads.items() if head.per_step]
    totals = check_mapping("totals", totals, per_step, "a per-step head")
    _require_covariates(model, data, covariates, horizon)
    if times is not None and data.times is None:
        raise ValueError("times: the data have a regular clock; expected none")
    later = extend(data, horizon, covariates=covariates, times=times, totals=totals)
    model.check_covariates(later)
    _require_totals(model, names, totals, later, horizon)
    rollouts: list[Rollout] = []
    parts: dict[str, list[Tensor]] = {name: [] for name in names}
    for rollout in futures(sampler, later, num_samples):
        rollouts.append(rollout)
        shape = torch.Size((num_samples, rollout.data.num_sequences))
        for name in names:
            if name in rollout.feedback_heads:
                value = rollout.values[name]
            else:
                distribution = rollout.distribution(name).expand(shape)
                known, mask = rollout.data.observations[name], rollout.data.masks[name]
                value = rollout.observations[name].sample_missing(distribution, known, mask)
            parts[name].append(_ahead(value, rollout.data, name, horizon))
    samples = {name: _joined(found) for name, found in parts.items()}

    axes = axes_ahead(data, horizon, names, later.times)
    return Forecast(samples, data.names, data.spec.dt, _PathDensity(rollouts, num_samples, horizon), axes)


def axes_ahead(data: SequenceData, horizon: int, heads: Iterable[str], times: Tensor | None) -> dict[str, HeadAxes]:
    """Return when the frames after every sequence's end begin, and what channels are called, by head.

    Args:
        data: the recording.
        horizon: base steps.
        heads: that run along time.
        times: seconds of all steps with those to come, (sequence, time), where steps are irregular.
    """
    found = {}
    for name in heads:
        head = data.spec.heads[name]
        first = torch.from_numpy(data.host_lengths // head.clock)[:, None]
        end = torch.from_numpy((data.host_lengths + horizon) // head.clock)[:, None]
        frames = first + torch.arange(int((end - first).max()))
        if times is None:
            at = frames * head.clock * step_length(data.spec.dt)
        else:
            at = times.cpu().gather(1, (frames * head.clock).clamp(max=times.shape[1] - 1))
        at = torch.where(frames < end, at.double(), torch.nan)
        unit = "step" if times is None and data.spec.dt is None else "s"
        dates = None if data.calendar is None else _dates(data.calendar, frames * head.clock, at, times, data.spec.dt)
        found[name] = HeadAxes(at, tuple(head.channel_names), unit, dates, data.calendar, head.levels)
    return found


def _dates(
    calendar: Calendar, steps: Tensor, seconds: Tensor, times: Tensor | None, dt: float | None
) -> NDArray[np.datetime64]:
    """Return the dates of steps (sequence, frame), by the seconds at which they are where steps are irregular."""
    if times is None:
        rows = [calendar.at(row, own, dt) for row, own in enumerate(steps.numpy())]
    else:
        rows = [calendar.after(row, np.nan_to_num(own)) for row, own in enumerate(seconds.numpy())]
    return np.where(seconds.isnan().numpy(), np.datetime64("NaT", "ns"), np.stack(rows))


@dataclass(frozen=True, eq=False)
class _PathDensity:
    """The density of what comes, averaged over sampled paths; a class, so that a forecast can be pickled."""

    rollouts: Sequence[Rollout]
    num_samples: int
    horizon: int

    def __call__(self, name: str, values: Tensor, mask: Tensor) -> Tensor:
        found, start = [], 0
        for rollout in self.rollouts:
            rows = slice(start, start + rollout.data.num_sequences)
            found.append(_log_density(rollout, name, values[rows], mask[rows], self.num_samples, self.horizon))
            start = rows.stop
        return _joined([part.unsqueeze(0) for part in found])[0]


def futures(sampler: PosteriorSampler, later: SequenceData, num_samples: int) -> Iterator[Rollout]:
    """Yield, chunk by chunk, the rollouts of recording and future: heads that feed back are drawn, others are not."""
    model, start = sampler.model, 0
    for sampled in sampler.rollouts(num_samples):
        stop = start + sampled.rollout.data.num_sequences
        data = later[start:stop] if stop - start < len(later) else later
        start = stop
        shape = torch.Size((num_samples, data.num_sequences))
        values = _gone_on(sampled, data, shape) | sampled.parameters
        with pyro.plate("draws", num_samples, dim=-2), poutine.block(), poutine.condition(data=values):
            rollout = model.unroll(data)
        # what is drawn is complete: nothing is masked in it
        rollout.inputs = {name: inputs._replace(mask=None) for name, inputs in rollout.inputs.items()}
        rollout.sample_marginalised(shape, given_data=True)
        rollout.values = {
            name: rollout.feedback_distribution(name).expand(shape).sample() for name in rollout.feedback_heads
        }
        yield rollout


def _gone_on(sampled: SampledRollout, data: SequenceData, shape: torch.Size) -> dict[str, Tensor]:
    """Return latents whose trajectory goes on after the recording, drawn from the prior step by step."""
    rollout = sampled.rollout  # with the draws of parameters
    assert rollout.inputs_of is not None
    latent, transition = rollout.latent, rollout.transition
    values = dict(sampled.latents)
    site = next((site for site in latent.sites() if site.along_time), None)
    if site is None:
        return values
    recorded = values[site.name].expand(*shape, -1, -1).unbind(-2)
    heads = [head.feedback.size for head in rollout.observations.values() if head.feedback is not None
             and "transition" in head.feedback.into]  # fmt: skip
    # a latent that goes with feedback draws whatever the state is, so that nothing need be fed back here
    inputs = torch.nn.functional.pad(rollout.inputs_of(data), (0, sum(heads)))
    starts = {name: value.expand(*shape, -1) for name, value in values.items() if name != site.name}
    carry, gap = latent.begin_with(shape, starts), gaps(data)
    steps: list[Tensor] = []
    everywhere = int(data.host_context.min())
    for t, a_t in enumerate(inputs.unbind(-2)):
        step = latent.step(transition, carry, a_t.expand(*shape, -1), None if gap is None else gap[:, t])
        assert step.prior is not None
        value = recorded[t] if t < len(recorded) else recorded[-1]
        if t >= everywhere:
            known = (t < data.context).unsqueeze(-1)
            value = torch.where(known, value, step.prior.sample())
        steps.append(value)
        carry = step.move(value)
    values[site.name] = torch.stack(steps, -2)
    return values


class _Noting(dict[str, Tensor]):
    """Covariates that note which of them are asked for."""

    def __init__(self, values: Mapping[str, Tensor]) -> None:
        super().__init__(values)
        self.asked: set[str] = set()

    def __getitem__(self, name: str) -> Tensor:
        self.asked.add(name)
        return super().__getitem__(name)


def used_covariates(model: LatentRNN, data: SequenceData, heads: Iterable[str] | None = None) -> set[str]:
    """Return the covariates that the model (not the guide) looks at; of the heads only some, where they are named."""
    noting = _Noting(data.covariates)
    probe = replace(data, covariates=noting)
    with torch.no_grad():
        model.transition_inputs(probe)
        for name in model.observations if heads is None else heads:
            model.observations[name].inputs(probe)
    return noting.asked


def _require_covariates(model: LatentRNN, data: SequenceData, given: Mapping[str, Any], horizon: int) -> None:
    missing = sorted(used_covariates(model, data[:1]) - set(given))
    if missing:
        shapes = {name: (len(data), horizon, data.spec.covariates[name].features) for name in missing}
        raise ValueError(
            f"forecast: the model is driven by {missing}, of which the future must be given: expected covariates= "
            f"of (sequence, step, feature) {shapes}"
        )


def _require_totals(
    model: LatentRNN, names: Sequence[str], given: Mapping[str, Any], later: SequenceData, horizon: int
) -> None:
    for name in names:
        head = model.observations[name]
        if name not in given and head.inputs(later).totals is not None:
            frames = horizon // head.head.clock
            raise ValueError(
                f"forecast: the channels of {name!r} share a total at every step, and those of the future must be "
                f"given: expected totals= of (sequence, frame), {frames} or more frames, under {name!r}"
            )


def _frames(data: SequenceData, name: str, horizon: int) -> tuple[Tensor, Tensor]:
    """Return which frames of a head are the future's, (sequence, frame), and which of these exist."""
    clock = data.spec.heads[name].clock
    first, end = data.context // clock, data.lengths // clock
    most = int(((data.host_lengths // clock) - (data.host_context // clock)).max())
    frames = first[:, None] + torch.arange(most, device=data.device)
    return frames, frames < end[:, None]


def _ahead(value: Tensor, data: SequenceData, name: str, horizon: int) -> Tensor:
    """Return what follows the recording, (sample, sequence, frame, ...), of values at all frames."""
    frames, inside = _frames(data, name, horizon)
    rows = torch.arange(len(data), device=data.device)[:, None]
    found = value[:, rows, frames.clamp(max=value.shape[2] - 1)]
    return torch.where(inside.reshape(*inside.shape, *[1] * (found.dim() - 3)), found, torch.nan).cpu()


def _log_density(rollout: Rollout, name: str, values: Tensor, mask: Tensor, num_samples: int, horizon: int) -> Tensor:
    head, data = rollout.observations[name], rollout.data
    frames, inside = _frames(data, name, horizon)
    known, seen = data.observations[name].clone(), data.masks[name].clone()
    count = min(frames.shape[1], values.shape[1])
    rows = torch.arange(len(data), device=data.device)[:, None].expand_as(frames)[:, :count]
    chosen = inside[:, :count]
    there = rows[chosen], frames[:, :count][chosen]
    mask = mask[:, :count].to(data.device)[chosen]
    known[there] = torch.where(mask, values[:, :count].to(known)[chosen], known[there])
    seen[there] = mask
    inputs, masked = rollout.inputs, dict(rollout.inputs)
    masked[name] = inputs[name]._replace(mask=seen, partial=True)
    rollout.inputs = masked
    try:
        with torch.no_grad(), rollout.double_precision():
            known = known.double() if rollout.is_double else known
            entries = head.entry_log_prob(rollout.distribution(name), known)
    finally:
        rollout.inputs = inputs
    entries = entries.expand(num_samples, *entries.shape[-3:])
    found = torch.logsumexp(entries, 0, keepdim=True) - math.log(num_samples)
    found = _ahead(found, data, name, horizon)[0]
    scored = torch.zeros(len(data), frames.shape[1], seen.shape[-1], dtype=torch.bool)
    scored[:, :count][chosen.cpu()] = mask.cpu()
    scored = scored if found.shape[-1] == scored.shape[-1] else scored.any(-1, keepdim=True)
    return torch.where(scored, found, torch.nan)


def _joined(parts: list[Tensor]) -> Tensor:
    """Join chunks along sequences, padded with NaN to the most frames."""
    most = max(part.shape[2] for part in parts)
    wide = [torch.nn.functional.pad(p, (0, 0, 0, most - p.shape[2]), value=torch.nan) for p in parts]
    return wide[0] if len(wide) == 1 else torch.cat(wide, 1)
