"""Gaussian processes over a trajectory as one Pyro distribution."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import Independent, constraints

from latentrnn.models.latents.from_noise import FromNoise

NUGGET = 1e-3  # share of the variance that is white, as in GPFA: the covariance stays well conditioned
LARGEST = 2048  # steps; the factorisation is cubic in them


def squared_exponential(lag: Tensor, length_scale: Tensor) -> Tensor:
    """exp(-lag^2 / (2 l^2))."""
    return torch.exp(-0.5 * (lag / length_scale) ** 2)


def matern32(lag: Tensor, length_scale: Tensor) -> Tensor:
    """(1 + x) exp(-x), x = sqrt(3) lag / l: once differentiable paths."""
    x = math.sqrt(3) * lag / length_scale
    return (1 + x) * torch.exp(-x)


KERNELS = {"squared_exponential": squared_exponential, "matern32": matern32}


class GaussianProcess(FromNoise):
    """u^d_{1:T} ~ Normal(0, K^d) for every dimension d, standard normal in padding.

        K_{ts} = scale^2 [(1 - nugget) kernel(|time_t - time_s|; length_scale) + nugget 1(t = s)]

    Exact, by one Cholesky factor: cubic in the number of steps once per dimension (with irregular times, once per
    sequence and dimension), quadratic for each draw. Padding costs nothing extra: the factor of a shorter sequence
    is the leading block.

    Args:
        kernel: "squared_exponential" or "matern32".
        scale, length_scale: (dim,), or draws of them, (*sample, 1, dim).
        times: (time,) where all sequences share them, or (sequence, time).
        valid: (sequence, time), True where the process runs; None where there is no padding.
        sequences: number of sequences.
        nugget: share of the variance that is white.

    Raises:
        ValueError: more steps than the factorisation should be asked for, or so small a nugget that the precision does
            not suffice for it.

    References:
        Yu, Cunningham, Santhanam, Ryu, Shenoy, Sahani. Gaussian-process factor analysis for low-dimensional
        single-trial analysis of neural population activity. 2009.
        Rasmussen, Williams. Gaussian processes for machine learning. 2006.
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}
    support = constraints.independent(constraints.real, 2)
    has_rsample = True

    def __init__(
        self,
        kernel: str,
        scale: Tensor,
        length_scale: Tensor,
        times: Tensor,
        valid: Tensor | None,
        sequences: int,
        nugget: float = NUGGET,
    ) -> None:
        steps = times.shape[-1]
        if steps > LARGEST:
            raise ValueError(
                f"Innovations: prior {kernel!r} factorises a matrix of steps by steps, at most {LARGEST}; found {steps}"
                " steps; cut the data (data.windows) or use prior='ar1', whose cost is linear in them"
            )
        lag = (times.unsqueeze(-1) - times.unsqueeze(-2)).abs().to(scale).unsqueeze(-3)  # ([sequence,] 1, time, time)
        covariance = (1 - nugget) * KERNELS[kernel](lag, length_scale[..., None, None])
        covariance = covariance + nugget * torch.eye(steps, dtype=scale.dtype, device=scale.device)
        try:
            # ([sequence,] dim, time, time), or (*sample, sequence, dim, time, time)
            self.tril = torch.linalg.cholesky(covariance) * scale[..., None, None]
        except torch.linalg.LinAlgError as error:
            raise ValueError(
                f"Innovations: the covariance of prior {kernel!r} with nugget={nugget:g} cannot be factorised in "
                f"{scale.dtype}; expected a larger nugget, or double precision (model.double(), data in float64)"
            ) from error
        self.valid = valid
        batch = torch.broadcast_shapes((sequences,), self.tril.shape[:-3])
        super().__init__(batch, torch.Size((steps, scale.shape[-1])), validate_args=False)

    def expand(self, batch_shape: torch.Size, _instance: None = None) -> GaussianProcess:
        new = GaussianProcess.__new__(GaussianProcess)
        new.tril, new.valid = self.tril, self.valid
        TorchDistribution.__init__(new, torch.Size(batch_shape), self.event_shape, validate_args=False)
        return new

    def rsample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008
        shape = torch.Size(sample_shape) + self.batch_shape + self.event_shape
        return self.from_noise(torch.randn(shape, dtype=self.tril.dtype, device=self.tril.device))

    def from_noise(self, noise: Tensor) -> Tensor:
        drawn = self._by_columns(torch.matmul, noise)
        return drawn if self.valid is None else torch.where(self.valid.unsqueeze(-1), drawn, noise)

    def log_prob(self, value: Tensor) -> Tensor:
        standard, log_scale = self.noise_of(value), self._log_diagonal()
        value = (-0.5 * standard**2 - log_scale - 0.5 * math.log(2 * math.pi)).sum((-2, -1))
        return value.expand(torch.broadcast_shapes(value.shape, self.batch_shape))

    def noise_of(self, value: Tensor) -> Tensor:
        """Return L^-1 u, (..., time, dim); u itself in padding, on which no earlier step depends."""
        solved = self._by_columns(partial(torch.linalg.solve_triangular, upper=False), value)
        return solved if self.valid is None else torch.where(self.valid.unsqueeze(-1), solved, value)

    def _by_columns(
        self, operation: Callable[[Tensor, Tensor], Tensor], value: Tensor, of: Tensor | None = None
    ) -> Tensor:
        """Apply `operation(L, columns)` to values (*sample, sequence, time, dim), without one copy of L for each."""
        matrix = self.tril if of is None else of
        if matrix.dim() == 3:  # shared by the sequences, which stand side by side
            columns = value.reshape(-1, *self.event_shape).permute(2, 1, 0)
            return operation(matrix, columns).permute(2, 1, 0).reshape(value.shape)
        if matrix.dim() > 4:  # a factor for every draw of its parameters
            return operation(matrix, value.mT.unsqueeze(-1)).squeeze(-1).mT
        columns = value.reshape(-1, *value.shape[-3:]).permute(1, 3, 2, 0)
        return operation(matrix, columns).permute(3, 0, 2, 1).reshape(value.shape)

    def _log_diagonal(self) -> Tensor:
        logs = self.tril.diagonal(dim1=-2, dim2=-1).log().mT  # ([sequence,] time, dim)
        return logs if self.valid is None else torch.where(self.valid.unsqueeze(-1), logs, torch.zeros_like(logs))


@torch.distributions.register_kl(Independent, GaussianProcess)
def _kl_mean_field_gaussian_process(q: Independent, p: GaussianProcess) -> Tensor:
    """KL(q || p) in nats for a mean-field Normal q over (time, dim): the trace needs the squares of L^-1."""
    loc, variance = q.base_dist.loc, q.base_dist.scale**2
    steps = p.tril.shape[-1]
    identity = torch.eye(steps, dtype=p.tril.dtype, device=p.tril.device)
    inverse = torch.linalg.solve_triangular(p.tril, identity.expand_as(p.tril), upper=False)
    # row r of L^-1 belongs to the whitened step r, which is not there in padding
    traced = p._by_columns(torch.matmul, variance, of=inverse**2)
    if p.valid is not None:
        traced = torch.where(p.valid.unsqueeze(-1), traced, variance)
    squared = p.noise_of(loc) ** 2 + traced
    return (0.5 * squared + p._log_diagonal() - 0.5 * variance.log() - 0.5).sum((-2, -1))
