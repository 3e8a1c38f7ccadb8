"""The way from where a fit stopped to the mode of its density."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from latentrnn.inference.sampling.uncertainty.curvature import FLAT, units
from latentrnn.inference.sampling.uncertainty.derivatives import Expansion, Function, value_and_gradient
from latentrnn.inference.sampling.uncertainty.krylov import solve
from latentrnn.inference.sampling.uncertainty.krylov_curvature import PRODUCTS, estimated_units

Array = NDArray[np.float64]

ALL_ROWS = 64  # weights up to which the first units come from the whole Hessian
CLOSE = 1e-4  # length of the gradient, nats per unit, from which on Newton's full steps converge
EXACT = 1e-8  # the length from which on nothing is to be gained
LAST_STEPS = 4  # of these


class Polished(NamedTuple):
    """Where a function is least.

    Attributes:
        point: (size,).
        steps: how many were taken.
        slope: length of the gradient there, nats, in units of the weights as they were at the start.
    """

    point: Tensor
    steps: int
    slope: float

    @property
    def arrived(self) -> bool:
        """Whether so little is left of the gradient that no quantity would move by much of its standard deviation."""
        return self.slope < 100 * CLOSE


def polished(
    function: Function, start: Tensor, steps: int, generator: torch.Generator, *, last_steps: int = LAST_STEPS
) -> Polished:
    """Return where a function is least, near a start.

    Truncated Newton steps within a trust region, which need products with the Hessian alone and turn away from where it
    is indefinite; at the end full ones as long as they shorten the gradient.

    Args:
        function: minus a log density, nats, of a vector (size,).
        start: the vector.
        steps: at most.
        generator: of probes, where the weights are many.
        last_steps: full ones at the end, at most, which take the gradient to what rounding leaves.

    References:
        Steihaug. The conjugate gradient method and trust regions in large scale optimization. 1983.
        Nocedal, Wright. Numerical optimization. 2006.
    """
    from scipy.optimize import minimize

    first = Expansion(function, start)
    if not first.finite or steps == 0:
        return Polished(start, 0, torch.inf)
    small = len(start) <= ALL_ROWS
    scale = units(first.hessian()) if small else estimated_units(first, generator)[0]
    problem = _Scaled(function, start, scale, first)
    second: dict[str, Any] = {"method": "trust-exact", "hess": problem.matrix} if small else {}
    second = second or {"method": "trust-ncg", "hessp": problem.product}
    options = {"maxiter": steps, "gtol": CLOSE, "initial_trust_radius": 1.0, "max_trust_radius": 1000.0}
    with np.errstate(all="ignore"):  # a trial that leads nowhere is turned back from
        found = minimize(problem.value, np.zeros(len(start)), jac=True, options=options, **second)
    taken, u, slope = int(found.nit), found.x, float(np.linalg.norm(found.jac))
    for _ in range(min(last_steps, steps - taken)):
        if slope < EXACT:
            break
        there, after = problem.newton(u, small)
        if not after < 0.5 * slope:
            break
        u, slope, taken = there, after, taken + 1
    return Polished(problem.point(u), taken, slope)


class _Scaled:
    """A function of weights in units of their own, as SciPy takes it."""

    def __init__(self, function: Function, start: Tensor, scale: Tensor, first: Expansion) -> None:
        self.function, self.start, self.scale, self._expansion = function, start, scale, first

    def point(self, u: Array) -> Tensor:
        return self.start + self.scale * torch.from_numpy(u).to(self.scale)

    def value(self, u: Array) -> tuple[float, Array]:
        value, gradient = value_and_gradient(self.function, self.point(u))
        if not bool(value.isfinite() & gradient.isfinite().all()):
            return np.inf, np.full_like(u, np.nan)
        return float(value), (self.scale * gradient).cpu().numpy()

    def matrix(self, u: Array) -> Array:
        found = self._at(u).hessian()
        return (self.scale[:, None] * found * self.scale).cpu().numpy()

    def product(self, u: Array, vector: Array) -> Array:
        scaled = self.scale * torch.from_numpy(vector).to(self.scale)
        return (self.scale * self._at(u).product(scaled)).cpu().numpy()

    def newton(self, u: Array, small: bool) -> tuple[Array, float]:
        """Return where a full step leads, and the length of the gradient there; infinite where it cannot be taken."""
        here = self._at(u)
        slope = self.scale * here.gradient
        length = float(slope.norm())
        if not 0 < length <= 100 * CLOSE:
            return u, torch.inf
        if small:
            matrix = torch.from_numpy(self.matrix(u)).to(slope)
            found = solve(matrix.mv, -slope, floor=max(FLAT, length), limit=len(slope))
        else:
            found = solve(
                lambda v: self.scale * here.product(self.scale * v), -slope,
                floor=max(FLAT, length), limit=PRODUCTS // 4,
            )  # fmt: skip
        if bool((found.resolved & (found.pairs.values < 0)).any()):
            return u, torch.inf
        there = u + found.value.cpu().numpy()
        return there, float(np.linalg.norm(self.value(there)[1]))

    def _at(self, u: Array) -> Expansion:
        point = self.point(u)
        if not torch.equal(point, self._expansion.point):
            self._expansion = Expansion(self.function, point)
        return self._expansion
