"""Damped oscillators side by side: the linear recurrence for very long sequences."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from latentrnn.models.parameters.parameter_spec import ParameterSpec
from latentrnn.models.transitions.recurrence import linear_recurrence
from latentrnn.models.transitions.transition import Transition
from latentrnn.support.arguments import check_size


class DiagonalLinear(Transition):
    """x_t = lambda * x_{t-1} + B a_t + b, diagonal and complex, lambda = exp(-1 / tau + i omega), |lambda| < 1.

    Any stable linear recurrence is one of these in a suitable basis. The state is [real parts, imaginary parts], and
    all steps are one parallel scan.

    Args:
        hidden_size: dimension of the state, two for each oscillator.

    Raises:
        ValueError: a size that is not positive and even.

    References:
        Orvieto, Smith, Gu, Fernando, Gulcehre, Pascanu, De. Resurrecting recurrent neural networks for long
        sequences. 2023.
    """

    declared: ClassVar = {
        "time_constant": ParameterSpec.positive("log_time_constant", unit="steps", dims=("oscillator",)),
        "frequency": ParameterSpec("frequency", unit="radians per step", dims=("oscillator",)),
    }

    is_network = False
    input_units = "standard"

    def __init__(self, hidden_size: int, **shared: Any) -> None:
        super().__init__(**shared)
        self.hidden_size = self.state_size = check_size("DiagonalLinear", "hidden_size", hidden_size)
        if hidden_size % 2:
            raise ValueError(f"DiagonalLinear: hidden_size must be even, two per oscillator; found {hidden_size}")

    def build(self, input_size: int) -> None:
        self.map = nn.Linear(input_size, self.hidden_size)
        self.log_time_constant = nn.Parameter(torch.empty(self.hidden_size // 2))
        self.frequency = nn.Parameter(torch.empty(self.hidden_size // 2))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Spread time constants evenly in log time from 2 to 100 steps; draw frequencies below 1/20 per step."""
        with torch.no_grad():
            self.log_time_constant.copy_(torch.linspace(math.log(2.0), math.log(100.0), self.hidden_size // 2))
            self.frequency.uniform_(0.0, math.pi / 10)

    @property
    def time_constant(self) -> Tensor:
        """tau of each oscillator, (hidden_size / 2,), in steps; `frequency` is omega, in radians per step."""
        return self.log_time_constant.exp().detach()

    def step(self, state: Tensor, inputs: Tensor) -> Tensor:
        real, imaginary = state.chunk(2, -1)
        decay = torch.exp(-1 / self.log_time_constant.exp())
        cosine, sine = decay * self.frequency.cos(), decay * self.frequency.sin()
        turned = torch.cat([cosine * real - sine * imaginary, sine * real + cosine * imaginary], -1)
        return turned + self.map(inputs)

    def scan(self, inputs: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        projected, start = (torch.complex(*part.chunk(2, -1)) for part in (self.map(inputs), state))
        turn = torch.polar(torch.exp(-1 / self.log_time_constant.exp()), self.frequency)
        found = linear_recurrence(turn, projected, start)
        states = torch.cat([found.real, found.imag], -1)
        return states, states[..., -1, :]
