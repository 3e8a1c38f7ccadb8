"""What the per-channel densities of this room have in common."""

from __future__ import annotations

from typing import Any, ClassVar, Self

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor


class Entries(TorchDistribution):
    """A univariate distribution of every entry, made of parameters that broadcast together.

    Args:
        *parameters: tensors, (..., channel); a subclass says which and unpacks `self.parameters`.
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}

    def __init__(self, *parameters: Tensor) -> None:
        self.parameters = torch.broadcast_tensors(*parameters)
        super().__init__(self.parameters[0].shape, validate_args=False)

    def expand(self, batch_shape: torch.Size, _instance: None = None) -> Self:
        return type(self)(*(parameter.expand(batch_shape) for parameter in self.parameters))

    def expanded_parameters(self, sample_shape: torch.Size) -> tuple[Tensor, ...]:
        """Return the parameters in the shape of a sample."""
        shape = torch.Size(sample_shape) + self.batch_shape
        return tuple(parameter.expand(shape) for parameter in self.parameters)


def inside_positive(value: Tensor) -> Tensor:
    """Return positive values as they are; what stands under a mask may be zero, whose logarithm has no gradient."""
    return value.clamp_min(torch.finfo(value.dtype).tiny)


def channel_moments(values: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and variance of each channel over its observed entries, (channel,) each."""
    flat, seen = values.flatten(0, -2), mask.flatten(0, -2)
    count = seen.sum(0).clamp_min(1)
    mean = torch.where(seen, flat, 0.0).sum(0) / count
    return mean, (torch.where(seen, flat - mean, 0.0) ** 2).sum(0) / count
