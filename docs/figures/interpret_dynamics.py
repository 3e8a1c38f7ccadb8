"""The figure of docs/interpret.md on dynamics: `python docs/figures/interpret_dynamics.py`.

Three systems with known dynamics: two bits held by two units, a ring of states, and the Lorenz system.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import Tensor

import latentrnn as lr
from latentrnn import plotting


class Field(lr.Transition):
    """A transition that knows its equations, and takes no input."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.hidden_size = self.state_size = hidden_size

    def build(self, input_size: int) -> None:
        """Make no parameters."""


class Bits(Field):
    """Every unit holds one bit."""

    def step(self, state: Tensor, inputs: Tensor) -> Tensor:
        return torch.tanh(1.5 * state)


class Ring(Field):
    """Every state on the unit circle stays where it is."""

    def step(self, state: Tensor, inputs: Tensor) -> Tensor:
        squared = state.square().sum(-1, keepdim=True)
        return state + 0.3 * state * (1 - squared) / (1 + squared)


class Lorenz(Field):
    """A step of 10 ms of the Lorenz system, by Runge-Kutta of order four."""

    def step(self, state: Tensor, inputs: Tensor) -> Tensor:
        first = self.slope(state)
        second = self.slope(state + 0.005 * first)
        third = self.slope(state + 0.005 * second)
        return state + 0.01 / 6 * (first + 2 * second + 2 * third + self.slope(state + 0.01 * third))

    def slope(self, state: Tensor) -> Tensor:
        """The field."""
        x, y, z = state.unbind(-1)
        return torch.stack([10 * (y - x), x * (28 - z) - y, x * y - 8 / 3 * z], -1)


def posterior(transition: Field, centre: Sequence[float], steps: int = 40) -> lr.Posterior:
    """A posterior whose sequences start around a centre."""
    data = lr.SequenceData.from_arrays({"y": np.zeros((60, steps, 1))}, dt=0.01, dtype=torch.float64)
    latent, heads = lr.InitialState(transition.state_size), {"y": lr.Gaussian()}
    torch.manual_seed(0)
    model = lr.LatentRNN(data.spec, transition=transition, latent=latent, observations=heads).double()
    with torch.no_grad():
        model.latent.start.map.weight.copy_(torch.eye(transition.state_size))
        model.latent.start.map.bias.copy_(torch.tensor(centre))
    return lr.Posterior(model, lr.Guide(model, encoder=lr.RNNEncoder(4)).double(), data)


figure, panels = plt.subplots(1, 3, figsize=(10.5, 3.3), layout="constrained")
for ax, transition, title in zip(panels, (Bits(2), Ring(2)), ("two bits", "a ring"), strict=False):
    fitted = posterior(transition, [0.0, 0.0])
    field = lr.interpret.phase_portrait(fitted, margin=0.1).isel(sample=0)
    plotting.phase_portrait(field.position_x, field.position_y, field.velocity_x, field.velocity_y, ax=ax)
    points = lr.interpret.fixed_points(fitted, num_starts=120, noise=1.0)
    here = points.dataset.isel(sample=0)
    plotting.fixed_points(
        here.state, here.unstable, here.fixed == 1, directions=field.direction, centre=field.centre, ax=ax
    )
    ax.legend(fontsize="small", loc="upper right")
    ax.set_title(f"{title}: {lr.interpret.attractor(points).kind.values[0]}", fontsize="medium")
found = lr.interpret.lyapunov(posterior(Lorenz(3), [5.0, 5.0, 25.0]), steps=2000, burn_in=500).isel(sample=0)
plotting.lyapunov(found.exponent, found.standard_error, ax=panels[2])
panels[2].set_title("the Lorenz system", fontsize="medium")
figure.savefig(Path(__file__).with_suffix(".png"), dpi=80)
