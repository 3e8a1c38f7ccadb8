"""What is drawn as a smooth one-to-one function of standard normal noise: location + scale * noise at every step."""

from __future__ import annotations

from abc import abstractmethod

import torch.distributions as td
from pyro.distributions import Distribution, TorchDistribution
from torch import Tensor


class FromNoise(TorchDistribution):
    """A distribution whose draws are x = f(e) of independent standard normal e, in the shape of x.

    A sampler may move e in the place of x: see the argument `parametrisation` of `latentrnn.sample`.
    """

    has_rsample = True

    @abstractmethod
    def from_noise(self, noise: Tensor) -> Tensor:
        """Return f(e), (*sample, *batch, *event)."""

    @abstractmethod
    def noise_of(self, value: Tensor) -> Tensor:
        """Return the e of which x is made, of the same shape."""


def is_from_noise(distribution: Distribution) -> bool:
    """Return whether draws are a function of standard normal noise that is known here."""
    return isinstance(distribution, FromNoise) or isinstance(_entries(distribution), td.Normal)


def from_noise(distribution: Distribution, noise: Tensor) -> Tensor:
    """Return the draw, (*sample, *batch, *event), that is made of standard normal noise of this shape."""
    if isinstance(distribution, FromNoise):
        return distribution.from_noise(noise)
    entries = _entries(distribution)
    return entries.loc + entries.scale * noise


def noise_of(distribution: Distribution, value: Tensor) -> Tensor:
    """Return the noise, of the shape of a draw, of which it is made."""
    if isinstance(distribution, FromNoise):
        return distribution.noise_of(value)
    entries = _entries(distribution)
    return (value - entries.loc) / entries.scale


def _entries(distribution: Distribution) -> Distribution:
    while isinstance(distribution, td.Independent):
        distribution = distribution.base_dist
    return distribution
