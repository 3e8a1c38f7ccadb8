"""The learned map from the previous state and the present input to the present state."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from latentrnn.models.component import Component


class Transition(Component):
    """h_t = transition(s_{t-1}, a_t).

    The state `s` is one tensor `(..., state_size)` (for an LSTM both hidden and cell state, for stacked layers all
    of them); `output` picks the part that readouts see. A new transition sets `state_size` and `hidden_size` in its
    `__init__`, makes its parameters in `build`, and writes `step`; `scan` comes for free.
    """

    state_size: int
    hidden_size: int

    @abstractmethod
    def build(self, input_size: int) -> None:
        """Create the parameters for inputs of `input_size` channels."""

    @abstractmethod
    def step(self, state: Tensor, inputs: Tensor) -> Tensor:
        """Return the next state.

        Args:
            state: s_{t-1}, (..., state_size).
            inputs: a_t, (..., input_size), with the same leading axes.

        Returns:
            s_t, (..., state_size).
        """

    def output(self, state: Tensor) -> Tensor:
        """Return h_t, (..., hidden_size), of a state (..., state_size)."""
        return state

    def scan(self, inputs: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Apply `step` along time.

        Args:
            inputs: a_{1:T}, (..., time, input_size).
            state: s_0, (..., state_size); its leading axes broadcast against those of `inputs`.

        Returns:
            h_{1:T}, (..., time, hidden_size), and the last state, (..., state_size).
        """
        inputs, state = broadcast_batch(inputs, state)
        outputs = []
        # unbind once: the backward of inputs[..., t, :] would write a whole zero tensor at every step
        for a_t in inputs.unbind(-2):
            state = self.step(state, a_t)
            outputs.append(self.output(state))
        return torch.stack(outputs, -2), state


def broadcast_batch(inputs: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """Expand the leading axes of inputs (..., time, channel) and state (..., size) to their common shape."""
    batch = torch.broadcast_shapes(inputs.shape[:-2], state.shape[:-1])
    return inputs.expand(*batch, *inputs.shape[-2:]), state.expand(*batch, state.shape[-1])


def check_size(owner: str, name: str, value: int) -> int:
    """Return `value`.

    Raises:
        ValueError: it is not a positive integer.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{owner}: {name} must be a positive integer; found {value!r}")
    return value
