"""Internal variables that obey the second law whatever their weights."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from latentrnn.models.transitions.continuous_time import TimeScaled, check_time_scale
from latentrnn.models.transitions.projected_input import ProjectedInputTransition
from latentrnn.support.arguments import check_size


class ThermodynamicCell(TimeScaled, ProjectedInputTransition):
    """Internal variables alpha descend a free energy psi at a rate that a convex dissipation potential phi allows.

        psi(alpha, a) = k . alpha^2 / 2 + v . log cosh(V alpha + M a + d) - alpha . (E a)
        force           A = -d psi / d alpha
        phi(A)        = e . A^2 / 2 + c . [log cosh(U A + b) - log cosh(b) - tanh(b) (U A)],  e, c, k >= 0
        rate          d alpha / dt = d phi / d A,   alpha_t = alpha_{t-1} + (gap_t / time_scale) d phi / d A
        dissipation   D = A . d phi / d A >= 0

    phi is an input-convex network that is zero, and lowest, at A = 0, so every term of D is a product of two numbers
    of one sign: D cannot be negative, trained or not, not even by rounding. The force is taken before the step
    (explicit Euler): D is the rate at which its step dissipates. Recorded: "force" A.

    This says nothing about a head: a stress that is read out linearly is no derivative of psi, and may create energy
    over a closed cycle of strain (9 of 20 untrained cells). Read it out by `ConjugateForce`.

    Args:
        hidden_size: number of internal variables.
        width: hidden units of each potential.
        time_scale: seconds (steps where the data have no `dt`) that the rates are measured in; None is ten steps (ten
            median gaps of the training data, where steps are irregular).

    Raises:
        ValueError: a size below one or a time scale that is not positive.

    References:
        Halphen, Nguyen. Sur les materiaux standard generalises. 1975.
        Amos, Xu, Kolter. Input convex neural networks. 2017.
        Masi, Stefanou, Vannucci, Maffi-Berthier. Thermodynamics-based artificial neural networks for constitutive
        modeling. 2021.
    """

    contents = ("force",)
    is_network = False  # potentials, whose shape decay would flatten
    input_units = "scaled"  # without an input, rest

    def __init__(self, hidden_size: int, width: int = 32, time_scale: float | None = None, **shared: Any) -> None:
        super().__init__(**shared)
        self.hidden_size = self.state_size = check_size("ThermodynamicCell", "hidden_size", hidden_size)
        self.width = check_size("ThermodynamicCell", "width", width)
        self.time_scale = check_time_scale("ThermodynamicCell", time_scale)

    def build(self, input_size: int) -> None:
        size, width, inputs = self.hidden_size, self.width, input_size - 1
        self.log_stiffness = nn.Parameter(torch.empty(size))  # k
        self.energy_scale = nn.Parameter(torch.empty(width))  # v
        self.energy_weight = nn.Parameter(torch.empty(width, size))  # V
        self.energy_map = nn.Linear(inputs, width)  # M, d
        self.drive_weight = nn.Parameter(torch.empty(size, inputs))  # E
        self.log_mobility = nn.Parameter(torch.empty(size))  # e
        self.log_dissipation_scale = nn.Parameter(torch.empty(width))  # c
        self.dissipation_weight = nn.Parameter(torch.empty(width, size))  # U
        self.dissipation_bias = nn.Parameter(torch.empty(width))  # b
        self.build_time_scale()
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Start as a leaky integrator with weak nonlinear parts, drawn from torch's global generator."""
        with torch.no_grad():
            for log_positive in (self.log_stiffness, self.log_mobility):
                log_positive.zero_()
            self.energy_scale.normal_(0.0, 0.3 / self.width**0.5)
            self.log_dissipation_scale.fill_(math.log(0.3 / self.width))
            for weight in (self.energy_weight, self.dissipation_weight):
                weight.normal_(0.0, self.hidden_size**-0.5)
            self.drive_weight.normal_(0.0, max(self.drive_weight.shape[1], 1) ** -0.5)
            self.dissipation_bias.normal_(0.0, 0.5)

    def energy(self, state: Tensor, inputs: Tensor) -> Tensor:
        """Return psi, (...), of states (..., hidden_size) under inputs (..., input_size)."""
        projected = self.project_inputs(inputs)
        units = F.linear(state, self.energy_weight) + projected[..., : self.width]
        quadratic = 0.5 * (self.log_stiffness.exp() * state**2).sum(-1)
        pulled = (state * projected[..., self.width : -1]).sum(-1)
        return quadratic + (self.energy_scale * log_cosh(units)).sum(-1) - pulled

    def potential(self, force: Tensor) -> Tensor:
        """Return phi, (...), of forces (..., hidden_size): convex, zero at zero."""
        along, bias = F.linear(force, self.dissipation_weight), self.dissipation_bias
        ridges = log_cosh(along + bias) - log_cosh(bias) - torch.tanh(bias) * along
        quadratic = 0.5 * (self.log_mobility.exp() * force**2).sum(-1)
        return quadratic + (self.log_dissipation_scale.exp() * ridges).sum(-1)

    def dissipation(self, state: Tensor, inputs: Tensor) -> Tensor:
        """Return D = A . d phi / d A of single steps, per time scale.

        Args:
            state: alpha_{t-1}, (..., hidden_size).
            inputs: a_t, (..., input_size), as the transition is given them, the time gap first.

        Returns:
            (...), never negative.
        """
        force = self._force(state, self.project_inputs(inputs))
        along = F.linear(force, self.dissipation_weight)
        ridges = self.log_dissipation_scale.exp() * along * self._slope(along)
        return (self.log_mobility.exp() * force**2).sum(-1) + ridges.sum(-1)

    def conjugate_force(self, state: Tensor, inputs: Tensor) -> Tensor:
        """Return d psi / d a, (..., input), of states (..., hidden_size) and inputs (..., input), less the time gap."""
        units = F.linear(state, self.energy_weight) + self.energy_map(inputs)
        return (self.energy_scale * torch.tanh(units)) @ self.energy_map.weight - state @ self.drive_weight

    def project_inputs(self, inputs: Tensor) -> Tensor:
        gap, rest = inputs[..., :1] / self.time_unit(), inputs[..., 1:]
        return torch.cat([self.energy_map(rest), F.linear(rest, self.drive_weight), gap], -1)

    def advance(self, state: Tensor, projected: Tensor) -> Tensor:
        force = self.gate("force", self._force(state, projected))
        along = F.linear(force, self.dissipation_weight)
        slopes = self.log_dissipation_scale.exp() * self._slope(along)
        rate = self.log_mobility.exp() * force + slopes @ self.dissipation_weight
        return state + projected[..., -1:] * rate

    def _force(self, state: Tensor, projected: Tensor) -> Tensor:
        slopes = self.energy_scale * torch.tanh(F.linear(state, self.energy_weight) + projected[..., : self.width])
        return projected[..., self.width : -1] - self.log_stiffness.exp() * state - slopes @ self.energy_weight

    def _slope(self, along: Tensor) -> Tensor:
        # tanh(p + b) - tanh(b), in a form whose sign is that of p whatever the rounding
        bias = self.dissipation_bias
        return torch.tanh(along) * (1 - torch.tanh(along + bias) * torch.tanh(bias))


def log_cosh(x: Tensor) -> Tensor:
    """Return log cosh x without overflow."""
    return x.abs() + F.softplus(-2 * x.abs()) - math.log(2.0)
