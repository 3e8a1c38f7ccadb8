"""A gated unit whose gates do not look at the state, so that long sequences need no loop."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from latentrnn.models.transitions.recurrence import linear_recurrence
from latentrnn.models.transitions.transition import Transition
from latentrnn.support.arguments import check_size


class MinGRU(Transition):
    """u_t = sigmoid(W_u a_t + b_u);  n_t = W_n a_t + b_n;  h_t = (1 - u_t) * h_{t-1} + u_t * n_t.

    Gates and candidates depend on the input alone, so that all steps are one parallel scan. Nonlinearity in time
    comes from readouts, encoders and feedback, not from the cell. Recorded gates: "update" u_t and "candidate" n_t.

    Args:
        hidden_size: number of hidden units.

    References:
        Feng, Tung, Ahmed, Bengio, Hajimirsadeghi. Were RNNs all we needed? 2024.
    """

    input_units = "standard"

    def __init__(self, hidden_size: int, **shared: Any) -> None:
        super().__init__(**shared)
        self.hidden_size = self.state_size = check_size("MinGRU", "hidden_size", hidden_size)

    def build(self, input_size: int) -> None:
        self.map = nn.Linear(input_size, 2 * self.hidden_size)

    def kept_share(self, gates: Mapping[str, Tensor]) -> Tensor:
        return 1 - gates["update"]

    def step(self, state: Tensor, inputs: Tensor) -> Tensor:
        update, candidate = self.map(inputs).chunk(2, -1)
        update, candidate = self.gate("update", torch.sigmoid(update)), self.gate("candidate", candidate)
        return (1 - update) * state + update * candidate

    def scan(self, inputs: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        if self._handler is not None:
            return super().scan(inputs, state)
        update, candidate = self.map(inputs).chunk(2, -1)
        states = linear_recurrence(torch.sigmoid(-update), torch.sigmoid(update) * candidate, state)
        return states, states[..., -1, :]
