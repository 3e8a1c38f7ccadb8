"""What of a head is explained: its linear predictor or its mean, of a step or summed over steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from latentrnn.data import HeadSpec
from latentrnn.inference.posterior.posterior import Posterior
from latentrnn.models.observations import HeadInputs, Observation
from latentrnn.models.rollout import Rollout
from latentrnn.models.state_space import LatentRNN
from latentrnn.support.arguments import check_choice, check_integer, is_integer
from latentrnn.support.shown import shown

QUANTITIES = ("predictor", "mean")


@dataclass(frozen=True)
class Target:
    """Numbers of a head, one for each row of a rollout and output.

    Attributes:
        owner: who asks, for error messages.
        spec: of the head.
        quantity: "predictor", eta, or "mean", E[y].
        step: frame of a per-step head; None for the sum over the frames of a sequence, or for a per-sequence head.
        channel: name or place of an output; None for all.
    """

    owner: str
    spec: HeadSpec
    quantity: str
    step: int | None
    channel: Any

    def of(self, rollout: Rollout) -> tuple[Tensor, list[Any]]:
        """Return the numbers, (row, output), of a rollout (1, row, ...), and the outputs' names.

        NaN where a sequence has no such step.

        Raises:
            ValueError: no such output.
        """
        name, data = self.spec.name, rollout.data
        if self.quantity == "mean":
            distribution = rollout.distribution(name)
            found, drawn = rollout.observations[name].mean(distribution), len(distribution.batch_shape) > 1
        else:
            found = asked_instead(rollout, name, _predictor)  # (..., [frame,] output)
            drawn = found.dim() > 2 + self.spec.per_step
        found = found.squeeze(0) if drawn else found  # where nothing is random there is no axis of draws
        found = found.flatten(2 if self.spec.per_step else 1)  # (row, [frame,] output)
        found = found.expand(data.num_sequences, *found.shape[1:])
        names = _names(self.spec, found.shape[-1])
        if self.channel is not None:
            place = _place(self.owner, names, self.channel)
            found, names = found[..., [place]], [names[place]]
        if not self.spec.per_step:
            return found, names
        frames = (data.lengths // self.spec.clock)[:, None]
        if self.step is not None:
            return torch.where(frames > self.step, found[:, self.step], torch.nan), names
        inside = torch.arange(found.shape[1], device=found.device) < frames
        return torch.where(inside.unsqueeze(-1), found, 0.0).sum(1), names


def target_of(owner: str, posterior: Posterior, head: str, quantity: str, step: Any, channel: Any) -> Target:
    """Return what is asked of a head.

    Args:
        owner: who asks, for error messages.
        posterior: of a model with the head.
        head: its name.
        quantity: "predictor" or "mean".
        step: a frame of the head, or None.
        channel: name or place of an output, or None for all.

    Raises:
        ValueError: no such head, quantity or step.
    """
    spec = head_of(owner, posterior.model, head).head
    check_choice(owner, "quantity", quantity, QUANTITIES)
    if step is not None and not spec.per_step:
        raise ValueError(f"{owner}: head {head!r} has one value per sequence, and so no step; found step={shown(step)}")
    if step is not None:
        frames = posterior.data.observations[head].shape[1]
        step = check_integer(owner, "step", step, most=frames - 1)
    return Target(owner, spec, quantity, step, channel)


def head_of(owner: str, model: LatentRNN, head: Any) -> Observation:
    """Return a head of a model.

    Raises:
        ValueError: there is none of this name.
    """
    if not isinstance(head, str) or head not in model.observations:
        raise ValueError(f"{owner}: unknown head {shown(head)}; the model has {sorted(model.observations)}")
    return model.observations[head]


def _names(spec: HeadSpec, outputs: int) -> list[Any]:
    """Return a name of every output: of its channel; where a channel has several, with the output's place."""
    each = outputs // spec.channels
    if each == 1:
        return list(spec.channel_names)
    if spec.channels == 1:
        return list(range(each))
    return [f"{channel}[{place}]" for channel in spec.channel_names for place in range(each)]


def _place(owner: str, names: list[Any], channel: Any) -> int:
    if isinstance(channel, str) and channel in names:
        return names.index(channel)
    if is_integer(channel) and 0 <= channel < len(names):
        return int(channel)
    raise ValueError(f"{owner}: channel must be one of {names}, or a place among them; found {shown(channel)}")


def asked_instead(rollout: Rollout, head: str, ask: Callable[..., Tensor]) -> Tensor:
    """Return what `ask(head's part, states, inputs, history)` is of what a rollout would give its head.

    Args:
        rollout: of any number of draws.
        head: its name.
        ask: of the observation, what its readout sees, `HeadInputs` and features of its past or None.
    """
    part: Any = rollout.heads[head]

    def call(states: Tensor, inputs: HeadInputs, history: Tensor | None = None) -> Any:
        return ask(part, states, inputs, history)

    heads = rollout.heads
    rollout.heads = {**heads, head: call}
    try:
        found: Any = rollout.given(head, rollout.states())
    finally:
        rollout.heads = heads
    return cast(Tensor, found)


def _predictor(part: Observation, states: Tensor, inputs: HeadInputs, history: Tensor | None) -> Tensor:
    return part.predictor(states, inputs, history)
