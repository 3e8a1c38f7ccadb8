"""A state that moves in continuous time."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from latentrnn.models.transitions.thermodynamic import check_time_scale
from latentrnn.models.transitions.transition import Transition, check_size

ADAPTIVE = ("dopri5", "dopri8", "bosh3", "adaptive_heun")
FIXED = ("euler", "midpoint", "rk4")


class NeuralODE(Transition):
    """dh / dt = f(h, a_t) / time_scale between the step before and step t; h_t is where that leads.

        f(h, a) = W_2 tanh(W_1 [h, a] + b_1) + b_2,  or, with `width=None`, the linear field A h + B a + b

    Steps may lie anywhere in time (`SequenceData.from_arrays(times=...)`). Each gap is solved on a time axis of its
    own from 0 to 1, so that sequences with different gaps are solved together. `evaluations` counts how often the
    field was evaluated since it was last set to zero.

    An adaptive solver chooses its steps for the worst of all sequences in a batch: results depend on the batch, within
    the tolerances. A solver with fixed steps does not, and is faster on a GPU.

    Args:
        hidden_size: dimension of the state.
        width: hidden units of the field; None for a linear field.
        time_scale: seconds (steps where the data have no `dt`) in which the state moves by about f; None is ten steps.
        method: "dopri5", "dopri8", "bosh3" or "adaptive_heun" (adaptive); "euler", "midpoint" or "rk4" (fixed).
        rtol, atol: tolerances of an adaptive method.
        substeps: steps per gap of a fixed method.

    Raises:
        ValueError: a size below one, an unknown method, or a scale or tolerance that is not positive.
        ImportError: when a model is put together and torchdiffeq is not installed.

    References:
        Chen, Rubanova, Bettencourt, Duvenaud. Neural ordinary differential equations. 2018.
        Rubanova, Chen, Duvenaud. Latent ODEs for irregularly-sampled time series. 2019.
    """

    timed = True

    def __init__(
        self,
        hidden_size: int,
        width: int | None = 64,
        time_scale: float | None = None,
        *,
        method: str = "dopri5",
        rtol: float = 1e-5,
        atol: float = 1e-6,
        substeps: int = 2,
    ) -> None:
        super().__init__()
        self.hidden_size = self.state_size = check_size("NeuralODE", "hidden_size", hidden_size)
        self.width = None if width is None else check_size("NeuralODE", "width", width)
        self.time_scale = check_time_scale("NeuralODE", time_scale)
        if method not in ADAPTIVE + FIXED:
            raise ValueError(f"NeuralODE: method must be one of {list(ADAPTIVE + FIXED)}; found {method!r}")
        for name, value in (("rtol", rtol), ("atol", atol)):
            if not value > 0:
                raise ValueError(f"NeuralODE: {name} must be positive; found {value!r}")
        self.method, self.rtol, self.atol = method, rtol, atol
        self.substeps = check_size("NeuralODE", "substeps", substeps)
        self.evaluations = 0

    def build(self, input_size: int) -> None:
        _solver()
        inputs, first = input_size - 1, self.width or self.hidden_size
        self.state_map = nn.Linear(self.hidden_size, first, bias=False)
        self.input_map = nn.Linear(inputs, first)
        if self.width is not None:
            self.out_map = nn.Linear(self.width, self.hidden_size)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Start a linear field as a decay to rest: A is minus the identity, and small noise."""
        if self.width is None:
            with torch.no_grad():
                noise = 0.1 * torch.randn_like(self.state_map.weight) / self.hidden_size**0.5
                self.state_map.weight.copy_(noise - torch.eye(self.hidden_size))

    def field(self, state: Tensor, inputs: Tensor) -> Tensor:
        """Return f, (..., hidden_size), of states and of inputs without the gap, (..., input_size - 1)."""
        return self._field(state, self.input_map(inputs))

    def _field(self, state: Tensor, driven: Tensor) -> Tensor:
        self.evaluations += 1
        units = self.state_map(state) + driven
        return units if self.width is None else self.out_map(torch.tanh(units))

    def step(self, state: Tensor, inputs: Tensor) -> Tensor:
        unit = (10.0 * (1.0 if self.dt is None else self.dt)) if self.time_scale is None else self.time_scale
        gap, driven = inputs[..., :1] / unit, self.input_map(inputs[..., 1:])
        ends = torch.tensor([0.0, 1.0], dtype=state.dtype, device=state.device)
        if self.method in FIXED:
            options: dict[str, Any] = {"options": {"step_size": 1 / self.substeps}}
        else:
            # torchdiffeq steps past the end and reads it off a polynomial of degree 4, by which dopri8 and bosh3 (whose
            # midpoint is of second order) miss their tolerances up to a hundredfold; so it is told to stop there
            options = {"rtol": self.rtol, "atol": self.atol, "options": {"step_t": ends[1:]}}
        path = _solver()(lambda _, h: gap * self._field(h, driven), state, ends, method=self.method, **options)
        return path[-1]


def _solver() -> Any:
    try:
        from torchdiffeq import odeint
    except ImportError as error:
        raise ImportError('NeuralODE needs torchdiffeq: pip install "latentrnn[ode]"') from error
    return odeint
