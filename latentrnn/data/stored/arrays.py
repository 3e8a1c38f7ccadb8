"""Arrays in files, of which stretches are read."""

from __future__ import annotations

import dataclasses
import mmap
from typing import Any

import numpy as np
import torch

from latentrnn.data.ingest.arrays import Array
from latentrnn.data.ingest.axes import Named, by_name
from latentrnn.data.ingest.plain_numbers import is_frame, to_numpy
from latentrnn.data.ingest.seconds import to_seconds

READ_AT_ONCE = 2**20  # numbers that are read at once to look through everything


@dataclasses.dataclass(frozen=True)
class Source:
    """An array (sequence, ...) in a file, or a list of arrays, one per sequence, of which stretches are read.

    Args:
        value: the array, or the list.
        where: what it is, for errors, e.g. "observations['spikes']".
        seconds: whether it holds times, which are read in seconds.
        named: what it says of its sequences and channels.
    """

    value: Any
    where: str = "array"
    seconds: bool = False
    named: Named = dataclasses.field(default_factory=lambda: Named(None))

    @classmethod
    def of(cls, kind: str, name: str, value: Any, axes: tuple[str, ...]) -> Source:
        """Return the source of an argument, its axes in order where they have names.

        Raises:
            TypeError: nothing that is cut like an array, or a file that is closed.
            ValueError: axes whose names are not known.
        """
        where = kind if kind == "times" else f"{kind}[{name!r}]"
        if is_frame(value):
            raise ValueError(f"{where}: found shape {value.shape}; write [x] for one sequence")
        items = value if isinstance(value, list | tuple) else [value]
        for item in items:
            try:
                shape = tuple(np.shape(item))
            except (TypeError, ValueError, RuntimeError) as error:  # h5py's way to say that its file is closed
                raise TypeError(f"{where}: expected an array that can be read, found {item!r:.80} ({error})") from None
            if not shape:
                raise TypeError(f"{where}: expected an array (sequence, ...) or a list of arrays, found {item!r:.80}")
        cut = [_cut_like_an_array(where, item) for item in items]
        named = by_name(where, name, cut if items is value else cut[0], axes)
        return cls(named.values, where, kind == "times", named)

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
        if item is None:
            item = self.value[sequence, start:stop]
        elif start is not None:
            item = (item.iloc if hasattr(item, "iloc") else item)[start:stop]  # pandas' tables are cut by position
        where = f"{self.where}, sequence {sequence}"
        return to_seconds(where, item).values if self.seconds else to_numpy(where, item)

    def __getstate__(self) -> dict[str, Any]:
        """Files that numpy maps travel by name, not by content, which would be all of it."""
        state = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        value = state["value"]
        listed = [_Mapped.of(item) for item in value] if isinstance(value, list | tuple) else _Mapped.of(value)
        return state | {"value": listed, "named": self.named._replace(values=None)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        value = state["value"]
        opened = [_opened(item) for item in value] if isinstance(value, list) else _opened(value)
        self.__dict__.update(state | {"value": opened})


def _cut_like_an_array(where: str, item: Any) -> Any:
    """What can be cut along its axes: sparse matrices by rows, tensors that cannot be cut as arrays in memory."""
    if hasattr(item, "tocsr"):
        return item.tocsr()
    if isinstance(item, torch.Tensor) and (item.layout != torch.strided or item.is_quantized or item.is_meta):
        return to_numpy(where, item)
    return item


@dataclasses.dataclass(frozen=True)
class _Mapped:
    """How to map a file into memory again."""

    path: str
    dtype: str
    offset: int
    shape: tuple[int, ...]
    order: str

    @classmethod
    def of(cls, array: Any) -> Any:
        """Return how a whole map is opened; anything else as it is."""
        # of a part of a map, numpy still says where the whole begins
        if not isinstance(array, np.memmap) or not isinstance(array.base, mmap.mmap) or array.mode not in ("r", "r+"):
            return array
        order = "C" if array.flags.c_contiguous else "F"
        return cls(str(array.filename), array.dtype.str, array.offset, array.shape, order)


def _opened(value: Any) -> Any:
    if not isinstance(value, _Mapped):
        return value
    return np.memmap(value.path, value.dtype, "r", value.offset, value.shape, value.order)  # type: ignore[call-overload]
