"""The model and guide that an online filter follows sequences with, ready to be gone through step by step."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor

from latentrnn.inference.guides.guide import Guide
from latentrnn.inference.online.memory import Now
from latentrnn.inference.online.parameter_draws import with_draws
from latentrnn.inference.online.streamable import heads_of_steps
from latentrnn.models.features.gap import gaps
from latentrnn.models.observations import HeadInputs, Observation
from latentrnn.models.rollout.double_precision import inputs_to_double, to_double
from latentrnn.models.state_space import LatentRNN
from latentrnn.models.transitions.transition import concatenate_channels


class Followed:
    """A model, under all draws of its parameters, and a guide, with what every step asks of them.

    Args:
        model, guide: copies that are the filter's own.
        draws: of the parameters, by site; {} where none are carried along.
        shape: (draw, particle, stream).
        guided: whether the guide is asked.
    """

    def __init__(
        self, model: LatentRNN, guide: Guide, draws: Mapping[str, Tensor], shape: tuple[int, int, int], guided: bool
    ) -> None:
        self.guide, self.draws, self.shape, self.guided = guide, draws, shape, guided
        self.clocks = {name: head.head.clock for name, head in model.observations.items()}
        self.heads = heads_of_steps(model)
        self.model = model
        if draws:
            self.model = with_draws(model, draws)
            self.heads = {name: self.model.observations[name] for name in self.heads}
        # densities are sums over channels, of counts that may be large: single precision would be off by nats
        self.double_heads = {name: copy.deepcopy(head).double() for name, head in self.heads.items()}
        self.feedback_heads = [name for name, head in self.heads.items() if head.feedback is not None]

    def heads_due(self, step: int) -> list[str]:
        """Return the heads of which a frame is complete at a step."""
        return [name for name in self.heads if (step + 1) % self.clocks[name] == 0]

    def now(self, data: Any, histories: Mapping[str, Tensor]) -> Now:
        """Return what the present step is told, given the last observations of heads that feed back.

        Args:
            data: the last few steps.
            histories: encoded, (..., step, channel), leading axes those of the particles where they differ.
        """
        gap = None if data.times is None else gaps(data)
        fed_back = {n: self.heads[n].feedback.at(window) for n, window in histories.items()}
        into = [fed_back[n] for n in self.feedback_heads if "transition" in self.heads[n].feedback.into]
        inputs = self.model.transition_inputs(data)[..., -1, :]
        inputs = (concatenate_channels(inputs, *into) if into else inputs).expand(*self.shape, -1)
        return Now(data, inputs, None if gap is None else gap[:, -1], fed_back)

    def with_newest(self, histories: Mapping[str, Tensor], data: Any) -> dict[str, Tensor]:
        """Return histories that have taken in what was observed at the present step."""
        found = {}
        for name, window in histories.items():
            new = self.heads[name].encode_history(data.observations[name][:, -1:], data.masks[name][:, -1:])
            found[name] = torch.cat([window[:, 1:], new], 1)
        return found

    def distribution(self, name: str, now: Now, hidden: Tensor, memory: Tensor | None) -> dist.Distribution:
        """Return a head's distribution at the present frame, in double precision."""
        return self.given(name, self.inputs(name, now, memory), now, hidden)

    def inputs(self, name: str, now: Now, memory: Tensor | None) -> HeadInputs:
        """Return what a head needs of the present frame besides the state."""
        found: HeadInputs = self.heads[name].inputs(now.data).at(now.data.num_steps - 1, memory)
        return found

    def given(self, name: str, inputs: HeadInputs, now: Now, hidden: Tensor) -> dist.Distribution:
        """Return a head's distribution given the inputs of the present frame."""
        return in_double(self.double_heads[name], hidden, inputs, self.history(name, now))

    def history(self, name: str, now: Now) -> Tensor | None:
        """Return what a head feeds back to itself at the present frame; None where it does not."""
        return now.fed_back[name].unsqueeze(-2) if name in now.fed_back else None

    def variational_parameters(self, data: Any, encoded: Tensor | None) -> tuple[dict[str, Tensor], Tensor | None]:
        """Return those of the present step, and what the encoder remembers once it has taken that in."""
        assert self.guide.encoder is not None
        encoding, encoded = self.guide.encoder.advance(data, encoded)
        return self.guide.local.variational_parameters(encoding, data), encoded


def in_double(head: Observation, hidden: Tensor, inputs: HeadInputs, history: Tensor | None) -> dist.Distribution:
    """Return the distribution, at one frame, of a head that is in double precision."""
    found: dist.Distribution = head(to_double(hidden.unsqueeze(-2)), inputs_to_double(inputs), to_double(history))
    return found


@contextmanager
def random_numbers_from(state: Tensor) -> Iterator[None]:
    """Let torch's generator go on from a state within the block; it is as before after it."""
    before = torch.get_rng_state()
    torch.set_rng_state(state)
    try:
        yield
    finally:
        torch.set_rng_state(before)
