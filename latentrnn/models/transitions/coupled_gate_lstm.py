"""An LSTM whose input gate is what its forget gate leaves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from latentrnn.models.transitions.projected_input import ProjectedInputTransition
from latentrnn.support.arguments import check_size


class CoupledGateLSTM(ProjectedInputTransition):
    """Coupled gates, i_t = 1 - f_t: the cell is an exponential moving average in [0, 1] with a learned, moving rate.

        f_t, g_t, o_t = sigmoid(W a_t + U h_{t-1} + b), one block of weights each
        c_t = f_t * c_{t-1} + (1 - f_t) * g_t
        h_t = o_t * c_t

    The state is [h, logit(c)], so that every real starting state is a cell in [0, 1], zero its middle; `cell` returns
    c. Recorded gates: "forget" f_t, "candidate" g_t and "output" o_t.

    Args:
        hidden_size: number of hidden units.

    References:
        Greff, Srivastava, Koutnik, Steunebrink, Schmidhuber. LSTM: a search space odyssey. 2017.
    """

    input_units = "standard"

    def __init__(self, hidden_size: int, **shared: Any) -> None:
        super().__init__(**shared)
        self.hidden_size = check_size("CoupledGateLSTM", "hidden_size", hidden_size)
        self.state_size = 2 * self.hidden_size

    def build(self, input_size: int) -> None:
        self.input_map = nn.Linear(input_size, 3 * self.hidden_size)
        self.recurrent_map = nn.Linear(self.hidden_size, 3 * self.hidden_size, bias=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Start with forget gates mostly open: a bias of one."""
        nn.init.ones_(self.input_map.bias[: self.hidden_size])

    def output(self, state: Tensor) -> Tensor:
        return state[..., : self.hidden_size]

    def cell(self, state: Tensor) -> Tensor:
        """Return c, (..., hidden_size), in [0, 1], of a state (..., state_size)."""
        return torch.sigmoid(state[..., self.hidden_size :])

    def named_states(self, state: Tensor) -> dict[str, Tensor]:
        return {"hidden": self.output(state), "cell": self.cell(state)}

    def kept_share(self, gates: Mapping[str, Tensor]) -> Tensor:
        return gates["forget"]

    def project_inputs(self, inputs: Tensor) -> Tensor:
        return self.input_map(inputs)

    def advance(self, state: Tensor, projected: Tensor) -> Tensor:
        f, g, o = torch.sigmoid(projected + self.recurrent_map(self.output(state))).chunk(3, -1)
        forget, candidate = self.gate("forget", f), self.gate("candidate", g)
        cell = torch.lerp(candidate, self.cell(state), forget)
        return torch.cat([self.gate("output", o) * cell, torch.logit(cell, torch.finfo(cell.dtype).eps)], -1)
