"""The matrix products of a step by themselves: the time that no arrangement of the rest can go below."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch.utils._python_dispatch import TorchDispatchMode

KINDS = ("mm", "addmm", "bmm", "baddbmm")
REPEATS = 5


class Operand(NamedTuple):
    """A matrix, or several, by how it lies in memory."""

    shape: tuple[int, ...]
    stride: tuple[int, ...]

    @classmethod
    def of(cls, tensor: torch.Tensor) -> Operand:
        return cls(tuple(tensor.shape), tuple(tensor.stride()))

    def new(self) -> torch.Tensor:
        size = 1 + sum((n - 1) * step for n, step in zip(self.shape, self.stride, strict=True))
        return torch.rand(size).as_strided(self.shape, self.stride)


class Products(TorchDispatchMode):
    """Counts the products of matrices within the block by their operands."""

    def __init__(self) -> None:
        super().__init__()
        self.found = Counter[tuple[Operand, Operand]]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket.__name__.rstrip("_") in KINDS:
            one, other = args[-2:]
            self.found[Operand.of(one), Operand.of(other)] += 1
        return func(*args, **(kwargs or {}))

    @property
    def operations(self) -> int:
        """Multiplications and additions."""
        return sum(
            2 * count * torch.Size(one.shape).numel() * other.shape[-1] for (one, other), count in self.found.items()
        )

    def seconds(self, clock: Callable[[], float]) -> float:
        """Return what they take one by one, each the best of a few tries with its operands in the cache."""
        total = 0.0
        for (one, other), count in self.found.items():
            a, b = one.new(), other.new()
            out, times = torch.matmul(a, b), []
            calls = max(1, int(2e7 / (a.numel() * b.shape[-1])))
            for _ in range(REPEATS):
                before = clock()
                for _ in range(calls):
                    torch.matmul(a, b, out=out)
                times.append((clock() - before) / calls)
            total += count * min(times)
        return total


def products_of(step: Callable[[], Any]) -> Products:
    """Return the products of a step, forward and backward."""
    with Products() as products, torch.autograd.set_multithreading_enabled(False):
        step()
    return products
