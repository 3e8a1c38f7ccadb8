"""Leaky integration with interpretable time constants."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from latentrnn.data import SequenceData
from latentrnn.models.features.gap import median_gap
from latentrnn.models.transitions.recurrence import linear_recurrence
from latentrnn.models.transitions.transition import Transition, check_size
from latentrnn.support.arguments import as_plain, check_flag, is_number


class LeakyIntegrator(Transition):
    """h_t = r_t h_{t-1} + W x_t, r_t = exp(-gap_t / tau), one tau per unit; gap_t is the time since the last step.

    For regular steps r = exp(-dt / tau) is one number per unit. All steps are evaluated in one parallel scan.

    Args:
        hidden_size: number of units.
        tau: time constants in seconds (steps where the data have no `dt`), one number or one per unit; None spreads
            the units evenly in log time from 2 to 50 steps (median gaps of the training data, if they differ).
        learned: whether tau is learned, from there, or fixed.

    Raises:
        ValueError: a size below one, or time constants that are not positive or not one per unit.

    References:
        Jaeger, Lukosevicius, Popovici, Siewert. Optimization and applications of echo state networks with
        leaky-integrator neurons. 2007.
    """

    timed = True
    input_units = "scaled"

    def __init__(self, hidden_size: int, tau: float | Sequence[float] | None = None, *, learned: bool = True) -> None:
        super().__init__()
        self.hidden_size = self.state_size = check_size("LeakyIntegrator", "hidden_size", hidden_size)
        self.tau = check_times("LeakyIntegrator", tau, self.hidden_size)
        self.learned = check_flag("LeakyIntegrator", "learned", learned)

    def build(self, input_size: int) -> None:
        self.input_weight = nn.Parameter(torch.empty(self.hidden_size, input_size - 1))
        start = torch.empty(self.hidden_size)
        if self.learned:
            self.log_time_constant = nn.Parameter(start)
        else:
            self.register_buffer("log_time_constant", start)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Return to the starting time constants; draw weights from torch's global generator."""
        with torch.no_grad():
            self.input_weight.normal_(0.0, self.input_weight.shape[1] ** -0.5)
            if self.tau is None:
                self._spread(1.0 if self.dt is None else self.dt)
            else:
                tau = torch.as_tensor(self.tau, dtype=torch.float64)
                self.log_time_constant.copy_(tau.log().expand(self.hidden_size))

    def initialise(self, data: SequenceData) -> None:
        """Spread the time constants over the gaps that irregular steps have."""
        gap = median_gap(data)
        if self.tau is None and gap is not None:
            self._spread(gap)

    def _spread(self, unit: float) -> None:
        with torch.no_grad():
            start = unit * torch.logspace(0, 1, self.hidden_size, base=25.0, dtype=torch.float64) * 2
            self.log_time_constant.copy_(start.log())

    @property
    def time_constant(self) -> Tensor:
        """tau, (hidden_size,), as it is now: in seconds with `dt` or times, otherwise in steps."""
        return self.log_time_constant.exp().detach()

    def _retention(self, inputs: Tensor) -> Tensor:
        return torch.exp(-inputs[..., :1] / self.log_time_constant.exp())

    def step(self, state: Tensor, inputs: Tensor) -> Tensor:
        retention = self.gate("retention", self._retention(inputs))
        return retention * state + F.linear(inputs[..., 1:], self.input_weight)

    def scan(self, inputs: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        if self._handler is not None:
            return super().scan(inputs, state)
        driven = F.linear(inputs[..., 1:], self.input_weight)
        states = linear_recurrence(self._retention(inputs), driven, state)
        return states, states[..., -1, :]


def check_times(owner: str, value: float | Sequence[float] | None, size: int) -> float | list[float] | None:
    """Return time constants as a number or a list of them.

    Raises:
        ValueError: one is not positive and finite, or they are neither one nor `size`.
    """
    if value is None:
        return None
    given = as_plain(value)
    times = given if isinstance(given, list | tuple) else [given]
    wrong = times is given and len(times) != size
    if wrong or not all(is_number(time) and 0 < time < math.inf for time in times):
        raise ValueError(f"{owner}: tau must be a positive number or {size} of them, one per unit; found {value!r}")
    return [float(time) for time in times] if times is given else float(given)
