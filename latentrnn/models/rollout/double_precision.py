"""Densities in double precision: what single precision loses of sums over many entries, or of large counts."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor

from latentrnn.models.observations import HeadInputs


def has_double_precision(like: Tensor) -> bool:
    """Return whether the device of a tensor can compute in double precision."""
    return like.device.type != "mps"


def head_in_double(head: Callable[..., dist.Distribution]) -> Callable[..., dist.Distribution]:
    """Return `(states, inputs, history) -> distribution` of a head with everything in double precision.

    Args:
        head: an observation, or one with some parameters replaced, `partial(call, observation, values)`.
    """
    module, values = head.args if isinstance(head, partial) else (head, {})
    tensors = {**dict(module.named_parameters()), **dict(module.named_buffers()), **values}
    doubled = {name: to_double(value) for name, value in tensors.items()}

    def call(states: Tensor, inputs: HeadInputs, history: Tensor | None = None) -> Any:
        arguments = to_double(states), inputs_to_double(inputs), to_double(history)
        return torch.func.functional_call(module, doubled, arguments)

    return call


def to_double(value: Any) -> Any:
    """Return a floating tensor in double precision, anything else as it is."""
    return value.double() if isinstance(value, Tensor) and value.is_floating_point() else value


def inputs_to_double(inputs: HeadInputs) -> HeadInputs:
    """Return what else a head needs in double precision."""
    surroundings = type(inputs.surroundings)(*(to_double(part) for part in inputs.surroundings))
    return HeadInputs(*(to_double(part) for part in inputs))._replace(surroundings=surroundings, constant=None)


class DoublePrecision(TorchDistribution):
    """A head whose log-density is that of its twin in double precision.

    Args:
        twin: the distribution in double precision.
        plain: makes the distribution itself, to be sampled.
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}

    def __init__(self, twin: dist.Distribution, plain: Callable[[], dist.Distribution]) -> None:
        self.twin, self.plain = twin, plain
        super().__init__(twin.batch_shape, twin.event_shape, validate_args=False)

    @property
    def support(self) -> Any:
        """That of the distribution itself."""
        return self.twin.support

    def expand(self, batch_shape: torch.Size, _instance: None = None) -> DoublePrecision:
        return DoublePrecision(self.twin.expand(torch.Size(batch_shape)), self.plain)

    def sample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008
        return self.plain().expand(self.batch_shape).sample(sample_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        return self.twin.log_prob(to_double(value))
