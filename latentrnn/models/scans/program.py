"""Operations that are run at every step of a loop, each on tensors that were prepared for all steps before."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import repeat
from typing import Any, NamedTuple

import torch
from torch import Tensor

from latentrnn.models.scans.operations import NotRepeatableError, aten, tensors_in
from latentrnn.support.private_symbols import operation_schema

# under these names torch's operations are called at two thirds of the cost
_QUICK = {
    aten.mul.Tensor: torch.mul,
    aten.add.Tensor: torch.add,
    aten.sub.Tensor: torch.sub,
    aten.div.Tensor: torch.div,
    aten.sigmoid.default: torch.sigmoid,
    aten.tanh.default: torch.tanh,
    aten.exp.default: torch.exp,
    aten.neg.default: torch.neg,
    aten.mm.default: torch.mm,
    aten.addmm.default: torch.addmm,
    aten.cat.default: torch.cat,
    aten.lerp.Tensor: torch.lerp,
    aten.addcmul.default: torch.addcmul,
}
_OF_TWO = {aten.mul.Tensor, aten.add.Tensor, aten.sub.Tensor, aten.div.Tensor}
Stream = Iterable[Any]  # what there is at each step, one after the other


class Operation(NamedTuple):
    """One call of each step, `function(*arguments, out=out)`.

    Attributes:
        function: what is called.
        arguments: a stream for each.
        out: where it writes, a stream too.
    """

    function: Callable[..., Any]
    arguments: Sequence[Stream]
    out: Stream


def execute(operations: Sequence[Operation], steps: int) -> None:
    """Run all operations of a step, then those of the next."""
    none = repeat(())
    bound = [
        (op.function, zip(*op.arguments, strict=False) if op.arguments else none, iter(op.out)) for op in operations
    ]
    for _ in range(steps):
        for function, arguments, out in bound:
            function(*next(arguments), out=next(out))


def copy(value: Tensor, *, out: Tensor) -> None:
    """Write one tensor into another."""
    out.copy_(value)


def operation_of(
    operation: Any,
    args: Sequence[Any],
    kwargs: dict[str, Any],
    outputs: Sequence[Tensor | None],
    stream: Any,
    out: Stream,
) -> Operation:
    """Return what repeats an operation of torch's.

    Args:
        operation, args, kwargs, outputs: as it was recorded.
        stream: returns the stream of a tensor among the arguments.
        out: where it writes, a tensor at every step; of several outputs a list.

    Raises:
        NotRepeatableError: tensors as keyword arguments.
    """
    if any(tensors_in(list(kwargs.values()))):
        raise NotRepeatableError(f"{operation} with tensors by name")
    args = list(args)
    if operation is aten.rsub.Scalar and len(args) == 2 and not kwargs:
        operation, args = aten.sub.Tensor, [args[1], args[0]]
    if operation in _OF_TWO:  # a number costs more than a tensor of one number
        (like,) = outputs
        assert like is not None
        args = [each if isinstance(each, Tensor) else like.new_tensor(each) for each in args]
    function: Any = _QUICK.get(operation) or _with_out(operation)
    if function is None or len(outputs) > 1:
        function = partial(_into, operation)
    if kwargs:
        function = partial(function, **kwargs)
    return Operation(function, [_stream_of(each, stream) for each in args], out)


def _with_out(operation: Any) -> Any:
    packet, (_, _, name) = operation.overloadpacket, operation.name().partition(".")
    for each in (f"{name}_out", f"{name.removeprefix('dim_')}_out", "out"):
        if each in packet.overloads() and (each != "out" or name in ("", "Tensor")):
            found = getattr(packet, each)
            where = operation_schema(found).arguments[-1].name
            return found if where == "out" else partial(_under_name, found, where)
    return None


def _under_name(function: Any, name: str, *args: Any, out: Tensor, **kwargs: Any) -> None:
    function(*args, **{name: out}, **kwargs)


def _into(operation: Any, *args: Any, out: Any, **kwargs: Any) -> None:
    found = operation(*args, **kwargs)
    if isinstance(found, Tensor):
        out.copy_(found)
        return
    for each, own in zip(found, out, strict=True):
        if own is not None:
            own.copy_(each)


def _stream_of(value: Any, stream: Any) -> Stream:
    if isinstance(value, Tensor):
        return stream(value)
    if isinstance(value, list | tuple) and any(True for _ in tensors_in(value)):
        return map(list, zip(*(_stream_of(each, stream) for each in value), strict=False))
    return repeat(value)
