"""Wide heads: the density of a long stretch of many channels, some steps at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints
from torch.utils.checkpoint import checkpoint

from latentrnn.models.observations import HeadInputs


class ChunkedDensity(TorchDistribution):
    """The distribution of a head whose steps are independent given the states, scored in chunks of time.

    What a chunk needs of memory on the way to its log-density is freed at once and, for the gradient, computed again
    in the backward pass, one chunk at a time: memory is that of a chunk, for a forward pass more.

    Args:
        head: `(states, inputs, history) -> distribution`.
        states: what the head's readout sees, at its clock, (..., time, hidden_size).
        inputs: what else it needs.
        history: features of its own past, (..., time, feature), or None.
        steps: of a chunk.
        event_shape: (time, channel).

    References:
        Chen, Xu, Zhang, Guestrin. Training deep nets with sublinear memory cost. 2016.
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}

    def __init__(
        self,
        head: Callable[..., dist.Distribution],
        states: Tensor,
        inputs: HeadInputs,
        history: Tensor | None,
        steps: int,
        event_shape: torch.Size,
        batch_shape: torch.Size | None = None,
    ) -> None:
        self.head, self.states, self.inputs, self.history, self.steps = head, states, inputs, history, steps
        if batch_shape is None:
            with torch.no_grad():  # of one step: samples of parameters may have axes that the states have not
                past = None if history is None else history[..., :1, :]
                batch_shape = head(states[..., :1, :], inputs.at(0), past).batch_shape
        super().__init__(batch_shape, event_shape, validate_args=False)

    @constraints.dependent_property(is_discrete=False, event_dim=2)
    def support(self) -> Any:
        return self.whole().support

    def expand(self, batch_shape: torch.Size, _instance: None = None) -> ChunkedDensity:
        return ChunkedDensity(
            self.head, self.states, self.inputs, self.history, self.steps, self.event_shape, torch.Size(batch_shape)
        )

    def whole(self) -> dist.Distribution:
        """Return the same distribution in one piece."""
        return self.head(self.states, self.inputs, self.history)

    def sample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008
        return self.whole().expand(self.batch_shape).sample(sample_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        # split, not sliced: the backward of a slice writes zeros for all of the tensor
        states, values = self.states.split(self.steps, -2), value.split(self.steps, -2)
        past = [None] * len(states) if self.history is None else self.history.split(self.steps, -2)
        total: Tensor | None = None
        inputs = self.inputs.split(self.steps, value)
        for states_i, inputs_i, past_i, value_i in zip(states, inputs, past, values, strict=True):
            chunk = (states_i, inputs_i, past_i, value_i if inputs_i.constant is None else inputs_i.constant[0])
            part = self._again(*chunk) if torch.is_grad_enabled() else self.chunk_log_prob(*chunk)
            total = part if total is None else total + part
        assert total is not None
        return total.expand(torch.broadcast_shapes(total.shape, self.batch_shape))

    def chunk_log_prob(self, states: Tensor, inputs: HeadInputs, history: Tensor | None, value: Tensor) -> Tensor:
        """Return the log-density of one chunk of time."""
        return self.head(states, inputs, history).log_prob(value)

    def _again(self, *chunk: Any) -> Tensor:
        # densities draw no random numbers, whose state need not be kept
        found: Tensor = checkpoint(self.chunk_log_prob, *chunk, use_reentrant=False, preserve_rng_state=False)
        return found
