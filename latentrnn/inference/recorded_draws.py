"""The random numbers of a program as its inputs: what it would draw is drawn outside, and handed to it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode


class Call(NamedTuple):
    """One draw of a program, which can be made again."""

    function: Any
    shape: tuple[int, ...]
    like: dict[str, Any]  # dtype and device
    arguments: tuple[Any, ...]

    def __call__(self) -> Tensor:
        """Draw from torch's generators."""
        if self.function in (torch.randn, torch.rand):
            return self.function(self.shape, **self.like)
        empty = torch.empty(self.shape, **self.like)
        return self.function(empty, *self.arguments)


@contextmanager
def recording() -> Iterator[list[Call]]:
    """Note down every draw within the block, as it is made."""
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
            kept = self.draw(Call(Tensor.bernoulli_, tuple(value.shape), _kind(value), (1 - rate,)))
            return value * (kept / (1 - rate))
        if func not in _MAKING and func not in _FILLING and func not in _LIKE:
            return func(*args, **kwargs)
        if func in _MAKING:
            size = kwargs.pop("size", args)
            shape = tuple(size[0]) if len(size) == 1 and not isinstance(size[0], int) else tuple(size)
            return self.draw(Call(func, shape, kwargs, ()))
        value = args[0]
        call = Call(_LIKE.get(func, func), tuple(value.shape), _kind(value), () if func in _LIKE else tuple(args[1:]))
        return self.draw(call)

    def draw(self, call: Call) -> Tensor:
        raise NotImplementedError


class _Recording(_Draws):
    def __init__(self, calls: list[Call]) -> None:
        super().__init__()
        self.calls = calls

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


def _kind(value: Tensor) -> dict[str, Any]:
    return {"dtype": value.dtype, "device": value.device}


_MAKING = (torch.randn, torch.rand)
# value.normal_() writes into the value; a program that uses what it returns, as torch's distributions do, never notices
_FILLING = (Tensor.normal_, Tensor.uniform_, Tensor.exponential_)
_LIKE = {torch.randn_like: torch.randn, torch.rand_like: torch.rand}
_REFUSED = (torch.bernoulli, torch.normal, torch.poisson, torch._standard_gamma, torch.multinomial, Tensor.bernoulli_)
