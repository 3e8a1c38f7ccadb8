"""What goes by which name: the channels of a transition's input, its gates layer by layer, the parts of its state."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from latentrnn.models.state_space import LatentRNN
from latentrnn.models.transitions import Transition

CLOCK, COVARIATES = "the time since the last step", "covariates"


def input_names(model: LatentRNN) -> list[str]:
    """Return the name of each channel of a_t: "gap", a covariate's features, "spikes[0]" of a past, "innovation[0]"."""
    found: list[str] = []
    for kind, channels in model.transition.input_shares.items():
        if kind == CLOCK:
            found.append("gap")
        elif kind == COVARIATES:
            found += _covariates(model)
        elif kind == "a constant":
            found.append("constant")
        else:
            what = kind.removeprefix("the past of ").strip("'") if kind.startswith("the past of") else "innovation"
            found += [f"{what}[{place}]" for place in range(channels)]
    return found


def _covariates(model: LatentRNN) -> list[str]:
    """Return the channels' names, with those of their covariates where a name alone would not tell them apart."""
    items = [*model.transition.own_inputs, *model.inputs]
    owners = [
        item if isinstance(item, str) else ""
        for item, size in zip(items, model.features.sizes, strict=True)
        for _ in range(size)
    ]
    return [
        name if not owner else owner if owners.count(owner) == 1 else f"{owner}[{name}]"
        for owner, name in zip(owners, model.features.names, strict=True)
    ]


def by_layer(transition: Transition, gates: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return recorded gates, (..., size), one entry a layer: "layer0.forget" where a transition has several layers."""
    found: dict[str, Tensor] = {}
    for name, value in gates.items():
        layers = layers_of(transition, name)
        prefix, dot, gate = name.rpartition(".")
        for layer, part in enumerate(value.chunk(layers, -1)):
            found[name if layers == 1 else f"{prefix}{dot}layer{layer}.{gate}"] = part
    return found


def layers_of(transition: Transition, gate: str) -> int:
    """Return in how many layers a transition has a gate: how often one step passes through it."""
    cells = transition.inner_cells()
    prefix = gate.rpartition(".")[0]
    cell = cells.get(prefix, transition)
    return max(1, getattr(_innermost(cell), "layers", 1)) if gate.rpartition(".")[2] != "decay" else 1


def _innermost(cell: Transition) -> Transition:
    inner = getattr(cell, "transition", None)
    return cell if not isinstance(inner, Transition) else _innermost(inner)


def is_content(transition: Transition, gate: str) -> bool:
    """Return whether a recorded gate is what is let in (a candidate, a force), and not how much of it."""
    prefix, _, name = gate.rpartition(".")
    cell = transition.inner_cells().get(prefix, transition)
    return name in _innermost(cell).contents


def states_by_name(transition: Transition, states: Tensor) -> dict[str, Tensor]:
    """Return the parts of whole states, (..., size), by name."""
    with torch.no_grad():
        return transition.named_states(states)
