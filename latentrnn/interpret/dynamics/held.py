"""The dynamics without noise at a constant input: s_t = F(s_{t-1}; a), for every draw of the parameters."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from latentrnn.data import SequenceData
from latentrnn.inference.posterior.posterior import Posterior
from latentrnn.models.features import Feature
from latentrnn.models.features.gap import median_gap
from latentrnn.models.latents import Latent, RecurrentNormal
from latentrnn.models.rollout.double_precision import has_double_precision
from latentrnn.models.state_space import LatentRNN
from latentrnn.models.transitions import Transition
from latentrnn.models.transitions.transition import concatenate_channels
from latentrnn.support.arguments import as_plain, check_integer, check_number
from latentrnn.support.clock import step_length
from latentrnn.support.shown import shown

LONG = 400  # steps of constant covariates, in the middle of which features that see the whole sequence have settled
SETTLED = 1e-4  # how far a feature may still move there, in units of its largest value


@dataclass(frozen=True)
class Held:
    """What is held constant while a state runs free; shared by everything that asks for F(s; a).

    Attributes:
        covariates: covariate to one number or one for each of its features, in the data's units.
        past: what heads that feed back into the transition have emitted at all times: "mean", their average; "zero";
            or head to one number or one for each of its channels, in the data's units.
        regime: which state a switch that drives the transition is in.
        gap: seconds between steps, where steps have times of their own; the median of the data by default.
    """

    covariates: Mapping[str, Any] | None = None
    past: str | Mapping[str, Any] = "mean"
    regime: int | None = None
    gap: float | None = None


@dataclass(frozen=True)
class HeldMap:
    """F(s; a) of one draw of the parameters, in double precision.

    Attributes:
        transition: with the draw in place.
        latent: likewise.
        inputs: a, (channel,), but for what a latent adds that depends on the state.
        seconds: of a step (one where the data have no clock).
    """

    transition: Transition
    latent: Latent
    inputs: Tensor
    seconds: float

    def __call__(self, state: Tensor) -> Tensor:
        """Return the next states of states (row, state_size)."""
        inputs = self.inputs.expand(len(state), -1)
        if isinstance(self.latent, RecurrentNormal):  # what it draws of a state is at its mean
            inputs = concatenate_channels(inputs, self.latent.prior_at_step(self.transition.output(state))[0])
        return self.transition.step(state, inputs)


def held_maps(owner: str, posterior: Posterior, num_samples: int, held: Held) -> list[HeldMap]:
    """Return F(s; a) of every draw; one for all of them where no parameter of it has a prior.

    Raises:
        ValueError: something that drives the transition is not told, or cannot be constant, by name.
    """
    model = copy.deepcopy(posterior.model)
    device = posterior.device if has_double_precision(next(model.parameters())) else torch.device("cpu")
    model = model.to(device).double()
    data = _constant_data(owner, model, posterior.data, held)
    return [_of_model(owner, each, data, held) for each in _models(model, posterior, num_samples)]


def visited(posterior: Posterior, num_samples: int) -> Tensor:
    """Return whole states along the data under draws, (sample, state, size), in double precision on the CPU."""
    parts = []
    for run in posterior.transition_runs(num_samples):
        inside = run.rollout.data.valid
        parts.append(run.states.detach()[:, inside].double().cpu())
    found = torch.cat(parts, 1)
    finite = found.isfinite().all(-1).all(0)
    if not bool(finite.any()):
        raise ValueError("the posterior's states are infinite or NaN along all of the data")
    return found[:, finite]


def _models(model: LatentRNN, posterior: Posterior, num_samples: int) -> Iterator[LatentRNN]:
    """Yield the model under each draw of what F depends on."""
    owners = {each.parameter.owner for each in model.given.sampled}
    fed = {name for name, head in model.observations.items() if _feeds(head)}
    if not owners & {"transition", "inputs", "latent", *fed}:
        yield model
        return
    like = next(model.parameters())
    drawn = {name: value.to(like) for name, value in posterior.parameters(num_samples).items()}
    for number in range(num_samples):
        yield model.with_parameters({name: value[number] for name, value in drawn.items()})


def _of_model(owner: str, model: LatentRNN, data: SequenceData, held: Held) -> HeldMap:
    middle = data.num_steps // 2
    with torch.no_grad():
        inputs = model.transition_inputs(data)[0]
        _check_settled(owner, model, inputs, middle)
        parts = [inputs[middle], *_pasts(owner, model, held.past, inputs)]
        if model.latent.switch_size:
            parts.append(_regime(owner, model.latent, held.regime, inputs))
        elif held.regime is not None:
            raise ValueError(f"{owner}: regime={held.regime}, but {model.latent!r} has no switch that the state sees")
        elif not isinstance(model.latent, RecurrentNormal):
            parts.append(inputs.new_zeros(model.latent.input_size))  # innovations
    seconds = float(data.times[0, 1] - data.times[0, 0]) if data.times is not None else step_length(data.spec.dt)
    return HeldMap(model.transition, model.latent, torch.cat(parts), seconds)


def _check_settled(owner: str, model: LatentRNN, inputs: Tensor, middle: int) -> None:
    moves = (inputs[middle] - inputs[middle - 1]).abs() > SETTLED * inputs[middle].abs().clamp_min(1.0)
    if bool(moves.any()):
        place = int(moves.nonzero()[0]) - int(model.transition.timed)
        name = model.features.names[place] if 0 <= place < len(model.features.names) else "the time between steps"
        raise ValueError(f"{owner}: of constant covariates {name} does not become constant, so that F(s; a) is not one")


def _constant_data(owner: str, model: LatentRNN, data: SequenceData, held: Held) -> SequenceData:
    """Return one long sequence with constant covariates, for the model's features to read."""
    features = model.features
    steps = LONG if math.isinf(features.lookahead) else int(features.memory + features.lookahead) + 1
    steps = 2 * steps + 2
    if held.covariates is not None and not isinstance(held.covariates, Mapping):
        raise TypeError(f"{owner}: covariates must be a dict of name to value; found {type(held.covariates).__name__}")
    given = dict(held.covariates or {})
    if unknown := sorted(set(map(str, given)) - set(data.spec.covariates)):
        raise ValueError(f"{owner}: unknown covariates {unknown}; the data have {sorted(data.spec.covariates)}")
    values = _Told(owner, data, given)
    for name, value in given.items():
        size = data.spec.covariates[name].features
        values[name] = _vector(f"{owner}: covariates[{name!r}]", value, size).expand(1, steps, size)
    if held.gap is not None and data.times is None:
        raise ValueError(f"{owner}: gap={held.gap}, but the data have a regular clock")
    times = None
    if data.times is not None:
        gap = median_gap(data) if held.gap is None else check_number(owner, "gap", held.gap, above=0.0)
        times = (gap or 1.0) * torch.arange(steps, dtype=torch.float64).unsqueeze(0)
    first = data[:1].to("cpu", torch.float64)
    constant = dataclasses.replace(
        first,
        covariates={},
        times=times,
        lengths=torch.full_like(first.lengths, steps),
        context=torch.zeros_like(first.context),
        num_steps=steps,
        host_lengths=np.full(1, steps),
        host_context=np.zeros(1, dtype=np.int64),
    )
    like = next(model.parameters())
    constant = constant.to(like.device)
    values.update({name: value.to(like) for name, value in values.items()})
    constant = dataclasses.replace(constant, covariates=values)
    for part in features.modules():
        if isinstance(part, Feature):
            part.check(constant)
    return constant


