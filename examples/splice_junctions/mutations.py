"""What other bases would do: around junctions, and at branch points, which windows of acceptors have, or not.

The adenosine of yUnAy, at which an intron is bound to itself, is mostly 18 to 40 bases before the acceptor, of which
windows have the last thirty. The control is yNUAy, the same bases in another order, which nothing binds.

References:
    Reed, Maniatis. Intron sequences involved in lariat formation during pre-mRNA splicing. 1985.
    Gao, Masuda, Matsuura, Ohno. Human branch point consensus sequence is yUnAy. 2008.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

import latentrnn as lr
from examples.simulate import Array
from examples.splice_junctions.data import NEAR

REGION = range(3, 14)  # positions of the adenosine, 27 to 17 bases before the junction
ACCEPTOR, NEITHER = 1, 2


def effects(posterior: lr.Posterior) -> Array:
    """What each base near the junction does to the log-odds of donors and acceptors, (kind, position, base)."""
    change = lr.interpret.mutagenesis(posterior, "kind", "base", positions=NEAR, num_samples=1).change[0, :, :, 0]
    odds, kind = (change - change.sel(output=NEITHER)).values, posterior.data.observations["kind"][:, 0].numpy()
    return np.stack([odds[kind == place, ..., place].mean(0) for place in (0, ACCEPTOR)])


def places(bases: NDArray[np.int_], *, scrambled: bool = False) -> NDArray[np.bool_]:
    """Where in the region an adenosine has the consensus around it, or the scrambled one, (window, position)."""
    pyrimidine, third, second = (bases == 1) | (bases == 3), 1 if scrambled else 2, 2 if scrambled else 1
    at = np.array(REGION)
    uracil = (bases[:, at - third] == 3) & (bases[:, at - second] != 3)  # the other order is no match of both
    return (bases[:, at] == 0) & uracil & pyrimidine[:, at - 3] & pyrimidine[:, at + 1]


class Branches(NamedTuple):
    """Branch points of acceptors, and what their adenosine adds to the log-odds of an acceptor against neither."""

    share: float  # of acceptors with the consensus in the region
    by_chance: float  # with the scrambled one
    adds: Array  # of each that was found
    control: Array

    @property
    def more(self) -> float:
        """How much more the adenosine adds in the consensus than in the scrambled one, in standard errors of it."""
        error = np.hypot(*(each.std(ddof=1) / len(each) ** 0.5 for each in (self.adds, self.control)))
        return float((self.adds.mean() - self.control.mean()) / error)

    def __str__(self) -> str:
        means = (f"{each.mean():+.2f} (s.e. {each.std(ddof=1) / len(each) ** 0.5:.2f})" for each in self[2:])
        return (
            f"branch points: yUnAy in {self.share:.0%} of acceptors, scrambled in {self.by_chance:.0%}, its A adds "
            f"{' and '.join(means)} to the log-odds"
        )


def branch_points(posteriors: Sequence[lr.Posterior]) -> Branches:
    """Ask readers of several seeds for the effect of the A in acceptors: that of the other bases, turned round."""
    found: list[list[Array]] = [[], [], [], []]
    for posterior in posteriors:
        tried = lr.interpret.mutagenesis(posterior, "kind", "base", positions=list(REGION), num_samples=1)
        odds = (tried.change.sel(output=ACCEPTOR) - tried.change.sel(output=NEITHER)).values[0, :, :, 0]
        rows = posterior.data.observations["kind"][:, 0].numpy() == ACCEPTOR
        adds, bases = -odds[rows, :, 1:].mean(-1), posterior.data.covariates["base"][rows, :, 0].numpy().astype(int)
        there = [places(bases, scrambled=scrambled) for scrambled in (False, True)]
        for each, more in zip(found, (*(t.any(1) for t in there), *(adds[t] for t in there)), strict=True):
            each.append(more)
    share, by_chance, adds, control = (np.concatenate(each) for each in found)
    return Branches(float(share.mean()), float(by_chance.mean()), adds, control)
