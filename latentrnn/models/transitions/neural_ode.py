"""A state that moves in continuous time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from latentrnn.models.transitions.continuous_time import TimeScaled, check_time_scale
from latentrnn.support.arguments import check_choice, check_number, check_size
from latentrnn.support.private_symbols import within_transform

ADAPTIVE = ("dopri5", "dopri8", "bosh3", "adaptive_heun")
FIXED = {"euler": 1, "midpoint": 2, "rk4": 4}  # evaluations of the field in a step
TRANSFORMED_SUBSTEPS = 32  # of "rk4" in the place of an adaptive method, within `torch.func`


class NeuralODE(TimeScaled):
    """dh / dt = f(h, a_t) / time_scale between the step before and step t; h_t is where that leads.

        f(h, a) = W_2 tanh(W_1 [h, a] + b_1) + b_2,  or, with `width=None`, the linear field A h + B a + b

    Steps may lie anywhere in time (`SequenceData.from_arrays(times=...)`). Each gap is solved on a time axis of its
    own from 0 to 1, so that sequences with different gaps are solved together. `evaluations` counts how often the
    field was evaluated since it was last set to zero.

    An adaptive solver chooses its steps for the worst of all sequences in a batch: results depend on the batch, within
    the tolerances. A solver with fixed steps does not, and is faster on a GPU. Within transforms of `torch.func`
    (`vmap`, `jacrev`), whose control flow cannot depend on the data, an adaptive method is replaced by 32 fixed steps
    of "rk4": for a field that changes little within a thirtieth of a gap these are exact to about 1e-6.

    Args:
        hidden_size: dimension of the state.
        width: hidden units of the field; None for a linear field.
        time_scale: seconds (steps where the data have no `dt`) in which the state moves by about f; None is ten steps
            (ten median gaps of the training data, where steps are irregular).
        method: "dopri5", "dopri8", "bosh3" or "adaptive_heun" (adaptive); "euler", "midpoint" or "rk4" (fixed).
        rtol, atol: tolerances of an adaptive method.
        substeps: steps per gap of a fixed method.

    Raises:
        ValueError: a size below one, an unknown method, or a scale or tolerance that is not positive.
        ImportError: when a model is put together with an adaptive method and torchdiffeq is not installed.

    References:
        Chen, Rubanova, Bettencourt, Duvenaud. Neural ordinary differential equations. 2018.
        Rubanova, Chen, Duvenaud. Latent ODEs for irregularly-sampled time series. 2019.
    """

    input_units = "standard"

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
        **shared: Any,
    ) -> None:
        super().__init__(**shared)
        self.hidden_size = self.state_size = check_size("NeuralODE", "hidden_size", hidden_size)
        self.width = None if width is None else check_size("NeuralODE", "width", width)
        self.is_network = self.width is not None
        self.time_scale = check_time_scale("NeuralODE", time_scale)
        self.method = check_choice("NeuralODE", "method", method, (*ADAPTIVE, *FIXED))
        self.rtol = check_number("NeuralODE", "rtol", rtol, above=0)
        self.atol = check_number("NeuralODE", "atol", atol, above=0)
        self.substeps = check_size("NeuralODE", "substeps", substeps)
        self.evaluations = 0

    def build(self, input_size: int) -> None:
        if self.method in ADAPTIVE:
            _solver()
        inputs, first = input_size - 1, self.width or self.hidden_size
        self.state_map = nn.Linear(self.hidden_size, first, bias=False)
        self.input_map = nn.Linear(inputs, first)
        if self.width is not None:
            self.out_map = nn.Linear(self.width, self.hidden_size)
        self.build_time_scale()
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

    def _field(self, state: Tensor, projected: Tensor) -> Tensor:
        self.evaluations += 1
        units = self.state_map(state) + projected
        return units if self.width is None else self.out_map(torch.tanh(units))

    @property
    def unrolls(self) -> bool:
        return super().unrolls and self.method in FIXED  # others look at the state to choose their steps

    def scan(self, inputs: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        before = self.evaluations
        found = super().scan(inputs, state)
        if self.method in FIXED:  # operations that are repeated are not counted on the way
            self.evaluations = before + inputs.shape[-2] * self.substeps * FIXED[self.method]
        return found

    def step(self, state: Tensor, inputs: Tensor) -> Tensor:
        gap, projected = inputs[..., :1] / self.time_unit(), self.input_map(inputs[..., 1:])

        def slope(h: Tensor) -> Tensor:
            return gap * self._field(h, projected)

        if self.method in FIXED:
            return _fixed_steps(slope, state, self.method, self.substeps)
        if within_transform(state, inputs):
            return _fixed_steps(slope, state, "rk4", TRANSFORMED_SUBSTEPS)
        ends = torch.tensor([0.0, 1.0], dtype=state.dtype, device=state.device)
        # torchdiffeq steps past the end and reads it off a polynomial of degree 4, by which dopri8 and bosh3 (whose
        # midpoint is of second order) miss their tolerances up to a hundredfold; so it is told to stop there
        options = {"step_t": ends[1:]}
        path = _solver()(
            lambda _, h: slope(h), state, ends, method=self.method, rtol=self.rtol, atol=self.atol, options=options
        )
        return path[-1]


def _fixed_steps(slope: Callable[[Tensor], Tensor], state: Tensor, method: str, substeps: int) -> Tensor:
    """Return h(1) of dh / dt = slope(h), h(0) = state, by equal steps; "rk4" is Kutta's 3/8 rule."""
    size = 1 / substeps
    for _ in range(substeps):
        first = slope(state)
        if method == "euler":
            change = first
        elif method == "midpoint":
            change = slope(state + 0.5 * size * first)
        else:
            second = slope(state + size / 3 * first)
            third = slope(state + size * (second - first / 3))
            fourth = slope(state + size * (first - second + third))
            change = (first + 3 * (second + third) + fourth) / 8
        state = state + size * change
    return state


def _solver() -> Any:
    try:
        from torchdiffeq import odeint
    except ImportError as error:
        raise ImportError('NeuralODE needs torchdiffeq: pip install "latentrnn[ode]"') from error
    return odeint
