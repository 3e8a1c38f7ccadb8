"""The curvature of a density of many weights, whose Hessian is known by its products with vectors alone."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from latentrnn.inference.sampling.uncertainty.curvature import (
    FLAT,
    MIXED,
    RESOLVED,
    Curvature,
    Spread,
    checked,
    errors_of,
    marked,
    root_mean_square,
)
from latentrnn.inference.sampling.uncertainty.derivatives import Expansion
from latentrnn.inference.sampling.uncertainty.directions import Direction, Kind, members, named
from latentrnn.inference.sampling.uncertainty.krylov import TOUCHING, Pairs, Solution, row_norms, solve, spectrum
from latentrnn.inference.sampling.uncertainty.valleys import Valleys

PROBES = 32  # random vectors behind an estimate of the rows' norms
OUTERMOST = 40  # products behind the extreme eigenvalues
PRODUCTS = 400  # behind one entry of a quantity, at most
UNSOLVED_ABOVE = 1e-5  # residual of a system that has not been solved


class KrylovCurvature(Curvature):
    """The matrix by its products with vectors alone: what it says of a few values, for any number of weights.

    Args:
        expansion, names, owners, parts: as of `Curvature`.
        generator: of the probes.
    """

    def __init__(
        self,
        expansion: Expansion,
        names: Sequence[str],
        owners: Sequence[str],
        parts: Sequence[Expansion],
        generator: torch.Generator,
    ) -> None:
        self._generator = generator
        super().__init__(expansion, names, owners, parts)
        self.floor = max(self.floor, RESOLVED * self._error)

    def _measure(self) -> None:
        self.scale, used = estimated_units(self.expansion, self._generator)
        self._used = checked(used)
        start = torch.randn(self.scale.shape, generator=self._generator, dtype=torch.float64).to(self.scale)
        start = start * self._used
        self._outermost = spectrum(self.product, start, count=OUTERMOST)
        self._error = 0.0  # what a vector is multiplied by in error, as a share of the largest curvature
        if self.parts:
            length = root_mean_square(self._errors(start)).norm() / start.norm()
            self._error = float(length / self._outermost.values.abs().max())

    @property
    def used(self) -> Tensor:
        return self._used

    def product(self, vector: Tensor) -> Tensor:
        """Return the scaled matrix's product with a vector."""
        return self.scale * self.expansion.product(self.scale * vector)

    def _errors(self, vector: Tensor) -> Tensor:
        """Return what errors of the matrix make of a vector, (part, size)."""
        return errors_of(torch.stack([self.scale * part.product(self.scale * vector) for part in self.parts]))

    @property
    def lowest(self) -> float:
        values = self._outermost.values
        return float(values[0] / values.abs().max().clamp_min(1e-300))

    def directions(self) -> list[Direction]:
        values, vectors = self._outermost.values, self._outermost.vectors
        if self.lowest >= -self.floor:
            return self._unused()
        vector = vectors[:, :1]
        return [self._direction("negative", vector, float(values[0] / values.abs().max())), *self._unused()]

    def _direction(self, kind: Kind, vector: Tensor, curvature: float) -> Direction:
        vector = vector / vector.norm()
        return named(kind, vector, members(vector), self.names, self.owners, curvature)

    def spread(self, jacobian: Tensor) -> Spread:
        scaled = self.scale * jacobian * self._used
        solutions, moved, unsolved = torch.zeros_like(scaled), [], []
        error, weak = torch.zeros_like(scaled[:, 0]), torch.zeros_like(scaled[:, 0])
        for number, row in enumerate(scaled):
            moved.append(self._skipped(jacobian[number]))
            if not bool(row.any()):
                continue
            found = solve(self.product, row, floor=self.floor, limit=PRODUCTS)
            values, along = found.pairs.values, row.norm() * found.pairs.shares
            good = found.resolved & (values > 0)
            solutions[number] = found.pairs.vectors[:, good] @ (along[good] / values[good])
            variance = float(row @ solutions[number])
            if self.parts:
                error[number] = self._possible_error(found, row, solutions[number]) / max(variance, 1e-300)
            moved[-1] += self._open(found)
            shares = self._of_weak(found, along, variance)
            negative = found.resolved & (values < 0)
            kinds: tuple[tuple[Kind, Tensor], ...] = (("negative", negative), ("unresolved", ~negative))
            for kind, chosen in kinds:
                if bool((chosen := chosen & shares.isinf()).any()):
                    moved[-1].append(self._along(kind, found.pairs, chosen))
            weak[number] = shares.nan_to_num(posinf=0.0).sum()
            if found.residual > UNSOLVED_ABOVE:
                unsolved.append(number)
        covariance = solutions @ scaled.mT
        covariance = (covariance + covariance.mT) / 2 + torch.diag(weak)
        return Spread(marked(covariance, moved, unsolved), moved, unsolved, error)

    def _possible_error(self, found: Solution, row: Tensor, solution: Tensor) -> float:
        """Return how wrong a value's variance may be by the Monte Carlo error of the matrix."""
        left_out = float(found.pairs.shares[~found.resolved].square().sum() * row.square().sum())
        possible = self.floor * float(found.pairs.values.abs().max())
        return float(root_mean_square(self._errors(solution) @ solution)) + left_out / possible

    def _open(self, found: Solution) -> list[Direction]:
        """Return the open directions that a value's system met."""
        values, largest = found.pairs.values, float(found.pairs.values.abs().max())
        touched = found.pairs.shares.abs() > max(TOUCHING, MIXED * self._error)
        flat = values.abs() <= FLAT * largest
        kinds: tuple[tuple[Kind, Tensor], ...] = (
            ("flat", ~found.resolved & flat),
            ("unresolved", ~found.resolved & ~flat & (values.abs() <= RESOLVED * self._error * largest)),
        )
        return [
            self._along(kind, found.pairs, chosen & touched) for kind, chosen in kinds if bool((chosen & touched).any())
        ]

    def _along(self, kind: Kind, pairs: Pairs, chosen: Tensor) -> Direction:
        """Return the direction that a value moves in among some of the eigenvectors."""
        shares = pairs.shares[chosen]
        curvature = float((shares.square() * pairs.values[chosen]).sum() / shares.square().sum())
        vector = (pairs.vectors[:, chosen] @ shares)[:, None]
        return self._direction(kind, vector, curvature / float(pairs.values.abs().max()))

    def _of_weak(self, found: Solution, along: Tensor, variance: float) -> Tensor:
        """Return what directions of weak or negative curvature add to a variance, (pair,)."""
        pairs, largest = found.pairs, float(found.pairs.values.abs().max())
        weak = ~found.resolved & (pairs.values.abs() > max(FLAT, RESOLVED * self._error) * largest)
        chosen = (weak | (found.resolved & (pairs.values < 0))) & (pairs.shares.abs() > TOUCHING)
        valleys = Valleys(self.expansion, self.scale, pairs.vectors, pairs.values)
        return valleys.shares(torch.where(chosen, along, 0.0), variance)

    def newton_step(self) -> Tensor:
        slope = self.scale * self.expansion.gradient * self._used
        if not bool(slope.any()):
            return torch.zeros_like(slope)
        found = solve(self.product, -slope, floor=self.floor, limit=PRODUCTS // 4)
        good = found.resolved & (found.pairs.values > 0)
        vectors, values = found.pairs.vectors[:, good], found.pairs.values[good]
        return self.scale * (vectors @ (found.pairs.shares[good] / values)) * slope.norm()


def estimated_units(expansion: Expansion, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return units from estimates of the rows' norms, and which entries play a part, each (size,)."""
    norms = row_norms(expansion.product, expansion.point, probes=PROBES, generator=generator)
    used = norms > 0
    return torch.where(used, norms, 1.0).rsqrt(), used
