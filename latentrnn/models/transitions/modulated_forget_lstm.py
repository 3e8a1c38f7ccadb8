"""An LSTM that forgets the more, the stronger its input."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.distributions import constraints
from torch.nn import functional as F

from latentrnn.models.parameters.parameter_spec import ParameterSpec
from latentrnn.models.transitions.projected_input import ProjectedInputTransition
from latentrnn.support.arguments import check_size


class ModulatedForgetLSTM(ProjectedInputTransition):
    """The forget gate reads the strength of the input and nothing else: f_t = sigmoid(alpha - beta |a_t|), beta >= 0.

        i_t, o_t = sigmoid(W a_t + U h_{t-1} + b),  g_t = tanh(W_g a_t + U_g h_{t-1} + b_g)
        c_t = f_t * c_{t-1} + i_t * g_t
        h_t = o_t * tanh(c_t)

    alpha sets each unit's memory at rest; beta, (unit, channel), how strong input shortens it, softplus of a free
    parameter. The state is [h, c]. Recorded gates: "input", "forget", "output" and "candidate".

    Args:
        hidden_size: number of hidden units.

    References:
        Gers, Schmidhuber, Cummins. Learning to forget: continual prediction with LSTM. 2000 (the forget gate).
    """

    declared: ClassVar = {
        "beta": ParameterSpec(
            "raw_beta",
            value=lambda _, kept: F.softplus(kept),
            tensor=lambda _, value: value + torch.log(-torch.expm1(-value)),  # the inverse of softplus
            support=constraints.positive,
            dims=("unit", "input"),
        )
    }
    input_units = "scaled"  # |a_t| counts from zero

    def __init__(self, hidden_size: int, **shared: Any) -> None:
        super().__init__(**shared)
        self.hidden_size = check_size("ModulatedForgetLSTM", "hidden_size", hidden_size)
        self.state_size = 2 * self.hidden_size

    def build(self, input_size: int) -> None:
        self.input_map = nn.Linear(input_size, 3 * self.hidden_size)
        self.recurrent_map = nn.Linear(self.hidden_size, 3 * self.hidden_size, bias=False)
        self.alpha = nn.Parameter(torch.empty(self.hidden_size))
        self.raw_beta = nn.Parameter(torch.empty(self.hidden_size, input_size))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Spread memories at rest from 2 to 50 steps over the units, with a weak modulation."""
        kept = torch.exp(-1 / torch.logspace(math.log10(2), math.log10(50), self.hidden_size))
        with torch.no_grad():
            self.alpha.copy_(torch.logit(kept))
            self.raw_beta.fill_(math.log(math.expm1(0.1)))

    @property
    def beta(self) -> Tensor:
        """How much one unit of |a| lowers the forget gate's logit, (hidden_size, input_size), never negative."""
        return F.softplus(self.raw_beta)

    def output(self, state: Tensor) -> Tensor:
        return state[..., : self.hidden_size]

    def named_states(self, state: Tensor) -> dict[str, Tensor]:
        return {"hidden": self.output(state), "cell": state[..., self.hidden_size :]}

    def kept_share(self, gates: Mapping[str, Tensor]) -> Tensor:
        return gates["forget"]

    def project_inputs(self, inputs: Tensor) -> Tensor:
        return torch.cat([self.input_map(inputs), F.linear(-inputs.abs(), self.beta, self.alpha)], -1)

    def advance(self, state: Tensor, projected: Tensor) -> Tensor:
        hidden, cell = state.chunk(2, -1)
        i, g, o = (projected[..., : -self.hidden_size] + self.recurrent_map(hidden)).chunk(3, -1)
        forget = self.gate("forget", torch.sigmoid(projected[..., -self.hidden_size :]))
        admit, candidate = self.gate("input", torch.sigmoid(i)), self.gate("candidate", torch.tanh(g))
        cell = torch.addcmul(forget * cell, admit, candidate)
        return torch.cat([self.gate("output", torch.sigmoid(o)) * torch.tanh(cell), cell], -1)
