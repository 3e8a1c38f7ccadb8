"""A function of a tensor as the operations that it makes, without the Python around them."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from types import BuiltinFunctionType, MethodDescriptorType
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.fx import Graph, GraphModule
from torch.fx.node import map_aggregate

from latentrnn.support.private_symbols import TorchDispatchMode, operation_schema, read_number, tree_leaves


class _Step(NamedTuple):
    """An operation, what it was given, and what it returned."""

    operation: Any
    arguments: tuple[Any, ...]
    named: dict[str, Any]
    result: Any

    @property
    def given(self) -> list[Tensor]:
        return list(_tensors((self.arguments, self.named)))

    @property
    def written(self) -> list[Tensor]:
        """What it was given and wrote into."""
        found: list[Tensor] = []
        for place, argument in enumerate(operation_schema(self.operation).arguments):
            if argument.alias_info is not None and argument.alias_info.is_write:
                named = self.named.get(argument.name)
                found += _tensors(self.arguments[place] if place < len(self.arguments) else named)
        return found


def recorded(function: Callable[[Tensor], Any], example: Tensor) -> Callable[[Tensor], Any]:
    """Return a function that repeats what `function` does to an example: derivatives are operations like all others.

    What does not depend on the argument is not repeated. The results are those of `function` for all arguments of this
    shape, provided that which operations it makes does not depend on values.

    Args:
        function: from a tensor to tensors; it draws no random numbers.
        example: an argument.

    Raises:
        RuntimeError: a step of Python depends on a value.
    """
    argument = example.clone()
    with _Recording() as recording, torch.autograd.set_multithreading_enabled(False):
        result = function(argument)
    module = _graph(argument, _varying(argument, recording.steps), result)

    def repeat(given: Tensor) -> Any:
        with torch.inference_mode():
            return module(given)

    return repeat


class _Recording(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.steps: list[_Step] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.steps.append(_Step(func, args, kwargs or {}, result))  # whose tensors stay, so that addresses do
        return result


def _varying(argument: Tensor, steps: list[_Step]) -> list[_Step]:
    """Return the steps that depend on the argument, be it through memory that such a step writes into."""
    memory = {_memory(argument)}
    before = 0
    while len(memory) > before:
        before = len(memory)
        for step in steps:
            if any(_memory(value) in memory for value in (*step.given, *_tensors(step.result))):
                memory.update(map(_memory, (*_tensors(step.result), *step.written)))
    found = [s for s in steps if any(_memory(value) in memory for value in (*s.given, *_tensors(s.result)))]
    if any(step.operation is read_number for step in found):
        raise RuntimeError("a step of Python depends on a value")
    return found


def _graph(argument: Tensor, steps: list[_Step], result: Any) -> GraphModule:
    """Return a program of these steps."""
    graph, constants = Graph(), torch.nn.Module()
    nodes = {id(argument): graph.placeholder("given")}

    def node_of(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        if id(value) not in nodes:
            name = f"constant_{len(nodes)}"
            constants.register_buffer(name, value.detach())
            nodes[id(value)] = graph.get_attr(name)
        return nodes[id(value)]

    for step in steps:
        if step.operation is torch.ops.aten.detach.default:
            nodes[id(step.result)] = node_of(step.arguments[0])  # the same numbers by another name
            continue
        given = map_aggregate((step.arguments, step.named), node_of)
        node = graph.call_function(_fastest(step), *given)
        if isinstance(step.result, Tensor):
            nodes[id(step.result)] = node
        else:
            for place, part in enumerate(step.result or ()):
                nodes[id(part)] = graph.call_function(operator.getitem, (node, place))
    graph.output(map_aggregate(result, node_of))
    return GraphModule(constants, graph)


def _fastest(step: _Step) -> Any:
    """Return torch's own function or method for an operation, which is called in half the time, where there is one."""
    if any(isinstance(value, list) and any(entry is None for entry in value) for value in step.arguments):
        return step.operation  # an index that leaves an axis whole: torch's own functions refuse it
    name = operation_schema(step.operation).name.removeprefix("aten::")
    if isinstance(found := getattr(torch, name, None), BuiltinFunctionType):
        return found
    return found if isinstance(found := getattr(Tensor, name, None), MethodDescriptorType) else step.operation


def _tensors(values: Any) -> Iterator[Tensor]:
    return (value for value in tree_leaves(values) if isinstance(value, Tensor))


def _memory(value: Tensor) -> int:
    """Return what tells apart tensors that are no views of each other."""
    return value.untyped_storage().data_ptr()
