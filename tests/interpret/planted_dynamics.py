"""Dynamics whose fixed points and exponents are known, as transitions of a user's own or with weights set by hand."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

import latentrnn as lr


class Map(lr.Transition):
    """s_t = F(s_{t-1}) + B a_t, F being a subclass's."""

    def __init__(self, hidden_size: int, **shared: object) -> None:
        super().__init__(**shared)
        self.hidden_size = self.state_size = hidden_size

    def build(self, input_size: int) -> None:
        self.input_weight = torch.nn.Parameter(torch.zeros(self.hidden_size, input_size))

    def step(self, state: Tensor, inputs: Tensor) -> Tensor:
        return self.moved(state) + inputs @ self.input_weight.T

    def moved(self, state: Tensor) -> Tensor:
        raise NotImplementedError


class Ring(Map):
    """A ring of fixed points of radius one in the plane of the first two numbers, of a rotated basis; others decay."""

    def __init__(self, hidden_size: int = 4) -> None:
        super().__init__(hidden_size)
        basis = np.linalg.qr(np.random.default_rng(0).normal(size=(hidden_size, hidden_size)))[0]
        self.register_buffer("basis", torch.as_tensor(basis, dtype=torch.float32))

    def moved(self, state: Tensor) -> Tensor:
        own = state @ self.basis
        plane, others = own[..., :2], own[..., 2:]
        squared = plane.square().sum(-1, keepdim=True)
        plane = plane + plane * (1 - squared) / (1 + squared)
        return torch.cat([plane, 0.5 * others], -1) @ self.basis.T


class Lorenz(Map):
    """A step of `dt` of the Lorenz system by Runge-Kutta of order four."""

    def __init__(self, size: float = 0.01) -> None:
        super().__init__(3)
        self.size = size

    def slope(self, state: Tensor) -> Tensor:
        x, y, z = state.unbind(-1)
        return torch.stack([10.0 * (y - x), x * (28.0 - z) - y, x * y - 8.0 / 3.0 * z], -1)

    def moved(self, state: Tensor) -> Tensor:
        first = self.slope(state)
        second = self.slope(state + self.size / 2 * first)
        third = self.slope(state + self.size / 2 * second)
        fourth = self.slope(state + self.size * third)
        return state + self.size / 6 * (first + 2 * second + 2 * third + fourth)


def posterior_at(
    transition: lr.Transition, starts: np.ndarray, steps: int = 30, latent: lr.Latent | None = None
) -> lr.Posterior:
    """A posterior whose sequences begin at states of one's own, and go on without noise."""
    data = lr.SequenceData.from_arrays({"y": np.zeros((len(starts), steps, 2))}, dt=0.01, dtype=torch.float64)
    latent = lr.InitialState(starts.shape[1]) if latent is None else latent
    model = lr.LatentRNN(data.spec, transition=transition, latent=latent, observations={"y": lr.Gaussian()}).double()
    return lr.Posterior(model, At(torch.as_tensor(starts), model), data)


class At(torch.nn.Module):
    """A guide that knows where each sequence begins: s_0 = W z_0 + b."""

    parameter_sites = None

    def __init__(self, starts: Tensor, model: lr.LatentRNN) -> None:
        super().__init__()
        self.register_buffer("starts", starts)
        with torch.no_grad():
            start = model.latent.start.map
            start.weight.copy_(torch.eye(starts.shape[1]))
            start.bias.zero_()

    def forward(self, data: lr.SequenceData) -> None:
        import pyro
        import pyro.distributions as dist

        with pyro.plate("sequences", data.num_sequences, dim=-1):
            pyro.sample("initial", dist.Delta(self.starts[: data.num_sequences]).to_event(1))


def flip_flop(bits: int = 3, weight: float = 1.5) -> lr.VanillaRNN:
    """h' = tanh(weight h + x): every unit remembers the sign of its last pulse; weights are set by `hold_bits`."""
    return lr.VanillaRNN(bits)


def hold_bits(posterior: lr.Posterior, weight: float = 1.5) -> None:
    """Set the weights of a `flip_flop`."""
    kernel = posterior.model.transition.kernel
    with torch.no_grad():
        kernel.weight_hh_l0.copy_(weight * torch.eye(kernel.hidden_size))
        kernel.weight_ih_l0.zero_()
        kernel.bias_ih_l0.zero_()
        kernel.bias_hh_l0.zero_()