class _Told(dict[str, Tensor]):
    """Constant covariates by name, which say so where one is missing."""

    def __init__(self, owner: str, data: SequenceData, given: Mapping[str, Any]) -> None:
        super().__init__()
        self.owner, self.spec, self.given = owner, data.spec, sorted(given)

    def __missing__(self, name: str) -> Tensor:
        names = list(self.spec.covariates[name].feature_names)
        raise ValueError(
            f"{self.owner}: {name!r} drives the transition; expected covariates={{{name!r}: its constant value}}, one "
            f"number or one for each of {names}; found {self.given or 'none'}"
        )


def _feeds(head: Any) -> bool:
    return head.feedback is not None and "transition" in head.feedback.into


def _pasts(owner: str, model: LatentRNN, past: str | Mapping[str, Any], like: Tensor) -> list[Tensor]:
    """Return the features of each feeding head's constant past."""
    heads = {name: head for name, head in model.observations.items() if _feeds(head)}
    if not isinstance(past, Mapping) and not (isinstance(past, str) and past in ("mean", "zero")):
        raise ValueError(f"{owner}: past must be 'mean', 'zero' or head to values; found {shown(past)}")
    if isinstance(past, Mapping) and (names := sorted(map(str, past))) != sorted(heads):
        raise ValueError(f"{owner}: past must name the heads that feed back, {sorted(heads)}; found {names}")
    found = []
    for name, head in heads.items():
        channels = head.head.channels
        value = past[name] if isinstance(past, Mapping) else 0.0
        values = _vector(f"{owner}: past[{name!r}]", value, channels).to(like).expand(head.feedback.steps, channels)
        unobserved = torch.zeros_like(values, dtype=torch.bool) if past == "mean" else None
        found.append(head.feedback.at(head.encode_history(values, unobserved)).reshape(-1))
    return found


def _regime(owner: str, latent: Latent, regime: int | None, like: Tensor) -> Tensor:
    if regime is None:
        raise ValueError(
            f"{owner}: {latent!r} drives the transition by a switch, whose weights add up to one and cannot be zero; "
            f"expected regime=0 to {latent.switch_size - 1}, the state that it is in"
        )
    place = check_integer(owner, "regime", regime, most=latent.switch_size - 1)
    weights = like.new_zeros(latent.input_size)
    weights[latent.input_size - latent.switch_size + place] = 1.0
    return weights


def _vector(where: str, value: Any, size: int) -> Tensor:
    """Return one number, or `size` of them, as (size,).

    Raises:
        ValueError: anything else.
    """
    try:
        found = torch.as_tensor(as_plain(value), dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError):
        found = torch.full((0,), torch.nan, dtype=torch.float64)
    if found.shape not in ((), (1,), (size,)) or not bool(found.isfinite().all()):
        raise ValueError(f"{where}: expected a number, or {size} of them; found {shown(value)}")
    return found.expand(size)
