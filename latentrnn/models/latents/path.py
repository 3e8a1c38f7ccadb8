"""What a latent draws: its sites, a path of the state, and single steps of one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import pyro.distributions as dist
from torch import Tensor


@dataclass(frozen=True)
class LatentSite:
    """What a guide must know of a latent site.

    Attributes:
        name: of the site.
        dim: of what is drawn, for each sequence or step.
        along_time: whether one is drawn for every step.
        heavy_tailed: whether its prior makes rare, large draws among small ones.
    """

    name: str
    dim: int
    along_time: bool
    heavy_tailed: bool = False


class Path(NamedTuple):
    """One draw of everything random in the state.

    Attributes:
        initial_state: s_0, (..., state_size).
        innovations: u_{1:T}, (*sample, sequence, time, dim), where the latent has them.
        states: z_{1:T}, (*sample, sequence, time, dim), where the states themselves were drawn.
    """

    initial_state: Tensor
    innovations: Tensor | None = None
    states: Tensor | None = None


class Carry(NamedTuple):
    """What one step of the prior needs of the step before: the state and, where it is remembered, what was drawn."""

    state: Tensor
    innovation: Tensor | None = None


class Step(NamedTuple):
    """One step before anything is drawn at it, so that a filter may draw from elsewhere.

    Attributes:
        prior: p(u_t or z_t | past), batch shape that of the particles, event (dim,); None where nothing is drawn.
        move: the value drawn (None where nothing is) to what the next step needs.
    """

    prior: dist.Distribution | None
    move: Callable[[Tensor | None], Carry]
