"""The random numbers of a program as its inputs: what it would draw is drawn outside, and handed to it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from latentrnn.support.private_symbols import standard_gamma


class Call(NamedTuple):
    """One draw of a program, which can be made again."""

    function: Any
    shape: tuple[int, ...]
    like: dict[str, Any]  # dtype and device
    arguments: tuple[Any, ...]
    named: dict[str, Any]

    def __call__(self) -> Tensor:
        """Draw from torch's generators."""
        if self.function in (torch.randn, torch.rand):
            return self.function(self.shape, **self.like)
        empty = torch.empty(self.shape, **self.like)
        return self.function(empty, *self.arguments, **self.named)


@contextmanager
def recording() -> Iterator[list[Call]]:
    """Note down every draw within the block, as it is made.

    Raises:
        NotImplementedError: a draw that cannot be made again outside, or one that was written into a tensor which is
            used afterwards, instead of what the draw returned.
    """
    calls: list[Call] = []
    with _Recording(calls):
        yield calls


@contextmanager
def replaying(drawn: Sequence[Tensor]) -> Iterator[None]:
    """Hand out what was drawn, one after the other, instead of drawing within the block."""
    mode = _Replaying(drawn)
    with mode:
        yield
    assert mode.used == len(drawn), "a program drew less than when it was recorded"


class _Draws(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func in _REFUSED:
            raise NotImplementedError(f"{func.__name__} draws in a way that depends on its parameters")
        if func is F.dropout:
            named = dict(zip(("input", "p", "training"), args, strict=False)) | kwargs
            value, rate = named["input"], named.get("p", 0.5)
            if not named.get("training", True) or not rate:
                return func(*args, **kwargs)
            if named.get("inplace", False):
                self.write("dropout", value)
            kept = self.draw(Call(Tensor.bernoulli_, tuple(value.shape), _kind(value), (1 - rate,), {}))
            return value * (kept / (1 - rate))
        if func not in _MAKING and func not in _FILLING and func not in _LIKE:
            return func(*args, **kwargs)
        for name in ("generator", "out"):
            if kwargs.pop(name, None) is not None:
                raise NotImplementedError(f"{func.__name__} with {name}=")
        if func in _MAKING:
            size = kwargs.pop("size", args)
            shape = tuple(size[0]) if len(size) == 1 and not isinstance(size[0], int) else tuple(size)
            return self.draw(Call(func, shape, kwargs, (), {}))
        value, *further = args
        if func in _LIKE:
            return self.draw(Call(_LIKE[func], tuple(value.shape), _kind(value) | kwargs, (), {}))
        self.write(func.__name__, value)
        return self.draw(Call(func, tuple(value.shape), _kind(value), tuple(further), kwargs))

    def draw(self, call: Call) -> Tensor:
        raise NotImplementedError

    def write(self, name: str, value: Tensor) -> None:
        """Take note that a tensor was to be written into, which is left as it is."""


class _Recording(_Draws):
    def __init__(self, calls: list[Call]) -> None:
        super().__init__()
        self.calls = calls
        self.left: dict[
            int, tuple[str, Tensor]
        ] = {}  # by memory, which is kept so that nothing else comes to lie there

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for value in _tensors([args, kwargs]) if self.left else ():
            if (memory := _memory(value)) in self.left:
                raise NotImplementedError(
                    f"what {self.left[memory][0]} wrote into a tensor, where only what it returns is known"
                )
        return super().__torch_function__(func, types, args, kwargs)

    def write(self, name: str, value: Tensor) -> None:
        if value.numel():
            self.left[_memory(value)] = name, value

    def draw(self, call: Call) -> Tensor:
        self.calls.append(call)
        return call()


class _Replaying(_Draws):
    def __init__(self, drawn: Sequence[Tensor]) -> None:
        super().__init__()
        self.drawn, self.used = drawn, 0

    def draw(self, call: Call) -> Tensor:
        value = self.drawn[self.used]
        assert tuple(value.shape) == call.shape, "a program drew otherwise than when it was recorded"
        self.used += 1
        return value


def _tensors(values: Any) -> Iterator[Tensor]:
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, list | tuple | dict):
        for value in values.values() if isinstance(values, dict) else values:
            yield from _tensors(value)


def _memory(value: Tensor) -> int:
    """Return what tells apart tensors that are no views of each other."""
    return value.untyped_storage().data_ptr()


def _kind(value: Tensor) -> dict[str, Any]:
    return {"dtype": value.dtype, "device": value.device}


_MAKING = (torch.randn, torch.rand)
# value.normal_() writes into the value, which has no axis of members to be written into: a program has to use what it
# returns, as torch's distributions do, and is refused where it does not
_FILLING = (Tensor.normal_, Tensor.uniform_, Tensor.exponential_)
_LIKE = {torch.randn_like: torch.randn, torch.rand_like: torch.rand}
_REFUSED = (torch.bernoulli, torch.normal, torch.poisson, standard_gamma, torch.multinomial, Tensor.bernoulli_)
