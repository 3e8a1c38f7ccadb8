"""A penalty of the user's own, written as a plain function of what the heads expect."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from functools import reduce
from typing import Any, Self, TypeVar

import torch
from torch import Tensor

from latentrnn.data import SequenceData
from latentrnn.models.couplings.coupling import Coupling
from latentrnn.models.rollout import Rollout

Penalty = Callable[[Mapping[str, Tensor], SequenceData], Tensor]
F = TypeVar("F", bound=Callable[..., Any])

_REGISTERED: set[str] = set()  # "module:name" of the functions that a file may name


class PhysicalPenalty(Coupling):
    """weight * sum_t function(means, data)_t: laws that the expected observations should keep.

    The function gets the means of all heads, by name, in the data's own units, (*sample, sequence, time, channel), for
    a per-sequence head (*sample, sequence, channel), and the batch (`data.covariates`, `data.spec.dt`, ...). It returns
    a penalty that is zero where the law holds and positive elsewhere, for every step, (*sample, sequence, time), or for
    every sequence, (*sample, sequence). Steps in padding do not count. At a slower head's clock its frames are the
    steps. For laws of the states write a `Coupling`, whose `penalty` sees all of the rollout.

        def charge_is_kept(means, data):                      # the current is the derivative of the charge
            change = means["charge"].diff(dim=-2) / data.spec.dt
            return torch.nn.functional.pad((change - means["current"][..., 1:, :])[..., 0] ** 2, (1, 0))

    A function cannot be written into JSON, only its name. So one that is to be saved (or gone on from, with
    `fit(start_from=...)`) must be defined at the top level of a module; a lambda, a local function or a partial can be
    fitted but not saved. A file must not decide what is called, so that before loading the module must be imported, as
    with classes of your own, and the function be registered: by `PhysicalPenalty.register`, best as a decorator, or by
    having been given to a `PhysicalPenalty`.

        @lr.PhysicalPenalty.register
        def charge_is_kept(means, data): ...

    Args:
        function: the function, or "module:name" of one in a module that is imported.
        weight: see `Coupling`.
        name: what it is called in reports; by default as the function.

    Raises:
        TypeError: no function; while fitting, something that is no tensor comes back.
        ValueError: a name that leads to no function; while fitting, a penalty of another shape; while saving, a
            function that has no name by which it can be found again.

    References:
        Raissi, Perdikaris, Karniadakis. Physics-informed neural networks. 2019.
        Daw, Karpatne, Watkins, Read, Kumar. Physics-guided neural networks: an application in lake temperature
        modeling. 2017.
    """

    def __init__(self, function: Penalty | str, weight: float = 1.0, name: str | None = None) -> None:
        super().__init__(weight, name=name)
        if not isinstance(function, str) and not callable(function):
            raise TypeError(f"PhysicalPenalty: function must be a function; found {type(function).__name__}")
        self.function: Penalty = _found(function) if isinstance(function, str) else function
        if (address := _address(self.function)) is not None:
            _REGISTERED.add(address)

    @staticmethod
    def register(function: F) -> F:
        """Let files of fits name a function, and return it; usable as a decorator.

        Raises:
            TypeError: no function.
            ValueError: a function that has no name by which it can be found: a lambda, a local function or a partial.
        """
        if not callable(function):
            raise TypeError(f"PhysicalPenalty.register: expected a function; found {type(function).__name__}")
        module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", None)
        if module is None or name is None or "<" in name:
            raise ValueError(
                f"PhysicalPenalty.register: {function!r} has no name by which it can be found; define it with def at "
                "the top level of a module"
            )
        _REGISTERED.add(f"{module}:{name}")
        return function

    @classmethod
    def _from_arguments(cls, arguments: dict[str, Any]) -> Self:
        address = arguments.get("function")
        if not isinstance(address, str) or address not in _REGISTERED:
            module, _, name = str(address)[:200].partition(":")
            raise ValueError(
                f"PhysicalPenalty: the file names the function {name!r} of {module!r}, which is not registered; import "
                f"(or define) it, and call PhysicalPenalty.register({name.rpartition('.')[2]}) before loading"
            )
        return super()._from_arguments(arguments)

    @property
    def label(self) -> str:
        return self.name or getattr(self.function, "__name__", "<lambda>").replace("<lambda>", "PhysicalPenalty")

    def arguments(self) -> dict[str, Any]:
        return super().arguments() | {"function": _address(self.function) or self.function}

    def config(self) -> dict[str, Any]:
        if _address(self.function) is None:
            raise ValueError(
                f"PhysicalPenalty {self.label!r}: {self.function!r} has no name by which it can be found again when it "
                "is loaded; define it with def at the top level of a module (no lambda, local function or partial)"
            )
        return super().config()

    def fresh(self) -> Self:
        return type(self)(**super().arguments())

    def penalty(self, rollout: Rollout) -> Tensor:
        heads = {name: rollout.distribution(name) for name in rollout.observations}
        batch = torch.broadcast_shapes(*(head.batch_shape for head in heads.values()))
        means = {}
        for name, head in heads.items():
            mean = rollout.observations[name].mean(head)
            means[name] = mean.expand(*batch, *mean.shape[len(head.batch_shape) :])
        found = self.function(means, rollout.data)
        if not isinstance(found, Tensor):
            raise TypeError(f"PhysicalPenalty {self.label!r}: expected a tensor; found {type(found).__name__}")
        if found.shape == batch:
            return found
        clock = self._clock(rollout, found, batch)
        inside = torch.arange(found.shape[-1], device=found.device) < (rollout.data.lengths // clock)[:, None]
        return torch.where(inside, found, 0.0).sum(-1)

    def _clock(self, rollout: Rollout, found: Tensor, batch: torch.Size) -> int:
        """Return how many base steps one step of the penalty takes."""
        frames = {rollout.data.num_steps: 1}
        for name, head in rollout.observations.items():
            if head.head.per_step:
                frames.setdefault(rollout.data.observations[name].shape[1], head.head.clock)
        if found.dim() == 0 or found.shape[:-1] != batch or found.shape[-1] not in frames:
            expected = " or ".join(str((*batch, steps)) for steps in frames)
            raise ValueError(
                f"PhysicalPenalty {self.label!r}: expected one penalty per step, {expected}, or per sequence, "
                f"{tuple(batch)}; found shape {tuple(found.shape)}"
            )
        return frames[found.shape[-1]]


def _address(function: Any) -> str | None:
    """Return "module:name" where that leads to the function, else None."""
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", None)
    address = f"{module}:{name}"
    try:
        return address if _found(address) is function else None
    except ValueError:
        return None


def _found(address: str) -> Penalty:
    # only what is imported already: a file must not decide what code is loaded
    module, _, name = address.partition(":")
    try:
        function = reduce(getattr, name.split("."), sys.modules[module])
    except (KeyError, AttributeError):
        function = None
    if not callable(function):
        raise ValueError(
            f"PhysicalPenalty: there is no function {address!r}; import (or define) the module {module!r} that has it, "
            "and write 'module:name'"
        )
    return function
