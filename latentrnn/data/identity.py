"""Identity of sequences by content, and whether two data sets share what they score."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latentrnn.data.ingest.arrays import Array
from latentrnn.data.spec import SequenceKey


class ContentDigest:
    """What identifies a sequence: a hash of its arrays, which may come in stretches of steps."""

    def __init__(self) -> None:
        self._digest = hashlib.blake2b(digest_size=16)

    def add(self, name: str, shape: tuple[int, ...], stretches: Iterable[Array]) -> None:
        """Take in one array of this shape."""
        self._digest.update(f"{name} {shape}".encode())
        for part in stretches:
            # in float64 and without -0.0, so that the type in which the user holds the values does not matter
            self._digest.update(np.ascontiguousarray(part.astype(np.float64) + 0.0).tobytes())

    @property
    def key(self) -> str:
        """The hash of all that was taken in."""
        return self._digest.hexdigest()


def content_keys(contents: Mapping[str, list[Array]], lengths: Array) -> tuple[SequenceKey, ...]:
    """A key for each sequence from its arrays; the second sequence with the same content gets "#2", and so on."""
    seen: Counter[str] = Counter()
    keys = []
    for index, length in enumerate(lengths.tolist()):
        digest = ContentDigest()
        for name, arrays in contents.items():
            digest.add(name, arrays[index].shape, [arrays[index]])
        key = digest.key
        seen[key] += 1
        keys.append(SequenceKey(key if seen[key] == 1 else f"{key}#{seen[key]}", 0, length))
    return tuple(keys)


def check_data(owner: str, other: Any) -> None:
    """Raise a TypeError unless something knows which sequences it holds."""
    if not hasattr(other, "keys") or not isinstance(other.keys, tuple):
        raise TypeError(f"{owner}: expected SequenceData or StoredSequences, found {type(other).__name__}")


def overlapping(keys: Iterable[SequenceKey], others: Iterable[SequenceKey]) -> NDArray[np.bool_]:
    """For each of `keys` whether it scores a step that one of `others` scores."""
    known: defaultdict[str, list[SequenceKey]] = defaultdict(list)
    for other in others:
        known[other.key].append(other)
    return np.array([any(key.overlaps(other) for other in known.get(key.key, ())) for key in keys], dtype=bool)
