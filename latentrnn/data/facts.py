"""Facts about tensors, which are taken at their word only while the tensors are as they were."""

from __future__ import annotations

from typing import Generic, NamedTuple, TypeVar
from weakref import ref

from torch import Tensor

from latentrnn.support.private_symbols import version

T = TypeVar("T")


class Fact(NamedTuple, Generic[T]):
    """Something known of some tensors.

    Data are immutable, but nothing stops anybody from writing into them, or from replacing a part of them: a fact
    holds of the tensors of which it was found alone, as they stood.

    Attributes:
        value: what is known.
        tensors: of which it is known; weak references, so that what is known of tensors does not keep them.
        versions: how often each had been written into; None where torch does not count it.
    """

    value: T
    tensors: tuple[ref[Tensor], ...]
    versions: tuple[int | None, ...]

    @classmethod
    def of(cls, value: T, *tensors: Tensor) -> Fact[T]:
        """A fact about tensors as they are now."""
        return cls(value, tuple(map(ref, tensors)), tuple(map(version, tensors)))

    def holds(self, *tensors: Tensor) -> bool:
        """Whether these are the tensors, and nobody has written into them."""
        pairs = zip(self.tensors, self.versions, tensors, strict=True)
        return all(known() is now and version(now) == count for known, count, now in pairs)
