"""Arrays in files, of which stretches are read."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from latentrnn.data.arrays import Array

READ_AT_ONCE = 2**20  # numbers that are read at once to look through everything


@dataclasses.dataclass(frozen=True)
class Source:
    """An array (sequence, ...) in a file, or a list of arrays, one per sequence, of which stretches are read."""

    value: Any

    def __len__(self) -> int:
        # zarr's arrays have a shape and no length
        return len(self.value) if isinstance(self.value, list | tuple) else int(np.shape(self.value)[0])

    def shape(self, sequence: int) -> tuple[int, ...]:
        """Return the shape of a sequence's array, which is not read."""
        if isinstance(self.value, list | tuple):
            return tuple(np.shape(self.value[sequence]))
        return tuple(np.shape(self.value)[1:])

    def read(self, sequence: int, start: int | None = None, stop: int | None = None) -> Array:
        """Return steps `start` to `stop - 1` of a sequence; without them all that there is of it."""
        item = self.value[sequence] if isinstance(self.value, list | tuple) or start is None else None
        if item is not None:
            return np.asarray(item if start is None else item[start:stop])
        return np.asarray(self.value[sequence, start:stop])
