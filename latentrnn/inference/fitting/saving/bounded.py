"""A bound on what is built from a description that is not to be trusted."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from latentrnn.support.private_symbols import TorchDispatchMode, operation_schema, tree_leaves

SPARE_NUMBERS = 2**22  # tables that a module makes for itself and no file holds
OPERATIONS_PER_TENSOR = 100  # the package's own parts need some ten


class TooLarge(ValueError):
    """A description asks for more than the weights that go with it hold."""


class Bounded(TorchDispatchMode):
    """Refuses tensors, before they are made, that what is known of a module's weights cannot account for.

    Building a module makes its parameters and little else. So all tensors that are made together may hold twice as many
    numbers as the weights, and some millions; and the operations may be a fixed multiple of the number of tensors.

    Args:
        numbers: numbers that the weights hold.
        tensors: tensors that the weights consist of.

    Raises:
        TooLarge: within the block, as soon as either is exceeded.
    """

    def __init__(self, numbers: int, tensors: int) -> None:
        super().__init__()
        self.numbers, self.tensors = numbers, tensors
        self.left = 2 * numbers + SPARE_NUMBERS
        self.operations = OPERATIONS_PER_TENSOR * (tensors + 10)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        self.operations -= 1
        if self.operations < 0:
            raise TooLarge(f"it describes more tensors than the {self.tensors} that the weights consist of")
        if _makes(func, args, kwargs):
            self._spend(func(*args, **kwargs | {"device": torch.device("meta")}))
            return func(*args, **kwargs)
        made = func(*args, **kwargs)
        if max((part.numel() for part in tree_leaves(made) if isinstance(part, Tensor)), default=0) > self.left:
            self._spend(made)
        return made

    def _spend(self, made: Any) -> None:
        self.left -= sum(part.numel() for part in tree_leaves(made) if isinstance(part, Tensor))
        if self.left < 0:
            raise TooLarge(f"it describes larger tensors than the {self.numbers} numbers of the weights fill")


def _makes(func: Any, args: Any, kwargs: Any) -> bool:
    """Return whether an operation makes a tensor from sizes alone."""
    schema = operation_schema(func)
    if not any(argument.name == "device" for argument in schema.arguments):
        return False
    return schema.name.startswith("aten::new_") or not any(
        isinstance(part, Tensor) for part in tree_leaves((args, kwargs))
    )
