"""Directions among the weights that the data leave open, by the names of the weights that span them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

SHOWN = 4  # entries that are named one by one
LEAST_SHARE = 1e-3  # of the largest entry of a direction, squared, from which on an entry belongs to it

Kind = Literal["flat", "negative", "unresolved", "unused"]


@dataclass(frozen=True)
class Direction:
    """Weights of which the data do not tell all: some combination of them can change without the density falling.

    Attributes:
        kind: "flat": the density stays (of two factors of which the product alone matters, one can grow as the other
            shrinks); "negative": it rises, so that the point is no mode; "unresolved": it may stay or not, within the
            error of the importance samples, or of a point that is no mode; "unused": the entries play no part in it.
        parameters: the parameters to which they belong, by their names in `parameters_table`, the largest share first.
        entries: the entries themselves.
        shares: of every entry in the direction, or in all of them together, at most one; where each weight has its own
            curvature as its unit.
        dimension: how many independent directions the entries span.
        curvature: of the log density along it, as a share of the largest one; in the same units.
    """

    kind: Kind
    parameters: tuple[str, ...]
    entries: tuple[str, ...]
    shares: tuple[float, ...]
    dimension: int
    curvature: float

    def __str__(self) -> str:
        if len(self.entries) <= SHOWN:
            of = ", ".join(self.entries)
        else:
            of = f"{', '.join(self.parameters[:SHOWN])}{', ...' if len(self.parameters) > SHOWN else ''}"
            of = f"{of} ({len(self.entries)} entries)"
        if self.kind == "unused":
            return f"{of}, which plays no part"
        what = {
            "flat": "flat direction",
            "negative": "direction of negative curvature",
            "unresolved": "unresolved direction",
        }[self.kind]
        head = (
            f"{'an' if what[0] == 'u' else 'a'} {what}"
            if self.dimension == 1
            else f"{self.dimension} {what.replace('direction', 'directions')}"
        )
        return f"{head}, of {of}"


def members(vectors: Tensor) -> Tensor:
    """Return which entries orthonormal vectors (size, vector) are made of, as indices (entry,)."""
    shares = vectors.square().sum(1)
    return (shares > LEAST_SHARE * shares.max()).nonzero().flatten()


def blocks(vectors: Tensor) -> list[Tensor]:
    """Return the sets of entries that orthonormal vectors (size, vector) tie together, each as indices (entry,).

    Whatever basis the space is given in: entries belong together where the projection onto it has them so.
    """
    from scipy.sparse.csgraph import connected_components

    indices = members(vectors)
    rows = vectors[indices]
    rows = rows / rows.norm(dim=1, keepdim=True)
    tied = (rows @ rows.mT).abs() > LEAST_SHARE
    count, labels = connected_components(tied.cpu().numpy(), directed=False)
    groups = torch.from_numpy(labels).to(indices.device)
    return [indices[groups == label] for label in range(count)]


def named(
    kind: Kind, vectors: Tensor, indices: Tensor, names: Sequence[str], owners: Sequence[str], curvature: float
) -> Direction:
    """Return the direction that orthonormal vectors (size, vector) make of some entries."""
    shares = vectors[indices].square().sum(1)
    order = shares.argsort(descending=True, stable=True)
    indices, shares = indices[order], shares[order]
    entries = tuple(names[i] for i in indices.tolist())
    parameters = tuple(dict.fromkeys(owners[i] for i in indices.tolist()))
    dimension = max(1, round(float(shares.sum())))
    return Direction(kind, parameters, entries, tuple(shares.clamp_max(1.0).tolist()), dimension, curvature)


def unused(indices: Tensor, names: Sequence[str], owners: Sequence[str]) -> list[Direction]:
    """Return the entries that play no part in the density, parameter by parameter."""
    found: dict[str, list[str]] = {}
    for i in indices.tolist():
        found.setdefault(owners[i], []).append(names[i])
    return [
        Direction("unused", (owner,), tuple(entries), (1.0,) * len(entries), len(entries), 0.0)
        for owner, entries in found.items()
    ]
