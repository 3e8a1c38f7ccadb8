"""Linear systems of a symmetric matrix that is known by its products alone, singular and indefinite ones included."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

Product = Callable[[Tensor], Tensor]

ACCURACY = 1e-7  # of a solution's residual, relative to the right side
TOUCHING = 1e-6  # the share of a vector along a direction from which on it counts
CHECKED_EVERY = 5  # products
ROOM = 32  # vectors of a basis, at first


class Pairs(NamedTuple):
    """Approximate eigenvalues with their vectors, from the space that a vector spans with its images.

    Attributes:
        values: (pair,), ascending.
        vectors: (size, pair), of length one.
        shares: of the starting vector (of length one) along each, (pair,).
        leaving: what A v has beyond value * v, along the one direction that leads out of the space, (pair,).
    """

    values: Tensor
    vectors: Tensor
    shares: Tensor
    leaving: Tensor


class Solution(NamedTuple):
    """x with A x = b, what b has along eigenvalues that are not resolved left out.

    Attributes:
        value: x, (size,).
        residual: |A x - b| / |b| of what is resolved.
        pairs: the eigenvalues that b feels.
        resolved: which of them exceed the floor, (pair,).
    """

    value: Tensor
    residual: float
    pairs: Pairs
    resolved: Tensor


class Lanczos:
    """Lanczos's recursion with full reorthogonalisation: an orthonormal basis in which the matrix is tridiagonal.

    Args:
        product: of the matrix with a vector.
        start: (size,), not zero.

    References:
        Lanczos. An iteration method for the solution of the eigenvalue problem. 1950.
        Golub, Van Loan. Matrix computations. 2013.
    """

    def __init__(self, product: Product, start: Tensor) -> None:
        self.product = product
        self._basis = start.new_empty(ROOM, len(start))
        self._basis[0] = start / start.norm()
        self.diagonal: list[float] = []
        self.beside: list[float] = []  # the last one leads out of the space

    def __len__(self) -> int:
        return len(self.diagonal)

    @property
    def closed(self) -> bool:
        """Whether the matrix maps the space into itself, so that all within it is exact."""
        largest = max(map(abs, [*self.diagonal, *self.beside]), default=0.0)
        return len(self) == self._basis.shape[1] or (len(self) > 0 and self.beside[-1] <= 1e-13 * largest)

    def advance(self) -> None:
        """Take in one more product."""
        count = len(self) + 1
        if count == len(self._basis):
            self._basis = torch.cat([self._basis, torch.empty_like(self._basis)])
        basis = self._basis[:count]
        image = self.product(basis[-1])
        self.diagonal.append(float(basis[-1] @ image))
        for _ in range(2):  # once is not enough for the last digits
            image = image - basis.mT @ (basis @ image)
        length = float(image.norm())
        self.beside.append(length)
        self._basis[count] = image / length if length > 0 else image

    def pairs(self, *, vectors: bool = True) -> Pairs:
        """Return the eigenvalues of the matrix in the space; their vectors, too, or none, (size, 0)."""
        beside = torch.tensor(self.beside, dtype=torch.float64)
        matrix = torch.diag(torch.tensor(self.diagonal, dtype=torch.float64))
        matrix = matrix + torch.diag(beside[:-1], 1) + torch.diag(beside[:-1], -1)
        values, rotation = torch.linalg.eigh(matrix)
        out = torch.zeros_like(values) if self.closed else beside[-1] * rotation[-1]
        basis = self._basis[: len(self)]
        values, rotation, out = (part.to(basis) for part in (values, rotation, out))
        return Pairs(values, basis.mT @ (rotation if vectors else rotation[:, :0]), rotation[0], out)


def solve(product: Product, right: Tensor, *, floor: float, limit: int) -> Solution:
    """Solve A x = b in the space of b and its images, of which it takes in as many as it needs.

    Args:
        product: of A with a vector.
        right: b, (size,), not zero.
        floor: eigenvalues below this share of the largest are not resolved.
        limit: products at most.
    """
    space = Lanczos(product, right)
    while True:
        space.advance()
        done = space.closed or len(space) >= limit
        if not (done or len(space) % CHECKED_EVERY == 0):
            continue
        pairs = space.pairs(vectors=False)
        least = floor * pairs.values.abs().max()
        resolved = pairs.values.abs() > least
        weights = torch.where(resolved, pairs.shares / torch.where(resolved, pairs.values, 1.0), 0.0)
        residual = abs(float(pairs.leaving @ weights))
        # what looks flat is so only once it is an eigenvector
        open_still = ~resolved & (pairs.shares.abs() > TOUCHING) & (pairs.leaving.abs() > least)
        if bool(open_still.any()):
            residual = max(residual, float(pairs.shares[open_still].norm()))
        if residual <= ACCURACY or done:
            pairs = space.pairs()
            return Solution(right.norm() * (pairs.vectors @ weights), residual, pairs, resolved)


def spectrum(product: Product, start: Tensor, *, count: int) -> Pairs:
    """Return approximate eigenvalues from a vector and `count` products: the outermost first to be right."""
    space = Lanczos(product, start)
    while len(space) < count and not space.closed:
        space.advance()
    return space.pairs()


def row_norms(product: Product, like: Tensor, *, probes: int, generator: torch.Generator) -> Tensor:
    """Return sqrt(sum_j A_ij^2) of every row, estimated from products with random signs, (size,).

    References:
        Bekas, Kokiopoulou, Saad. An estimator for the diagonal of a matrix. 2007.
    """
    total = torch.zeros_like(like)
    for _ in range(probes):
        signs = 2.0 * torch.randint(0, 2, like.shape, generator=generator) - 1.0
        total = total + product(signs.to(like)) ** 2
    return (total / probes).sqrt()
