"""A stationary Gaussian AR(1) process as one Pyro distribution."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import Independent, constraints

from latentrnn.models.latents.from_noise import FromNoise
from latentrnn.models.transitions.recurrence import linear_recurrence


class AutoregressiveNormal(FromNoise):
    """u_1 ~ Normal(0, scale^2); u_t ~ Normal(phi_t u_{t-1}, (1 - phi_t^2) scale^2); standard normal in padding.

    Args:
        memory: phi, (dim,) or (..., sequence, time, dim), in (0, 1); the entry of the first step is not used.
        scale: stationary standard deviation, (dim,), or draws of it, (*sample, 1, 1, dim).
        shape: (sequence, time, dim).
        valid: (sequence, time), True where the process runs; None where there is no padding.
        before: u_0, (..., sequence, dim), where the process goes on from there; the first entry of `memory` is then
            used.
        fresh: sqrt(1 - phi^2), like `memory`, by whoever knows it better than by the difference: of steps that are
            much shorter than the time constant nothing is left of that in single precision.
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}
    support = constraints.independent(constraints.real, 2)
    has_rsample = True

    def __init__(
        self,
        memory: Tensor,
        scale: Tensor,
        shape: tuple[int, ...],
        valid: Tensor | None,
        before: Tensor | None = None,
        fresh: Tensor | None = None,
    ) -> None:
        shape = torch.broadcast_shapes(shape, memory.shape, scale.shape)
        memory = memory.expand(shape)
        fresh = (1 - memory**2).sqrt() if fresh is None else fresh.expand(shape)
        if before is None:
            first = torch.zeros_like(memory[..., :1, :])
            memory = torch.cat([first, memory[..., 1:, :]], -2)
            fresh = torch.cat([first + 1, fresh[..., 1:, :]], -2)
        noise = fresh * scale
        if valid is not None:
            memory = torch.where(valid.unsqueeze(-1), memory, torch.zeros_like(memory))
            noise = torch.where(valid.unsqueeze(-1), noise, torch.ones_like(noise))
        self.memory, self.noise, self.before = memory, noise, before  # (sequence, time, dim)
        batch = torch.Size(shape[:-2])
        if before is not None:
            batch = torch.broadcast_shapes(batch, before.shape[:-1])
        super().__init__(batch, torch.Size(shape[-2:]), validate_args=False)

    def expand(self, batch_shape: torch.Size, _instance: None = None) -> AutoregressiveNormal:
        new = AutoregressiveNormal.__new__(AutoregressiveNormal)
        shape = torch.Size(batch_shape) + self.event_shape
        new.memory, new.noise, new.before = self.memory.expand(shape), self.noise.expand(shape), self.before
        TorchDistribution.__init__(new, torch.Size(batch_shape), self.event_shape, validate_args=False)
        return new

    def rsample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008
        shape = torch.Size(sample_shape) + self.batch_shape + self.event_shape
        return self.from_noise(torch.randn(shape, dtype=self.noise.dtype, device=self.noise.device))

    def from_noise(self, noise: Tensor) -> Tensor:
        moved = noise * self.noise
        start = torch.zeros_like(moved[..., 0, :]) if self.before is None else self.before
        return linear_recurrence(self.memory, moved, start)

    def noise_of(self, value: Tensor) -> Tensor:
        return (value - self.memory * _lagged(value, self.before)) / self.noise

    def log_prob(self, value: Tensor) -> Tensor:
        return (-0.5 * self.noise_of(value) ** 2 - self.noise.log() - 0.5 * math.log(2 * math.pi)).sum((-2, -1))


@torch.distributions.register_kl(Independent, AutoregressiveNormal)
def _kl_mean_field_autoregressive(q: Independent, p: AutoregressiveNormal) -> Tensor:
    """KL(q || p) in nats for a mean-field Normal q over (time, dim): both are Gaussian, so it is exact."""
    loc, variance = q.base_dist.loc, q.base_dist.scale**2
    squared = (loc - p.memory * _lagged(loc, p.before)) ** 2 + variance + p.memory**2 * _lagged(variance)
    return (0.5 * squared / p.noise**2 + p.noise.log() - 0.5 * variance.log() - 0.5).sum((-2, -1))


def _lagged(value: Tensor, before: Tensor | None = None) -> Tensor:
    if before is not None:
        batch = torch.broadcast_shapes(value.shape[:-2], before.shape[:-1])
        first, rest = before.unsqueeze(-2), value[..., :-1, :]
        return torch.cat([part.expand(*batch, *part.shape[-2:]) for part in (first, rest)], -2)
    return torch.nn.functional.pad(value, (0, 0, 1, 0))[..., :-1, :]
