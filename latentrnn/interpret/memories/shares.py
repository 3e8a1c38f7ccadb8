"""Which share of the state each step keeps, cell by cell and layer by layer, by its recorded gates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor

from latentrnn.interpret.results.names import by_layer, layers_of
from latentrnn.models.transitions import Transition
from latentrnn.support.arguments import check_choice


class Share(NamedTuple):
    """What is kept: by the gate of a name, or by its complement; None for what the transition says."""

    gate: str | None
    complement: bool


def kept_shares(owner: str, transition: Transition, gates: Mapping[str, Tensor], share: Share) -> dict[str, Tensor]:
    """Return the share of the state that is kept, (..., size), by a prefix for names: "", "slow.", "layer0.".

    Args:
        owner: who asks, for error messages.
        transition: whose gates they are.
        gates: as recorded, (..., size).
        share: which gate says so.

    Raises:
        ValueError: no such gate, or one with values outside [0, 1].
    """
    if share.gate is None:
        return {name: value for prefix in transition.inner_cells() for name, value in _own(transition, gates, prefix)}
    known = by_layer(transition, gates)
    value = known[check_choice(owner, "gate", share.gate, known)]
    if not bool(((value >= 0) & (value <= 1)).all()):
        raise ValueError(f"{owner}: gate {share.gate!r} has values outside [0, 1], which are no shares")
    prefix = share.gate.rpartition(".")[0]
    return {f"{prefix}." if prefix else "": 1 - value if share.complement else value}


def _own(transition: Transition, gates: Mapping[str, Tensor], prefix: str) -> list[tuple[str, Tensor]]:
    """Return the shares of one cell, layer by layer, with their prefixes; none where the cell does not say."""
    cell = transition.inner_cells()[prefix]
    own = {name: value for name, value in gates.items() if name.rpartition(".")[0] == prefix}
    split = {name: value.chunk(layers_of(transition, name), -1) for name, value in own.items()}
    layers, found = max((len(each) for each in split.values()), default=1), []
    for layer in range(layers):
        by_name = {name.rpartition(".")[2]: each[layer % len(each)] for name, each in split.items()}
        kept = cell.kept_share(by_name)
        if kept is not None:
            parts = [prefix, f"layer{layer}" if layers > 1 else ""]
            found.append(("".join(f"{part}." for part in parts if part), kept))
    return found


def say_all(transition: Transition, shares: Mapping[str, Tensor]) -> bool:
    """Return whether every cell says what it keeps, so that its gates may stand for the whole memory."""
    return all(
        any(name.startswith(f"{prefix}." if prefix else "") for name in shares) for prefix in transition.inner_cells()
    )
