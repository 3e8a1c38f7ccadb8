"""What the per-channel densities of this room have in common."""

from __future__ import annotations

from typing import Any, ClassVar, Self

import torch
from pyro.distributions import MaskedDistribution, TorchDistribution
from torch import Tensor

from latentrnn.support.private_symbols import standard_gamma


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


def unmasked_entries(distribution: Any) -> Any:
    """Return the distribution of every entry of a head's distribution, without the mask that it may have."""
    entries = distribution.base_dist
    return entries.base_dist if isinstance(entries, MaskedDistribution) else entries


def draw_log_gamma(shape: Tensor) -> Tensor:
    """Return logarithms of draws of Gamma(shape, 1), which are finite where the draws themselves would underflow.

    Gamma(a) is distributed as Gamma(a + 1) U^(1 / a), U uniform.
    """
    larger = standard_gamma(shape + 1)
    return larger.log() - torch.empty_like(larger).exponential_() / shape


def inside_positive(value: Tensor) -> Tensor:
    """Return positive values as they are; what stands under a mask may be zero, whose logarithm has no gradient."""
    return value.clamp_min(torch.finfo(value.dtype).tiny)
