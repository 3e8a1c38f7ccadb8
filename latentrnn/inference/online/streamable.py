"""What an online filter asks of a model and a guide before it goes through a sequence step by step."""

from __future__ import annotations

import dataclasses
from typing import Any

import pyro
import torch

from latentrnn.inference.guides.guide import Guide
from latentrnn.models.features import Feature
from latentrnn.models.observations import Observation
from latentrnn.models.readouts import Readout
from latentrnn.models.state_space import LatentRNN
from latentrnn.support.arguments import check_names, check_size, is_integer
from latentrnn.support.isolation import random_state
from latentrnn.support.shown import shown

PARAMETER_DRAWS = 256


def fix_parameters(model: LatentRNN, guide: Guide, seed: int) -> None:
    """Put parameters with priors at their means under the guide, in place, over `PARAMETER_DRAWS` draws from a seed.

    Means are of the parameters as they are declared, in the units of the data. Nothing is done without such parameters.
    """
    if guide.parameter_sites is None:
        return
    with random_state(seed), torch.no_grad(), pyro.plate("draws", PARAMETER_DRAWS, dim=-2):
        values = guide.parameter_sites()
    with torch.no_grad():
        for parameter, _ in sorted(model.given.sampled, key=lambda each: bool(each.parameter.spec.follows)):
            parameter.set(values[parameter.site].mean(0).squeeze(0))


def check_guide(guide: Guide, *, particles: bool) -> None:
    """Raise unless a guide knows sequences that it was not fitted to, and gives particles step by step.

    Raises:
        ValueError: naming the family and what to use.
    """
    family = guide.local
    if not family.amortised:
        raise ValueError(f"OnlineFilter: {family!r} knows the sequences of its fit alone; it needs an encoder")
    if particles and not family.stepwise:
        raise ValueError(
            f"OnlineFilter: steps of {type(family).__name__} lean on later ones, or on all before, so that particles "
            "cannot come from it; use Markov or MeanField, or the guide alone (num_particles=None)"
        )


def check_streams(streams: Any) -> tuple[str, ...] | None:
    """Return the names of streams; None for one sequence without a name.

    Raises:
        TypeError, ValueError: neither names nor a number, or a name twice.
    """
    if streams is None:
        return None
    if is_integer(streams):
        return tuple(map(str, range(check_size("OnlineFilter", "streams", streams))))
    names = tuple(check_names("OnlineFilter", "streams", streams))
    if not names or len(set(names)) < len(names):
        raise ValueError(f"OnlineFilter: streams must be distinct names; found {shown(list(names))}")
    return names


def check_sessions(model: LatentRNN, session: Any, streams: int) -> tuple[str, ...] | None:
    """Return the session of every stream; None where it is any.

    Raises:
        ValueError: a session that the model does not know, or not one for each stream.
    """
    if session is None:
        return None
    known = sorted({head.session for head in model.spec.heads.values() if head.session is not None})
    several = isinstance(session, list | tuple)
    for each in session if several else [session]:
        if not isinstance(each, str) or each not in known:
            raise ValueError(f"OnlineFilter: unknown session {each!r}; the model has {known}")
    if several and len(session) != streams:
        raise ValueError(f"OnlineFilter: expected one session for each of {streams} streams; found {len(session)}")
    return tuple(session) if several else (session,) * streams


def heads_of_steps(model: LatentRNN) -> dict[str, Observation]:
    """Return the per-step heads, put on the base clock: a frame comes now and then.

    Raises:
        ValueError: a head that depends on more than the present state and step, or whose readout remembers all states.
    """
    found = {}
    for name, head in model.observations.items():
        if not head.head.per_step:
            continue
        if not head.stepwise:
            raise ValueError(
                f"OnlineFilter: head {name!r}, {type(head).__name__}, depends on more than the present state and step"
            )
        if head.readout.memory is None:
            raise ValueError(
                f"OnlineFilter: {type(head.readout).__name__} of head {name!r} remembers all states, so that "
                "memory would grow; use WindowedAttention"
            )
        head.head = dataclasses.replace(head.head, clock=1)
        found[name] = head
    return found


def steps_to_remember(model: LatentRNN, guide: Guide | None) -> int:
    """Return how many steps before the present one features of covariates look at.

    Raises:
        ValueError: a part that looks at covariates that have not come yet.
    """
    parts = [part for part in model.modules() if isinstance(part, Feature | Readout)]
    if guide is not None:
        parts += [part for part in guide.modules() if isinstance(part, Feature)]
    for part in parts:
        if part.lookahead:
            raise ValueError(f"OnlineFilter: {part!r} looks at covariates that have not come yet")
    memory = max((part.memory for part in parts if isinstance(part, Feature)), default=0)
    return max(memory, 1) if model.spec.irregular else memory


def parts_with_checks(model: LatentRNN) -> list[Feature | Readout]:
    """Return the parts that check the covariates they read, so that a step is checked by them alone (ValueError)."""
    parts = [part for part in model.modules() if isinstance(part, Feature | Readout)]
    return [part for part in parts if type(part).check not in (Feature.check, Readout.check)]
