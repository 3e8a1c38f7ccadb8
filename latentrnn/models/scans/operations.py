"""What torch computes within a call: its operations in order, with their tensors, to be run again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import torch
from torch import Tensor

from latentrnn.support.private_symbols import TorchDispatchMode, operation_schema

aten = torch.ops.aten
Key = tuple[Any, ...]


class NotRepeatableError(Exception):
    """What was recorded cannot be run again for other steps; the plain loop can."""


@dataclass(eq=False)
class Call:
    """One operation.

    Args:
        operation: of torch's.
        args, kwargs: what it was given.
        outputs: the tensors that came back, None where an output was not asked for.
    """

    operation: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    outputs: list[Tensor | None]

    @cached_property
    def given(self) -> list[tuple[Key, Tensor]]:
        """All tensors among the arguments, with their keys."""
        return [(key_of(tensor), tensor) for tensor in tensors_in((*self.args, *self.kwargs.values()))]

    @cached_property
    def keys(self) -> list[Key | None]:
        """The keys of the outputs."""
        return [None if output is None else key_of(output) for output in self.outputs]

    @cached_property
    def found(self) -> list[tuple[Key, Tensor]]:
        """The outputs that there are, with their keys."""
        return [(key, each) for key, each in zip(self.keys, self.outputs, strict=True) if key and each is not None]

    @cached_property
    def looks_at(self) -> set[int]:
        """The memory that was given, where what comes back lies in it; empty where it does not."""
        memory = {memory_of(tensor) for _, tensor in self.given}
        return memory if any(memory_of(output) in memory for _, output in self.found) else set()


class Recorder(TorchDispatchMode):
    """Notes every operation within the block, below autograd.

    Raises:
        NotRepeatableError: an operation that draws random numbers, writes into a tensor, or hands a number to Python.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Call] = []

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if _unrepeatable(operation):
            raise NotRepeatableError(str(operation))
        return self.noted(operation, args, kwargs or {})

    def noted(self, operation: Any, args: Any, kwargs: Any) -> Any:
        """Return what an operation returns, and note it."""
        found = operation(*args, **kwargs)
        if operation is not aten.detach.default:
            outputs = list(found) if isinstance(found, list | tuple) else [found]
            self.calls.append(Call(operation, args, kwargs, outputs))
        return found


class BackwardRecorder(Recorder):
    """Notes every operation of a backward within the block, among them how autograd writes 1 - x: ones, less x."""

    def __init__(self) -> None:
        super().__init__()
        self._filled: dict[int, tuple[Tensor, float]] = {}

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if operation is aten.empty_like.default:
            return operation(*args, **(kwargs or {}))
        if operation is aten.fill_.Scalar:
            self._filled[memory_of(args[0])] = args
            return operation(*args)
        if operation is aten.sub_.Tensor and memory_of(args[0]) in self._filled and not kwargs:
            _, number = self._filled.pop(memory_of(args[0]))
            self.calls.append(Call(aten.rsub.Scalar, (args[1], number), {}, [args[0]]))
            return operation(*args)
        return super().__torch_dispatch__(operation, types, args, kwargs)


@cache
def _unrepeatable(operation: Any) -> bool:
    drawn = torch.Tag.nondeterministic_seeded in operation.tags
    read = torch.Tag.data_dependent_output in operation.tags
    return drawn or read or operation_schema(operation).is_mutable


def key_of(tensor: Tensor) -> Key:
    """What tells values apart while all of them are kept: where they lie, and how."""
    return tensor.data_ptr(), tensor.shape, tensor.stride()


def memory_of(tensor: Tensor) -> int:
    """Where the memory begins in which a tensor lies."""
    return tensor.untyped_storage().data_ptr()


def tensors_in(value: Any) -> Iterator[Tensor]:
    """Yield the tensors of nested lists."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from tensors_in(inner)


def replaced(value: Any, replace: Callable[[Tensor], Any]) -> Any:
    """Return nested lists with other things in the place of their tensors."""
    if isinstance(value, Tensor):
        return replace(value)
    if isinstance(value, list | tuple):
        return [replaced(inner, replace) for inner in value]
    return value


def by_step(value: Tensor, one: Tensor, steps: int, count: int | None = None) -> list[Tensor]:
    """Return what belongs to each step, or to the first `count`, of a value of all steps; `one` has the shape of one.

    Raises:
        NotRepeatableError: no axis, or not one alone, is as many times as long.
    """
    axes = [axis for axis, (many, few) in enumerate(zip(value.shape, one.shape, strict=True)) if many != few]
    if len(axes) != 1 or value.shape[axes[0]] != steps * one.shape[axes[0]]:
        raise NotRepeatableError(f"{tuple(one.shape)} of a step, {tuple(value.shape)} of all")
    (axis,) = axes
    return list(value.unflatten(axis, (steps, -1)).narrow(axis, 0, steps if count is None else count).unbind(axis))
