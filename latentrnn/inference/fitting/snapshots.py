"""Copies of what a step of the optimizer changes: snapshots to go back to, and the moving average of the weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from latentrnn.support.private_symbols import lerp_all_


class Snapshot(NamedTuple):
    """Copies of all that a step changes.

    Attributes:
        step: the step whose gradient is taken at these weights.
        tensors: by name, `model/...`, `guide/...`, `optimiser/0/exp_avg`, `average/0`.
    """

    step: int
    tensors: dict[str, Tensor]


def take_snapshot(
    step: int, model: nn.Module, guide: nn.Module, optimizer: torch.optim.Optimizer, average: list[Tensor]
) -> Snapshot:
    """Return a snapshot; nothing in it changes with later steps."""
    found = {f"model/{name}": value for name, value in model.state_dict().items()}
    found |= {f"guide/{name}": value for name, value in guide.state_dict().items()}
    numbers = _numbers(optimizer)
    for index, moments in optimizer.state_dict()["state"].items():
        found |= {f"optimiser/{numbers[index]}/{name}": value for name, value in moments.items()}
    found |= {f"average/{index}": value for index, value in enumerate(average)}
    return Snapshot(step, {name: value.detach().clone() for name, value in found.items()})


@torch.no_grad()
def put_back(
    snapshot: Snapshot, model: nn.Module, guide: nn.Module, optimizer: torch.optim.Optimizer, average: list[Tensor]
) -> None:
    """Give everything the values that it had; the snapshot itself stays usable."""
    model.load_state_dict(part(snapshot.tensors, "model"))
    guide.load_state_dict(part(snapshot.tensors, "guide"))
    moments: dict[int, dict[str, Tensor]] = {}
    indices = {number: index for index, number in enumerate(_numbers(optimizer))}
    for path, value in part(snapshot.tensors, "optimiser").items():
        index, _, name = path.partition("/")
        moments.setdefault(indices[int(index)], {})[name] = value.clone()  # the optimizer writes into what it is given
    optimizer.load_state_dict(optimizer.state_dict() | {"state": moments})
    for number, mean in enumerate(average):
        mean.copy_(snapshot.tensors[f"average/{number}"])


def in_order(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    """Return the parameters of an optimizer in the order in which snapshots number their moments."""
    held = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    return [parameter for _, parameter in sorted(zip(_numbers(optimizer), held, strict=True), key=lambda pair: pair[0])]


def _numbers(optimizer: torch.optim.Optimizer) -> list[int]:
    return [number for group in optimizer.param_groups for number in group["numbers"]]


def part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the tensors below `prefix/`, named without it."""
    return {name.removeprefix(f"{prefix}/"): v for name, v in tensors.items() if name.startswith(f"{prefix}/")}


class Average:
    """An exponential moving average of the weights, which can change places with the weights themselves."""

    def __init__(self, parameters: list[nn.Parameter], decay: float) -> None:
        self.parameters, self.decay = parameters, decay
        self.values = [p.detach().clone() for p in parameters] if decay else []

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after a step; early on the average forgets faster, so that the start does not linger."""
        if self.decay:
            decay = min(self.decay, (1 + step) / (10 + step))
            lerp_all_(self.values, [p.detach() for p in self.parameters], 1 - decay)

    @torch.no_grad()
    def restart(self) -> None:
        """Begin again at the present weights."""
        for parameter, value in zip(self.parameters, self.values, strict=False):
            value.copy_(parameter)

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange weights and average."""
        for parameter, value in zip(self.parameters, self.values, strict=False):
            kept = parameter.clone()
            parameter.copy_(value)
            value.copy_(kept)
