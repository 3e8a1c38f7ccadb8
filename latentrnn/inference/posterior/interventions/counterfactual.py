"""What would have happened: the same latents under other covariates or clamped gates."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from torch import Tensor

from latentrnn.data import SequenceData
from latentrnn.data.ingest.names import check_mapping
from latentrnn.data.ingest.plain_numbers import to_tensor
from latentrnn.inference.posterior.draws.predictions import concatenate_sequences, padding_to_nan, with_sample_axis
from latentrnn.inference.posterior.draws.sampler import PosteriorSampler, SampledRollout
from latentrnn.inference.posterior.interventions.clamped import Clamped
from latentrnn.inference.posterior.interventions.clamps import Clamp, Clamps, Hold, checked_clamps
from latentrnn.inference.posterior.interventions.places import Silent, Steps, checked_units, silenced, steps_of
from latentrnn.models.features.gap import gaps
from latentrnn.models.rollout import Rollout
from latentrnn.models.state_space import LatentRNN
from latentrnn.support.arguments import check_choice, check_size, is_integer
from latentrnn.support.notebooks import ShownInNotebooks
from latentrnn.support.private_symbols import replace_child
from latentrnn.support.shown import shapes


@dataclass(frozen=True, eq=False)
class Counterfactual(ShownInNotebooks):
    """The rollout that sequences would have taken.

    Attributes:
        rates: per head E[y' | latents, parameters], (sample, sequence, time, channel), padding NaN, or (sample,
            sequence, channel) of a per-sequence head; sample s has the latents and parameters of sample s of
            `posterior.rates(head, num_samples)`.
        states: what readouts see, (sample, sequence, time, dim).
        from_step: the first step that the intervention touches.
    """

    rates: dict[str, Tensor]
    states: Tensor
    from_step: int

    def __repr__(self) -> str:
        steps = {name: rates for name, rates in self.rates.items() if rates.dim() == self.states.dim()}
        whole = {name: rates for name, rates in self.rates.items() if name not in steps}
        shown = [
            shapes(steps, ("samples", "sequences", "steps", "channels")),
            shapes(whole, ("samples", "sequences", "channels")),
        ]
        return f"Counterfactual({', '.join(filter(None, shown))}, from step {self.from_step})"


@dataclass(frozen=True)
class Intervention:
    """Other covariates, (sequence, time, feature), and gates held, from a step on.

    Attributes:
        data: the recording with its covariates changed.
        clamp: gate to what stands in its place, of `checked_clamps`.
        from_step: the first step that is touched.
        free: whether heads that feed back do so with their own samples from there on.
        silent: units that are lesioned, if any.
    """

    data: SequenceData
    clamp: Clamps
    from_step: int
    free: bool
    silent: Silent | None = None

    def of_draw(self, number: int) -> Intervention:
        """Return what is done to one draw."""
        return replace(self, clamp=_part(self.clamp, samples=slice(number, number + 1)))


def _part(clamps: Clamps, **part: slice) -> Clamps:
    return {gate: [held.of(**part) for held in several] for gate, several in clamps.items()}


def counterfactual(
    sampler: PosteriorSampler,
    covariates: Mapping[str, Any] | None,
    clamp: Mapping[str, Hold | Sequence[Clamp]] | None,
    from_step: int,
    feedback: str,
    num_samples: int,
    lesion: Sequence[int] | None = None,
    lesion_at: Steps = None,
) -> Counterfactual:
    """Run the same latents under an intervention; see `Posterior.counterfactual`."""
    check_choice("counterfactual", "feedback", feedback, ("recorded", "free"))
    last = sampler.data.num_steps - 1
    if not is_integer(from_step) or not 0 <= from_step <= last:
        raise ValueError(f"counterfactual: from_step must be a step of the data, 0 to {last}; found {from_step!r}")
    check_size("counterfactual", "num_samples", num_samples)
    changed = _changed(sampler.data, covariates, from_step)
    sampler.model.check_covariates(changed)
    clamps = checked_clamps(clamp, sampler.data, num_samples, from_step)
    silent = None
    if (units := checked_units("lesion", lesion)) is not None:
        steps = steps_of("lesion", lesion_at, sampler.data.num_steps)
        steps &= torch.arange(len(steps)) >= from_step
        silent = silenced(sampler.model.transition, sampler.model.latent, units, steps)
    # gates that are held are those of one transition, which every draw has for itself where its parameters have priors
    drawn = any(each.parameter.owner == "transition" for each in sampler.model.given.sampled)
    by_draw = drawn and bool(clamps or silent)
    rates: dict[str, list[Tensor]] = {name: [] for name in sampler.model.observations}
    states, start = [], 0
    for sampled in sampler.rollouts(num_samples):
        stop = start + sampled.rollout.data.num_sequences
        data = changed[start:stop] if stop - start < len(changed) else changed
        what = Intervention(data, _part(clamps, sequences=slice(start, stop)), from_step, feedback == "free", silent)
        start = stop
        if by_draw:
            draws = [_of_draw(sampler.model, sampled, what, number) for number in range(num_samples)]
            parts = [_seen(rollout_of(*draw, 1), data, 1) for draw in draws]
        else:
            parts = [_seen(rollout_of(sampler.model, sampled, what, num_samples), data, num_samples)]
        for name, found in rates.items():
            found.append(torch.cat([part[name] for part, _ in parts]))
        states.append(torch.cat([seen for _, seen in parts]))
    frames = {name: sampler.data.observations[name].shape[1] for name in rates}
    return Counterfactual(
        {name: concatenate_sequences(parts, frames[name]) for name, parts in rates.items()},
        concatenate_sequences(states, sampler.data.num_steps),
        from_step,
    )


def _seen(rollout: Rollout, data: SequenceData, num_samples: int) -> tuple[dict[str, Tensor], Tensor]:
    """Return the means of the heads and what readouts see, (sample, sequence, time, ...), NaN in padding."""
    rates = {}
    for name, head in rollout.observations.items():
        distribution = rollout.distribution(name).expand(torch.Size((num_samples, len(data))))
        rates[name] = padding_to_nan(head.mean(distribution), data, name)
    states = with_sample_axis(rollout.states(), num_samples)
    return rates, torch.where(data.valid.unsqueeze(-1), states, torch.nan)


def _of_draw(
    model: LatentRNN, sampled: SampledRollout, what: Intervention, number: int
) -> tuple[LatentRNN, SampledRollout, Intervention]:
    """Return one of the draws by itself."""
    alone = with_draw(model, sampled.parameters, number)
    latents = {name: value[number : number + 1] for name, value in sampled.latents.items()}
    with pyro.plate("draws", 1, dim=-2), poutine.block(), poutine.condition(data=latents):
        before = alone.unroll(sampled.rollout.data)
    if (states := sampled.rollout.path.states) is not None and not model.latent_sites():  # what is summed out
        before.path = before.path._replace(states=states[number : number + 1])
    return alone, sampled._replace(rollout=before, latents=latents, parameters={}), what.of_draw(number)


def with_draw(model: LatentRNN, parameters: Mapping[str, Tensor], number: int) -> LatentRNN:
    """Return the model with one of the draws, (sample, 1, *shape), in the place of its parameters, no sites there."""
    alone = model.with_parameters({name: value[number, 0] for name, value in parameters.items()})
    alone.given = copy.copy(model.given)
    alone.given.sampled = []
    return alone


def rollout_of(model: LatentRNN, sampled: SampledRollout, what: Intervention, num_samples: int) -> Rollout:
    """Return the rollout of the changed data with the latents of a draw."""
    data, shape = what.data, torch.Size((num_samples, len(what.data)))
    summed_out = sampled.rollout.path.states is not None and not model.latent_sites()
    clamped = Clamped(model.transition, what.clamp, what.from_step, shape, what.silent)
    if what.clamp or what.silent:
        model = copy.copy(model)
        replace_child(model, "transition", clamped)
    if what.free:  # what comes before the intervention is given
        context = torch.full_like(data.lengths, what.from_step).minimum(data.lengths)
        data = replace(data, context=context, host_context=data.host_lengths.clip(max=what.from_step))
    latents = sampled.latents
    if not (model.latent.consumes_feedback or summed_out):
        latents = _as_surprising(sampled, model, data, shape)
    with (
        pyro.plate("draws", num_samples, dim=-2),
        poutine.block(),
        poutine.condition(data=latents | sampled.parameters),
    ):
        clamped.rewind()
        rollout = model.unroll(data)
    if summed_out:
        rollout.path = model.latent.intervened(sampled.rollout, rollout)
    if what.free:
        clamped.rewind()
        rollout.values = {
            name: rollout.feedback_distribution(name).expand(shape).sample() for name in rollout.feedback_heads
        }
    else:
        rollout.values = {name: data.observations[name] for name in rollout.feedback_heads}
    clamped.rewind()
    rollout.states()
    return rollout


def _as_surprising(
    sampled: SampledRollout, model: LatentRNN, data: SequenceData, shape: torch.Size
) -> dict[str, Tensor]:
    """Return latents whose every step is as surprising as before, seen from the changed rollout.

    z_t = loc_t + scale_t e_t, where loc_t and scale_t depend on the past: e_t is what stays the same.
    """
    before = sampled.rollout  # with the draws of parameters
    assert before.inputs_of is not None
    latent, inputs = before.latent, before.inputs_of(data)
    transition = model.transition if isinstance(model.transition, Clamped) else before.transition
    site = next(site.name for site in latent.sites() if site.along_time)
    starts = {name: v.expand(*shape, -1) for name, v in sampled.latents.items() if name != site}
    old = new = latent.begin_with(shape, starts)
    path = sampled.latents[site].expand(*shape, -1, -1).unbind(-2)
    gap, values = gaps(data), []
    for t, (a_t, b_t) in enumerate(zip(before.transition_inputs.unbind(-2), inputs.unbind(-2), strict=True)):
        since = None if gap is None else gap[:, t]
        step = latent.step(before.transition, old, a_t.expand(*shape, -1), since)
        other = latent.step(transition, new, b_t.expand(*shape, -1), since)
        assert step.prior is not None
        assert other.prior is not None
        moved = _moved(path[t], step.prior, other.prior)
        if latent.draws_states and isinstance(transition, Clamped):
            moved = transition.silence(t, moved)
        values.append(moved)
        old, new = step.move(path[t]), other.move(values[-1])
    return {**sampled.latents, site: torch.stack(values, -2)}


def _moved(value: Tensor, prior: dist.Distribution, other: dist.Distribution) -> Tensor:
    old, new = prior.base_dist, other.base_dist
    assert isinstance(old, torch.distributions.Normal)
    assert isinstance(new, torch.distributions.Normal)
    # written so that nothing changes, to the last digit, where the two are the same
    return value + (new.loc - old.loc) + (new.scale / old.scale - 1) * (value - old.loc)


def _changed(data: SequenceData, covariates: Mapping[str, Any] | None, from_step: int) -> SequenceData:
    given = check_mapping("covariates", covariates, data.covariates, "a covariate")
    found = dict(data.covariates)
    later = ((torch.arange(data.num_steps, device=data.device) >= from_step) & data.valid).unsqueeze(-1)
    for name, value in given.items():
        new = to_tensor(f"covariates[{name!r}]", value).to(found[name])
        if new.shape not in ((), found[name].shape):
            raise ValueError(
                f"covariates[{name!r}]: expected one number, or (sequence, time, feature) {tuple(found[name].shape)} "
                f"as in the data; found {tuple(new.shape)}"
            )
        if not bool((new.isfinite() | ~later).all()):
            raise ValueError(f"covariates[{name!r}]: expected numbers from step {from_step} on; found NaN or infinity")
        found[name] = torch.where(later, new, found[name])
    return replace(data, covariates=found)
