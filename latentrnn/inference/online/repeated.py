"""A step that is made again and again, without the Python around its operations."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any

import pyro
import torch
from torch import Tensor, nn

from latentrnn.support.private_symbols import hooked, tree_leaves
from latentrnn.support.recorded import recorded

COMPARED = 3  # calls of which operations and function must agree
KINDS = 32  # of calls, of which operations are kept
OWN = ("latentrnn", "torch")

Step = Callable[..., Any]


def repeatable(*modules: nn.Module) -> bool:
    """Whether modules do nothing but torch's operations: they are this package's, and nothing is hooked onto them.

    A class of a user's own may count its calls, or leave torch and come back.
    """
    parts = [part for module in modules for part in module.modules()]
    own = all(type(part).__module__.partition(".")[0] in OWN for part in parts)
    return own and not any(map(hooked, modules))


class RepeatedStep:
    """Makes calls of a function of tensors, and of those that come often the operations alone.

    The second call of a kind is recorded, and with the next ones it is seen whether the operations do the same, to the
    bit. Where they do not, or cannot be recorded, the function goes on being called.

    Args:
        repeats: whether anything is to be recorded.
    """

    def __init__(self, *, repeats: bool) -> None:
        self.repeats = repeats
        self._begin()

    def _begin(self) -> None:
        self._programs: dict[Hashable, Step] = {}  # that have shown that they agree
        self._calls: dict[Hashable, int] = {}
        self._candidates: dict[Hashable, Step] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Copies begin anew: a program is one of places in memory."""
        return {"repeats": self.repeats}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.repeats = state["repeats"]
        self._begin()

    def __call__(self, kind: Hashable, function: Step, tensors: Sequence[Tensor]) -> Any:
        """Return what the function makes of the tensors.

        Args:
            kind: what decides which operations there are: with it the shapes, and all that is not among the tensors.
            function: of the tensors, all that varies from call to call but for draws of torch's generator.
            tensors: its arguments, some of them perhaps in places that it knows itself.
        """
        program = self._programs.get(kind)
        return self._called(kind, function, tensors) if program is None else program(*tensors)

    def _called(self, kind: Hashable, function: Step, tensors: Sequence[Tensor]) -> Any:
        calls = self._calls.get(kind, 0)
        if not self.repeats or calls > COMPARED + 1 or (calls == 0 and len(self._calls) >= KINDS):
            return function(*tensors)
        before = torch.get_rng_state()
        found, after = function(*tensors), torch.get_rng_state()
        self._calls[kind] = calls + 1
        if calls == 1:
            try:
                with pyro.validation_enabled(False):  # which reads values, and changes none
                    self._candidates[kind] = recorded(function, *tensors)
            except (NotImplementedError, RuntimeError):
                self._calls[kind] = COMPARED + 2
        elif calls > 1:
            torch.set_rng_state(before)
            again = self._candidates[kind](*tensors)
            if not (_same(found, again) and torch.equal(torch.get_rng_state(), after)):
                self._calls[kind] = COMPARED + 2
            elif calls == COMPARED + 1:
                self._programs[kind] = self._candidates.pop(kind)
        torch.set_rng_state(after)
        return found


def _same(found: Any, other: Any) -> bool:
    """Whether the tensors of two results are the same to the bit, NaN at the same places."""
    pairs = zip(tree_leaves(found), tree_leaves(other), strict=True)
    return all(
        torch.equal(a.nan_to_num(), b.nan_to_num()) and torch.equal(a.isnan(), b.isnan())
        for a, b in pairs
        if isinstance(a, Tensor)
    )
