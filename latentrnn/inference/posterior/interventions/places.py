"""Where an intervention acts: at which steps, and on which units."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias, cast

import torch
from torch import Tensor

from latentrnn.models.latents import Latent
from latentrnn.models.transitions import Transition
from latentrnn.support.arguments import check_integer, check_list, is_integer

Steps: TypeAlias = int | slice | Sequence[int] | None


class Silent(NamedTuple):
    """Units that are lesioned.

    Attributes:
        kept: one for each number of the state that stays, zero for the others, (state_size,).
        steps: after which steps they are silent, (time,) of bool.
    """

    kept: Tensor
    steps: Tensor


def checked_steps(owner: str, at: Steps) -> Steps:
    """Return where in time something acts, its integers plain.

    Raises:
        ValueError: neither a step, nor a slice or a list of some.
    """
    if at is None:
        return None
    if is_integer(at):
        return int(cast(int, at))
    if isinstance(at, slice):
        parts = (at.start, at.stop, at.step)
        if all(part is None or is_integer(part) for part in parts):
            return slice(*(None if part is None else int(part) for part in parts))
    elif isinstance(at, Sequence) and not isinstance(at, str) and at and all(is_integer(step) for step in at):
        return [int(step) for step in at]
    raise ValueError(f"{owner}: at must be a base step, a slice or a list of steps; found {at!r}")


def steps_of(owner: str, at: Steps, num_steps: int) -> Tensor:
    """Return at which base steps something acts, (time,) of bool.

    Raises:
        ValueError: steps that the data do not have, or none at all.
    """
    found = torch.zeros(num_steps, dtype=torch.bool)
    at = checked_steps(owner, at)
    chosen = range(num_steps)[at] if isinstance(at, slice) else [at] if isinstance(at, int) else at
    chosen = range(num_steps) if chosen is None else chosen
    if not len(chosen) or not all(-num_steps <= step < num_steps for step in chosen):
        raise ValueError(f"{owner}: expected steps of the data, 0 to {num_steps - 1}; found {at!r}")
    found[list(chosen)] = True
    return found


def checked_units(owner: str, units: Sequence[int] | None) -> list[int] | None:
    """Return places of units, counted from zero.

    Raises:
        ValueError: none, one twice, or a place below zero.
        TypeError: no list of integers.
    """
    if units is None:
        return None
    found = [check_integer(owner, "units", unit, least=0) for unit in check_list(owner, "units", units, "units")]
    if not found or len(set(found)) < len(found):
        raise ValueError(f"{owner}: units must be places, each once; found {units!r}")
    return found


def silenced(transition: Transition, latent: Latent, units: list[int], steps: Tensor) -> Silent:
    """Return which numbers of the state are lesioned with some units of h_t.

    A unit that is silent sends nothing, to readouts and to the next step. Its cell, which no other unit sees, goes on.

    Raises:
        ValueError: a unit that is not there, a transition whose output is no part of its state, or states that are
            summed out.
    """
    if latent.marginalises:
        raise ValueError(f"lesion: {type(latent).__name__} sums states out, so that none can be held")
    if max(units) >= transition.hidden_size:
        raise ValueError(f"lesion: expected units below {transition.hidden_size}; found {units}")
    places = torch.arange(transition.state_size, dtype=torch.float64)
    with torch.no_grad():
        read = transition.output(places)
    if not bool(torch.isin(read, places).all()):
        raise ValueError(f"lesion: the output of {transition!r} is no part of its state; clamp a gate instead")
    kept = torch.ones(transition.state_size)
    kept[read[units].long()] = 0.0
    return Silent(kept, steps)
