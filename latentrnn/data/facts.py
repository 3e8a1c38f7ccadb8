"""What was found out once about the tensors of a data set, and holds for its batches too."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping

from torch import Tensor


class Facts:
    """Facts about one `SequenceData`. They are lost where tensors are replaced, and handed on where rows are taken.

    Data are immutable, but nothing stops anybody from writing into them: what was found out here is found out again
    when its tensors are others, or were written into. What was handed on is taken at its word.
    """

    def __init__(self) -> None:
        self.complete: dict[str, bool] = {}  # by head, whether all of its entries are observed and scored
        self.constants: dict[str, Tensor] = {}  # by head, one number per sequence
        self._sources: dict[tuple[str, str], tuple[tuple[weakref.ref[Tensor], int | None], ...]] = {}

    def whole(self, name: str, mask: Tensor, look: Callable[[], bool]) -> bool:
        """Return whether a head is complete, as `look` finds where it is not known."""
        if name not in self.complete or self._changed(("complete", name), mask):
            self.complete[name] = look()
            self._sources["complete", name] = _as_they_are(mask)
        return self.complete[name]

    def constant(self, name: str, values: Tensor, mask: Tensor, compute: Callable[[], Tensor]) -> Tensor:
        """Return (sequence,) numbers that depend on a head's values and mask alone, as `compute` gives them."""
        if name not in self.constants or self._changed(("constant", name), values, mask):
            self.constants[name] = compute()
            self._sources["constant", name] = _as_they_are(values, mask)
        return self.constants[name]

    def known(self, name: str, values: Tensor, mask: Tensor) -> Tensor | None:
        """Return a head's constant where it was computed before, for these very tensors."""
        changed = self._changed(("constant", name), values, mask)
        return None if changed else self.constants.get(name)

    def of_rows(self, rows: Tensor, observations: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> Facts:
        """Return what is known of some of the sequences of data with these tensors; part of what is complete is so."""
        new = Facts()
        for name, complete in self.complete.items():
            if complete and not self._changed(("complete", name), masks[name]):
                new.complete[name] = True
        for name, values in self.constants.items():
            if not self._changed(("constant", name), observations[name], masks[name]):
                new.constants[name] = values.index_select(0, rows)
        return new

    def _changed(self, key: tuple[str, str], *now: Tensor) -> bool:
        """Return whether a fact was found for other tensors than these, or for what stood in them before."""
        found = self._sources.get(key)
        return found is not None and any(
            reference() is not tensor or _version(tensor) != version
            for (reference, version), tensor in zip(found, now, strict=True)
        )


def _as_they_are(*tensors: Tensor) -> tuple[tuple[weakref.ref[Tensor], int | None], ...]:
    return tuple((weakref.ref(tensor), _version(tensor)) for tensor in tensors)


def _version(tensor: Tensor) -> int | None:
    """Return how often a tensor was written into; those made for inference alone do not count it."""
    return None if tensor.is_inference() else tensor._version
