"""What data in memory answer where data in files would have to be read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Self


class InMemory:
    """The part of the protocol `Sequences` that is about reading, for sequences that are read already."""

    in_memory = True

    def load(self) -> Self:
        """These sequences."""
        return self

    def load_batch(self) -> Self:
        """These sequences."""
        return self

    def for_start(self) -> Self:
        """What starting values come from: all sequences."""
        return self

    def in_windows(self) -> Self:
        """These sequences, of which windows can be taken as they are."""
        return self

    def through(self, *, whole: bool = False) -> Iterator[tuple[Self, int, int]]:
        """All sequences at once, with the first of them and its first base step."""
        yield self, 0, 0

    def small(self, count: int) -> bool:
        """Whether so many sequences may be read at once: they are in memory."""
        return True

    def expect(self, *args: Any, **kwargs: Any) -> None:
        """Nothing is read ahead."""

    def close(self) -> None:
        """Nothing is read ahead that would have to end."""
