"""Invertible maps with known Jacobians, and the distributions that they make."""

from __future__ import annotations

from typing import Any, ClassVar, Protocol

import torch
from pyro.distributions import TorchDistribution
from pyro.nn import AutoRegressiveNN
from torch import Tensor, nn
from torch.distributions import constraints


class AutoregressiveFlow(nn.Module):
    """z_i = exp(s_i) x_i + m_i with (m_i, s_i) = network(x_{<i}), in as many layers, every other in reverse order.

    Drawing is one call per layer; the inverse takes one per dimension. Log-scales are bounded by 2 in size.

    Args:
        dim: size of the last axis.
        layers: maps in the chain.
        hidden_size: width of each network, at least `dim`.

    References:
        Kingma, Salimans, Jozefowicz, Chen, Sutskever, Welling. Improved variational inference with inverse
        autoregressive flow. 2016.
        Germain, Gregor, Murray, Larochelle. MADE: masked autoencoder for distribution estimation. 2015.
    """

    def __init__(self, dim: int, layers: int, hidden_size: int) -> None:
        super().__init__()
        self.dim = dim
        orders = [torch.arange(dim) if layer % 2 == 0 else torch.arange(dim).flip(0) for layer in range(layers)]
        self.layers = nn.ModuleList([_network(dim, max(hidden_size, dim), order) for order in orders])

    def reset_parameters(self) -> None:
        """Start near the identity, with small weights from torch's global generator."""
        with torch.no_grad():
            for parameter in self.parameters():
                if parameter.dim() > 1:
                    parameter.normal_(0.0, 0.3 / parameter.shape[-1] ** 0.5)
                else:
                    parameter.zero_()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return z and log |det dz/dx|, (...,), of x, (..., dim)."""
        total = x.new_zeros(x.shape[:-1])
        for network in self.layers:
            shift, log_scale = self._parts(network, x)
            x = log_scale.exp() * x + shift
            total = total + log_scale.sum(-1)
        return x, total

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return x and log |det dz/dx|, (...,), of z, (..., dim)."""
        total = z.new_zeros(z.shape[:-1])
        for network in reversed(list(self.layers)):
            x = torch.zeros_like(z)
            for _ in range(self.dim):  # each pass sets one dimension more right
                shift, log_scale = self._parts(network, x)
                x = (z - shift) * torch.exp(-log_scale)
            total = total + self._parts(network, x)[1].sum(-1)
            z = x
        return z, total

    @staticmethod
    def _parts(network: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
        shift, raw = network(x)
        return shift, 2 * torch.tanh(raw / 2)


class _Constant(nn.Module):
    """What an autoregressive network of a single dimension is."""

    def __init__(self) -> None:
        super().__init__()
        self.shift, self.raw = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.shift.expand_as(x), self.raw.expand_as(x)


def _network(dim: int, hidden_size: int, order: Tensor) -> nn.Module:
    if dim == 1:
        return _Constant()
    return AutoRegressiveNN(dim, [hidden_size], permutation=order, nonlinearity=nn.Tanh())


class Bijection(Protocol):
    """An invertible map of the last axis."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return z and log |det dz/dx|."""

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return x and log |det dz/dx|."""


class Bent(TorchDistribution):
    """The distribution of f(x), x ~ base; f acts on every step, and is the identity in padding.

    Args:
        base: a distribution over (time, dim) or (dim,).
        flow: f.
        valid: (sequence, time), False in padding; None where there is none.
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}
    has_rsample = True

    def __init__(self, base: Any, flow: Bijection, valid: Tensor | None) -> None:
        self.base, self.flow, self.valid = base, flow, valid
        self._known: list[tuple[Tensor, Tensor, Tensor]] = []  # the last z with its x and log |det f'(x)|
        super().__init__(base.batch_shape, base.event_shape, validate_args=False)

    @property
    def support(self) -> Any:
        """The whole space."""
        return constraints.independent(constraints.real, len(self.event_shape))

    def expand(self, batch_shape: torch.Size, _instance: None = None) -> Bent:
        new = Bent(self.base.expand(batch_shape), self.flow, self.valid)
        new._known = self._known
        return new

    def rsample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008
        x = self.base.rsample(sample_shape)
        z, log_det = self.flow.forward(x)
        z, log_det = self._outside(z, log_det, x)
        self._known[:] = [(z, x, log_det)]
        return z

    def unbend(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return x with f(x) = z, and log |det f'(x)| of every step."""
        if self._known and self._known[0][0] is z:
            return self._known[0][1:]
        x, log_det = self.flow.inverse(z)
        return self._outside(x, log_det, z)

    def _outside(self, value: Tensor, log_det: Tensor, unchanged: Tensor) -> tuple[Tensor, Tensor]:
        """Undo the map in padding."""
        if self.valid is None:
            return value, log_det
        return torch.where(self.valid.unsqueeze(-1), value, unchanged), torch.where(self.valid, log_det, 0.0)

    def log_prob(self, value: Tensor) -> Tensor:
        x, log_det = self.unbend(value)
        return self.base.log_prob(x) - (log_det.sum(-1) if len(self.event_shape) == 2 else log_det)
