"""Heavy-tailed independent innovations as one Pyro distribution."""

from __future__ import annotations

from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints


class StudentTTrajectory(TorchDistribution):
    """u_t ~ StudentT(degrees, 0, scale), independent over steps and dimensions; standard normal in padding.

    Args:
        degrees, scale: (dim,), or draws of them, (*sample, 1, 1, dim).
        shape: (sequence, time, dim).
        valid: (sequence, time), True where the process runs; None where there is no padding.
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}
    support = constraints.independent(constraints.real, 2)
    has_rsample = True

    def __init__(self, degrees: Tensor, scale: Tensor, shape: tuple[int, ...], valid: Tensor | None) -> None:
        self.entries = dist.StudentT(degrees, torch.zeros_like(scale), scale, validate_args=False)
        self.valid = valid
        batch = torch.broadcast_shapes(shape, self.entries.batch_shape)[:-2]
        super().__init__(batch, torch.Size(shape[-2:]), validate_args=False)

    def expand(self, batch_shape: torch.Size, _instance: None = None) -> StudentTTrajectory:
        new = StudentTTrajectory.__new__(StudentTTrajectory)
        new.entries, new.valid = self.entries, self.valid
        TorchDistribution.__init__(new, torch.Size(batch_shape), self.event_shape, validate_args=False)
        return new

    def rsample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008
        shape = torch.Size(sample_shape) + self.batch_shape + self.event_shape
        drawn = self.entries.expand(shape).rsample()
        return drawn if self.valid is None else torch.where(self.valid.unsqueeze(-1), drawn, torch.randn_like(drawn))

    def log_prob(self, value: Tensor) -> Tensor:
        entries = self.entries.log_prob(value)
        if self.valid is not None:
            standard = dist.Normal(torch.zeros_like(value), 1.0, validate_args=False).log_prob(value)
            entries = torch.where(self.valid.unsqueeze(-1), entries, standard)
        return entries.sum((-2, -1))
