"""Value, gradient and Hessian of a function of a vector, the Hessian as products with vectors or as a matrix."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

Function = Callable[[Tensor], Tensor]
ROWS = 64  # of a Hessian that are asked for at once


class Expansion:
    """A function around a point, to second order.

    The graph of its gradient is kept, so that a product with the Hessian costs about two gradients more.

    Args:
        function: of a vector (size,), a scalar.
        point: (size,).

    Attributes:
        point, value, gradient: detached.
    """

    def __init__(self, function: Function, point: Tensor) -> None:
        self._at, self._function = point.detach().clone().requires_grad_(True), function
        with torch.enable_grad():
            value = function(self._at)
            (self._slope,) = torch.autograd.grad(value, self._at, create_graph=True, materialize_grads=True)
        self.point, self.value, self.gradient = self._at.detach(), value.detach(), self._slope.detach()
        self._batched = True  # until that turns out not to go

    @property
    def finite(self) -> bool:
        """Whether value and gradient are numbers."""
        return bool(self.value.isfinite() & self.gradient.isfinite().all())

    def product(self, vector: Tensor) -> Tensor:
        """Return the Hessian's product with a vector (size,)."""
        return self._rows(vector.unsqueeze(0))[0]

    def hessian(self) -> Tensor:
        """Return the Hessian, (size, size), symmetric to the bit."""
        identity = torch.eye(len(self.point), dtype=self.point.dtype, device=self.point.device)
        found = torch.cat([self._rows(rows) for rows in identity.split(ROWS)])
        return (found + found.mT) / 2

    def rises(self, step: Tensor) -> tuple[float, float]:
        """Return by how much the function is larger a step away, either way; infinite where it is no number."""
        with torch.no_grad():
            found = [float(self._function(self.point + sign * step) - self.value) for sign in (1, -1)]
        first, second = (torch.inf if math.isnan(rise) else rise for rise in found)
        return first, second

    def _rows(self, vectors: Tensor) -> Tensor:
        """Return products with several vectors, (vector, size)."""
        if not self._slope.requires_grad:  # the function is linear
            return torch.zeros_like(vectors)
        if self._batched and len(vectors) > 1:
            try:
                return self._grad(vectors, is_grads_batched=True)
            except RuntimeError:  # an operation without a rule for it, such as a backward that is written by hand
                self._batched = False
        return torch.stack([self._grad(vector) for vector in vectors])

    def _grad(self, vectors: Tensor, **settings: bool) -> Tensor:
        settings |= {"retain_graph": True, "materialize_grads": True}
        return torch.autograd.grad(self._slope, self._at, vectors, **settings)[0]


def value_and_gradient(function: Function, point: Tensor) -> tuple[Tensor, Tensor]:
    """Return a function's value and its gradient (size,) at a point, detached."""
    at = point.detach().clone().requires_grad_(True)
    with torch.enable_grad():
        value = function(at)
        (gradient,) = torch.autograd.grad(value, at, materialize_grads=True)
    return value.detach(), gradient.detach()


def jacobian(values: Tensor, at: Tensor) -> Tensor:
    """Return d values / d at, (value, size), of a vector of values that was computed from `at`."""
    if not values.requires_grad:
        return at.new_zeros(len(values), len(at))
    rows = [
        torch.autograd.grad(value, at, retain_graph=True, materialize_grads=True)[0].detach()
        if value.requires_grad
        else torch.zeros_like(at)
        for value in values
    ]
    return torch.stack(rows)
