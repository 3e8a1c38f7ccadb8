"""A function of tensors as the operations that it makes, without the Python around them."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Sequence
from types import BuiltinFunctionType, MethodDescriptorType
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.fx import Graph, GraphModule
from torch.fx.node import Node, map_aggregate

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


def recorded(function: Callable[..., Any], *examples: Tensor) -> Callable[..., Any]:
    """Return a function that repeats what `function` does to examples: derivatives are operations like all others.

    What depends on none of the arguments, nor on memory that they are views of, is not repeated, but for draws of
    torch's generators, which go on from where these are. The results are those of `function` for all arguments of these
    shapes, provided that which operations it makes does not depend on values.

    Args:
        function: from tensors to tensors, in tuples and dicts.
        examples: arguments.

    Raises:
        RuntimeError: a step of Python depends on a value, or draws from a generator of its own.
    """
    with _Recording() as recording, torch.autograd.set_multithreading_enabled(False):
        result = function(*examples)
    repeat: Callable[..., Any] = _graph(examples, _varying(examples, recording.steps), result).forward
    return repeat


class _Recording(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.steps: list[_Step] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.steps.append(_Step(func, args, kwargs or {}, result))  # whose tensors stay, so that addresses do
        return result


def _varying(arguments: Sequence[Tensor], steps: list[_Step]) -> list[_Step]:
    """Return the steps that depend on the arguments or on chance, be it through memory that such a step writes into."""
    memory = set(map(_memory, arguments))
    for step in steps:
        if any(isinstance(value, torch.Generator) for value in tree_leaves((step.arguments, step.named))):
            raise RuntimeError("a generator of its own is no constant")
        if torch.Tag.nondeterministic_seeded in step.operation.tags:
            memory.update(map(_memory, (*_tensors(step.result), *step.written)))
    before = 0
    while len(memory) > before:
        before = len(memory)
        for step in steps:
            if any(_memory(value) in memory for value in (*step.given, *_tensors(step.result))):
                memory.update(map(_memory, (*_tensors(step.result), *step.written)))
    found = [s for s in steps if any(_memory(value) in memory for value in (*s.given, *_tensors(s.result)))]
    if any(step.operation is read_number or isinstance(step.result, bool | int | float) for step in found):
        raise RuntimeError("a step of Python depends on a value")
    return found


def _graph(arguments: Sequence[Tensor], steps: list[_Step], result: Any) -> GraphModule:
    """Return a program of these steps."""
    graph, constants, writing = Graph(), torch.nn.Module(), set[Node]()
    nodes = {id(argument): graph.placeholder(f"given_{place}") for place, argument in enumerate(arguments)}

    def node_of(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        if id(value) not in nodes:
            name = f"constant_{len(nodes)}"
            constants.register_buffer(name, value.detach())
            nodes[id(value)] = graph.get_attr(name)
        return nodes[id(value)]

    for step in steps:
        if step.operation in (torch.ops.aten.detach.default, torch.ops.aten.alias.default):
            nodes[id(step.result)] = node_of(step.arguments[0])  # the same numbers by another name
            continue
        given = map_aggregate((step.arguments, step.named), node_of)
        node = graph.call_function(_fastest(step), *given)
        if step.written:
            writing.add(node)
        if isinstance(step.result, Tensor):
            nodes[id(step.result)] = node
        else:
            for place, part in enumerate(step.result or ()):
                nodes[id(part)] = graph.call_function(operator.getitem, (node, place))

    def returned(value: Any) -> Any:
        node = node_of(value)
        # what is computed once is handed out as a copy, which whoever gets it may write into
        constant = isinstance(value, Tensor) and node.op == "get_attr"
        return graph.call_function(torch.clone, (node,)) if constant else node

    graph.output(map_aggregate(result, returned))
    for node in reversed(list(graph.nodes)):
        if node.op in ("call_function", "get_attr") and not node.users and node not in writing:
            graph.erase_node(node)
    module = GraphModule(constants, graph)
    for name in list(dict(module.named_buffers())):  # found at once, where those of a module are looked for
        constant = module.get_buffer(name)
        delattr(module, name)
        module.__dict__[name] = constant
    return module


def _fastest(step: _Step) -> Any:
    """Return torch's own function or method for an operation, which is called in half the time, where there is one."""
    if any(isinstance(value, list) and any(entry is None for entry in value) for value in step.arguments):
        return step.operation  # an index that leaves an axis whole: torch's own functions refuse it
    name = operation_schema(step.operation).name.removeprefix("aten::")
    for room in (torch, torch.nn.functional):
        if isinstance(found := getattr(room, name, None), BuiltinFunctionType):
            return found
    return found if isinstance(found := getattr(Tensor, name, None), MethodDescriptorType) else step.operation


def _tensors(values: Any) -> Iterator[Tensor]:
    return (value for value in tree_leaves(values) if isinstance(value, Tensor))


def _memory(value: Tensor) -> int:
    """Return what tells apart tensors that are no views of each other."""
    return value.untyped_storage().data_ptr()
