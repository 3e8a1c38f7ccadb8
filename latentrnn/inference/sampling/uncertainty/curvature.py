"""What a log density's curvature says of functions of its weights: covariances, and what it leaves open."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from latentrnn.inference.sampling.uncertainty.derivatives import Expansion
from latentrnn.inference.sampling.uncertainty.directions import Direction, Kind, blocks, named, unused
from latentrnn.inference.sampling.uncertainty.krylov import TOUCHING
from latentrnn.inference.sampling.uncertainty.valleys import Valleys

FLAT = 1e-10  # share of the largest curvature below which one is rounding
SUSPECT = 1e-3  # the largest share for which the gradient that remains is held responsible
RESOLVED = 3.0  # how many times its Monte Carlo error a curvature has to be
MIXED = 4.0  # times the Monte Carlo error of an eigenvector: what a value may move along it by chance


class Spread(NamedTuple):
    """How uncertain values are that change with the weights.

    Attributes:
        covariance: (value, value); infinite on the diagonal where a value moves along a flat direction, NaN where it
            moves along one of negative curvature or could not be found.
        moved_along: for each value the open directions along which it moves.
        unsolved: values whose system was not solved.
        error: by how large a share the importance samples may have their variances wrong, (value,).
    """

    covariance: Tensor
    moved_along: list[list[Direction]]
    unsolved: list[int]
    error: Tensor


class Curvature(ABC):
    """The Hessian of minus a log density at a point, in units in which its diagonal is about one.

    Args:
        expansion: of minus the log density.
        names, owners: of the weights; see `Weights`.
        parts: the same by parts of the importance samples, which tell the Monte Carlo error; none where the density is
            exact.

    Attributes:
        scale: of each weight, its unit, (size,).
        floor: share of the largest curvature below which one is not to be believed: what rounding leaves, or what a
            gradient that is not zero bends a flat valley by.
    """

    scale: Tensor

    def __init__(
        self, expansion: Expansion, names: Sequence[str], owners: Sequence[str], parts: Sequence[Expansion] = ()
    ) -> None:
        self.expansion, self.names, self.owners, self.parts = expansion, names, owners, parts
        self._measure()
        self.floor = max(FLAT, min(self.slope, SUSPECT))

    @abstractmethod
    def _measure(self) -> None:
        """Find scale and used entries."""

    @property
    @abstractmethod
    def used(self) -> Tensor:
        """Which entries play a part in the density, (size,)."""

    @property
    def slope(self) -> float:
        """Length of the gradient, nats, where a unit of each weight is what its own curvature makes half a nat of."""
        return float((self.scale * self.expansion.gradient).norm())

    @abstractmethod
    def directions(self) -> list[Direction]:
        """Return the open directions that are known."""

    @property
    @abstractmethod
    def lowest(self) -> float:
        """The smallest curvature as a share of the largest, as far as it is known."""

    @abstractmethod
    def spread(self, jacobian: Tensor) -> Spread:
        """Return the covariance of values with these derivatives, (value, size)."""

    @abstractmethod
    def newton_step(self) -> Tensor:
        """Return the step to where the gradient would vanish, (size,), along what is resolved."""

    def _unused(self) -> list[Direction]:
        return unused((~self.used).nonzero().flatten(), self.names, self.owners)

    def _skipped(self, row: Tensor) -> list[Direction]:
        """Return the unused entries along which a value with these derivatives, (size,), moves."""
        touched = {self.owners[i] for i in (~self.used & (row != 0)).nonzero().flatten().tolist()}
        return [each for each in self._unused() if each.parameters[0] in touched]


class DenseCurvature(Curvature):
    """All of the matrix, and its eigenvalues."""

    def _measure(self) -> None:
        hessian = self.expansion.hessian()
        self._used = checked(hessian.abs().sum(1) > 0)
        self.scale = units(hessian)
        scaled = (self.scale[:, None] * hessian * self.scale)[self._used][:, self._used]
        self.values, vectors = torch.linalg.eigh(scaled)
        self.vectors = hessian.new_zeros(len(hessian), len(self.values))
        self.vectors[self._used] = vectors
        # errors of the matrix between eigenvectors, as draws of it, whose root mean square is the standard error
        self._errors = scaled.new_zeros(1, len(scaled), len(scaled))
        if self.parts:
            found = torch.stack([self.scale[:, None] * part.hessian() * self.scale for part in self.parts])
            self._errors = errors_of(self.vectors.mT @ found @ self.vectors)

    @property
    def used(self) -> Tensor:
        return self._used

    @property
    def lowest(self) -> float:
        return float(self.values[0] / self.values.abs().max())

    @property
    def _good(self) -> Tensor:
        """Which eigenvectors are resolved, with a curvature that goes the right way, (eigenvector,)."""
        return self.values > self._error.clamp_min(self.floor * float(self.values.abs().max()))

    @property
    def _error(self) -> Tensor:
        """What an eigenvalue has to exceed by its Monte Carlo error, (eigenvector,)."""
        return RESOLVED * root_mean_square(self._errors.diagonal(dim1=1, dim2=2))

    def _open(self) -> dict[Kind, Tensor]:
        """Return which eigenvectors are open, (eigenvector,), by kind."""
        size, largest = self.values.abs(), float(self.values.abs().max())
        flat = size <= FLAT * largest
        unresolved = ~flat & (size <= self._error)
        negative = (self.values < -self.floor * largest) & ~flat & ~unresolved
        return {"negative": negative, "flat": flat, "unresolved": unresolved}

    @property
    def _weak(self) -> Tensor:
        """Which eigenvectors have a curvature that the gradient may have made, or a negative one, (eigenvector,)."""
        found = self._open()
        return ~self._good & ~found["flat"] & ~found["unresolved"]

    def _named(self, kind: Kind, vectors: Tensor, values: Tensor) -> list[Direction]:
        """Return the directions that eigenvectors make, each of the entries that belong together."""
        found = []
        for indices in blocks(vectors):
            weight = vectors[indices].square().sum(0)
            curvature = float((weight * values).sum() / weight.sum() / self.values.abs().max())
            found.append(named(kind, vectors, indices, self.names, self.owners, curvature))
        return found

    def _by_kind(self) -> dict[Kind, list[Direction]]:
        return {
            kind: self._named(kind, self.vectors[:, chosen], self.values[chosen]) if bool(chosen.any()) else []
            for kind, chosen in self._open().items()
        }

    def directions(self) -> list[Direction]:
        return [each for found in self._by_kind().values() for each in found] + self._unused()

    def spread(self, jacobian: Tensor) -> Spread:
        scaled = self.scale * jacobian * self._used
        good = self._good
        along = scaled @ self.vectors
        slopes = along[:, good] / self.values[good]
        covariance = slopes @ along[:, good].mT
        # along a direction that is open a value may seem to move because its vector is not quite right
        by_chance = MIXED * root_mean_square(slopes @ self._errors[:, good])
        left_out = torch.where(along.abs() > by_chance, 0.0, along)
        along = along - left_out
        least, places = TOUCHING * scaled.norm(dim=1), {name: i for i, name in enumerate(self.names)}
        moved: list[list[Direction]] = [self._skipped(row) for row in jacobian]
        kinds: tuple[Kind, ...] = ("flat", "unresolved")
        for kind in kinds:
            chosen = self._open()[kind]
            part = along[:, chosen] @ self.vectors[:, chosen].mT
            for direction in self._by_kind()[kind]:
                indices = [places[entry] for entry in direction.entries]
                for number in (part[:, indices].norm(dim=1) > least).nonzero().flatten().tolist():
                    moved[number].append(direction)
        # of what is left out, as much as the curvature that it may have by chance would make of it
        error = (left_out[:, ~good].square() / self._error[~good].clamp_min(1e-300)).sum(1)
        wrong = torch.einsum("vi,pij,vj->pv", slopes, self._errors[:, good][:, :, good], slopes)
        error = (error + root_mean_square(wrong)) / covariance.diagonal().clamp_min(1e-300)
        covariance = covariance + self._of_weak(scaled, covariance.diagonal().clone(), moved)
        return Spread(marked(covariance, moved, []), moved, [], error)

    def _of_weak(self, scaled: Tensor, variances: Tensor, moved: list[list[Direction]]) -> Tensor:
        """Return what weak directions add to a covariance, and note those that are open."""
        vectors, values = self.vectors[:, self._weak], self.values[self._weak]
        negative = self._open()["negative"][self._weak]
        valleys = Valleys(self.expansion, self.scale, vectors, values)
        roots = scaled.new_zeros(len(scaled), len(values))
        for number, row in enumerate(scaled @ vectors):
            row = torch.where(row.abs() > TOUCHING * scaled[number].norm(), row, 0.0)
            shares = valleys.shares(row, float(variances[number]))
            kinds: tuple[tuple[Kind, Tensor], ...] = (("negative", negative), ("unresolved", ~negative))
            for kind, chosen in kinds:
                if bool((chosen := chosen & shares.isinf()).any()):
                    moved[number] += self._named(kind, vectors[:, chosen], values[chosen])
            roots[number] = row.sign() * shares.sqrt().nan_to_num(posinf=0.0)
        return roots @ roots.mT

    def newton_step(self) -> Tensor:
        good = self._good
        vectors = self.vectors[:, good]
        slope = vectors.mT @ (self.scale * self.expansion.gradient)
        return -self.scale * (vectors @ (slope / self.values[good]))


def units(hessian: Tensor) -> Tensor:
    """Return for every entry the unit in which its own curvature is one, (size,); one for an entry without a part.

    Where the matrix is indefinite a diagonal may be small beside its row, to which the unit is then fitted.

    References:
        Ruiz. A scaling algorithm to equilibrate both rows and columns norms in matrices. 2001.
    """
    rows = hessian.abs().amax(1)
    diagonal = hessian.diagonal().abs()
    found = torch.where(diagonal > 0, diagonal, torch.where(rows > 0, rows, 1.0)).rsqrt()
    for _ in range(20):
        largest = (found[:, None] * hessian * found).abs().amax(1)
        if float(largest.max()) <= 1.01:
            break
        found = found / largest.clamp_min(1.0).sqrt()
    return found


def errors_of(parts: Tensor) -> Tensor:
    """Return deviations of parts, (part, ...), from their mean, so large that their root mean square is its error."""
    return (parts - parts.mean(0)) / (len(parts) - 1) ** 0.5


def root_mean_square(draws: Tensor) -> Tensor:
    """Return it over the first axis."""
    return draws.square().mean(0).sqrt()


def checked(used: Tensor) -> Tensor:
    """Return which entries play a part; a ValueError where none does."""
    if not bool(used.any()):
        raise ValueError("uncertainty: the data say nothing of any weight")
    return used


def marked(covariance: Tensor, moved: list[list[Direction]], unsolved: list[int]) -> Tensor:
    """Return a covariance with infinity or NaN where there is none."""
    for number, along in enumerate(moved):
        if not along and number not in unsolved:
            continue
        covariance[number, :] = covariance[:, number] = torch.nan
        negative = number in unsolved or any(each.kind == "negative" for each in along)
        covariance[number, number] = torch.nan if negative else torch.inf
    return covariance
