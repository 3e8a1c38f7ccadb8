"""Leaky integration with interpretable time constants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from latentrnn.models.parameters.parameter_spec import ParameterSpec
from latentrnn.models.transitions.continuous_time import Fading, check_times
from latentrnn.models.transitions.recurrence import linear_recurrence
from latentrnn.support.arguments import check_flag, check_size


class LeakyIntegrator(Fading):
    """h_t = r_t h_{t-1} + W x_t, r_t = exp(-gap_t / tau), one tau per unit; gap_t is the time since the last step.

    For regular steps r = exp(-dt / tau) is one number per unit. All steps are evaluated in one parallel scan. Recorded
    gate: "retention" r_t.

    Args:
        hidden_size: number of units.
        tau: time constants in seconds (steps where the data have no `dt`), one number or one per unit; None spreads
            the units evenly in log time from 2 to 50 steps (median gaps of the training data, if they differ).
        learned: whether tau is learned, from there, or fixed.
        average: whether the input has the weight that the past leaves, h_t = r_t h_{t-1} + (1 - r_t) W x_t: an
            exponential moving average of W x, which never leaves the range of W x and of where it started.

    Raises:
        ValueError: a size below one, or time constants that are not positive or not one per unit.

    References:
        Jaeger, Lukosevicius, Popovici, Siewert. Optimization and applications of echo state networks with
        leaky-integrator neurons. 2007.
    """

    declared: ClassVar = {"input_weight": ParameterSpec("input_weight", dims=("unit", "input"))}

    fastest, slowest = 2.0, 50.0
    is_network = False
    input_units = "scaled"

    def __init__(
        self,
        hidden_size: int,
        tau: float | Sequence[float] | None = None,
        *,
        learned: bool = True,
        average: bool = False,
        **shared: Any,
    ) -> None:
        super().__init__(**shared)
        self.hidden_size = self.state_size = check_size("LeakyIntegrator", "hidden_size", hidden_size)
        self.tau = check_times("LeakyIntegrator", tau, self.hidden_size)
        self.learned = check_flag("LeakyIntegrator", "learned", learned)
        self.average = check_flag("LeakyIntegrator", "average", average)

    def build(self, input_size: int) -> None:
        self.input_weight = nn.Parameter(torch.empty(self.hidden_size, input_size - 1))
        self.build_time_constants(self.hidden_size)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Return to the starting time constants; draw weights from torch's global generator."""
        with torch.no_grad():
            self.input_weight.normal_(0.0, self.input_weight.shape[1] ** -0.5)
        self.reset_time_constants()

    def kept_share(self, gates: Mapping[str, Tensor]) -> Tensor:
        return gates["retention"]

    def _retention(self, inputs: Tensor) -> Tensor:
        return torch.exp(-inputs[..., :1] / self.log_time_constant.exp())

    def _admitted(self, retention: Tensor, inputs: Tensor) -> Tensor:
        projected = F.linear(inputs[..., 1:], self.input_weight)
        return (1 - retention) * projected if self.average else projected

    def step(self, state: Tensor, inputs: Tensor) -> Tensor:
        retention = self.gate("retention", self._retention(inputs))
        return retention * state + self._admitted(retention, inputs)

    def scan(self, inputs: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        if self._handler is not None:
            return super().scan(inputs, state)
        retention = self._retention(inputs)
        states = linear_recurrence(retention, self._admitted(retention, inputs), state)
        return states, states[..., -1, :]
