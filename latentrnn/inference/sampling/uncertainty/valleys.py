"""How steep a density is where its curvature at a point is not to be believed, at the distance that counts."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from latentrnn.inference.sampling.uncertainty.derivatives import Expansion

FAR = 2.0  # standard deviations of a value, by which a step along a direction would move it


class Valleys:
    """Directions whose curvature at a point goes the wrong way, or is so weak that a gradient may have made it.

    Such a curvature says little; what counts is how much the density falls where a value has moved by two of the
    standard deviations that it has without the direction. Where that is more than the direction itself would account
    for, its share of the variance is what the fall says; where it is less, the direction is open. Where the curvature
    goes the wrong way, the density has to fall both ways.

    Args:
        expansion: of minus the log density.
        scale: units of the weights, (size,).
        vectors: the directions in these units, (size, direction).
        values: their curvatures, (direction,).
    """

    def __init__(self, expansion: Expansion, scale: Tensor, vectors: Tensor, values: Tensor) -> None:
        self.expansion, self.scale, self.vectors, self.values = expansion, scale, vectors, values
        self._known: dict[tuple[int, int], float] = {}

    def shares(self, along: Tensor, variance: float) -> Tensor:
        """Return what directions add to a value's variance, infinite where they are open, (direction,).

        Args:
            along: derivative of the value along each, (direction,).
            variance: of the value, by what is resolved.
        """
        found = torch.zeros_like(along)
        for number, slope in enumerate(along.abs().tolist()):
            if not slope:
                continue
            curvature = self._steepness(number, FAR * variance**0.5 / slope) if variance else 0.0
            local = float(self.values[number])
            curvature = min(curvature, local) if local > 0 else curvature
            share = slope**2 / curvature if curvature > 0 else torch.inf
            found[number] = share if share <= variance else torch.inf
        return found

    def _steepness(self, number: int, distance: float) -> float:
        """Return the curvature of a parabola through the density at a distance, which is rounded to a power of two."""
        power = round(math.log2(distance))
        if (number, power) not in self._known:
            step = 2.0**power
            rises = self.expansion.rises(step * self.scale * self.vectors[:, number])
            rise = sum(rises) / 2 if float(self.values[number]) > 0 else min(rises)
            self._known[number, power] = 2 * rise / step**2
        return self._known[number, power]
