"""What is known of each sequence beside its values: its condition, its subject, what came of it."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latentrnn.data.ingest.names import AXES, SUFFIXES
from latentrnn.support.shown import shown

Metadata = Mapping[str, NDArray[Any]]
SCALARS = (str, bool, int, float, np.generic, datetime.date, datetime.timedelta)


def read_metadata(
    given: Any, sequences: Sequence[str], taken: Sequence[str], *, named: bool = True
) -> dict[str, NDArray[Any]]:
    """Labels, numbers, dates and the like, (sequence,) each, from a dict of lists or a table of one row per sequence.

    Missing is NaN among numbers, NaT among dates and the empty string among labels.

    Args:
        given: name to one value per sequence; a table's columns are its names, and where its index is more than a
            count its rows are found by the sequences' names.
        sequences: the sequences' names.
        taken: names of heads and covariates, which metadata cannot have.
        named: whether the sequences have names of their own instead of numbers, to which an index must be equal.

    Raises:
        TypeError: no dict or table, or values that are no numbers, labels, booleans, dates or durations.
        ValueError: not one value per sequence, an unknown or repeated name, or a name that is taken.
    """
    found = {}
    for name, values in _columns(given, sequences, named).items():
        where = f"metadata[{name!r}]"
        if not isinstance(name, str) or not name:
            raise TypeError(f"metadata: expected strings as names, found {name!r}")
        if name in taken or name in AXES or any(name == other + suffix for other in taken for suffix in SUFFIXES):
            raise ValueError(
                f"{where}: expected another name, since {name!r} is taken, by a head, a covariate or an axis"
            )
        found[name] = _read(where, values, len(sequences))
    return found


def taken(metadata: Metadata, rows: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
    """Return the metadata of some sequences.

    Args:
        metadata: by name (sequence,).
        rows: positions of the sequences, (chosen,).

    Returns:
        By name (chosen,).
    """
    return {name: values[rows] for name, values in metadata.items()}


def joined(parts: Mapping[str, Metadata]) -> dict[str, NDArray[Any]]:
    """The metadata of the sequences of several sessions, one after another.

    Raises:
        ValueError: a session knows something that another does not, or in another type.
    """
    first_session, first = next(iter(parts.items()))
    for session, metadata in parts.items():
        if set(metadata) != set(first):
            raise ValueError(
                f"sessions[{session!r}].metadata: expected {sorted(first)} as in {first_session!r}, found "
                f"{sorted(metadata)}"
            )
        for name, values in metadata.items():
            if _kind(values) != _kind(first[name]):
                raise ValueError(
                    f"sessions[{session!r}].metadata[{name!r}]: expected {_kind(first[name])} as in {first_session!r}, "
                    f"found {_kind(values)}"
                )
    return {name: np.concatenate([metadata[name] for metadata in parts.values()]) for name in first}


def matching(metadata: Metadata, wanted: Mapping[str, Any]) -> NDArray[np.bool_]:
    """Which sequences have, under every name of `wanted`, its value or one of its values.

    Raises:
        TypeError: something that is no value.
        ValueError: a name of which nothing is known, or a value that no sequence has.
    """
    found: NDArray[np.bool_] | None = None
    for name, value in wanted.items():
        known = find(metadata, name, "where")
        several = isinstance(value, list | tuple | set | frozenset) or (
            isinstance(value, np.ndarray) and value.ndim == 1
        )
        here = np.zeros(len(known), bool)
        for item in value if several else [value]:
            if not isinstance(item, SCALARS):
                raise TypeError(f"where: expected a value of {name}, or a list of values, found {shown(value)}")
            same = np.asarray(known == item, bool)
            if same.shape != known.shape or not same.any():
                raise ValueError(
                    f"where: expected {name} among {shown(np.unique(known).tolist())}, found {shown(item)}"
                )
            here |= same
        found = here if found is None else found & here
    if found is None:
        raise ValueError(
            f"where: expected a value of one of {sorted(metadata)}, found none; write where({{name}}=value)"
        )
    return found


def find(metadata: Metadata, name: Any, where: str) -> NDArray[Any]:
    """The values under a name.

    Raises:
        ValueError: nothing of this name is known.
    """
    if not isinstance(name, str) or name not in metadata:
        raise ValueError(f"{where}: expected metadata among {sorted(metadata)}, found {shown(name)}")
    return metadata[name]


def _columns(given: Any, sequences: Sequence[str], named: bool) -> dict[Any, Any]:
    if hasattr(given, "columns") and hasattr(given, "index"):  # a table of pandas
        twice = given.columns[given.columns.duplicated()]
        if len(twice):
            raise ValueError(f"metadata: expected every column once, found {twice[0]!r} twice")
        table = _in_order("metadata", given, sequences, named)
        return {name: table[name] for name in table.columns}
    if not isinstance(given, Mapping):
        raise TypeError(
            f"metadata: expected a dict of name to one value per sequence, or a table, found {type(given).__name__}"
        )
    return {
        name: _in_order(f"metadata[{name!r}]", values, sequences, named)
        if hasattr(values, "index") and hasattr(values, "reindex")
        else values
        for name, values in given.items()
    }


def _in_order(where: str, table: Any, sequences: Sequence[str], named: bool) -> Any:
    """Rows in the order of the sequences: by name, where the index is one."""
    index = table.index
    counted = type(index).__name__ == "RangeIndex" or index.tolist() == list(range(len(index)))
    if counted and not (named and [str(label) for label in index.tolist()] == list(sequences)):
        return table
    labels = [str(label) for label in index.tolist()]
    if sorted(labels) != sorted(sequences):
        how = "" if named else "; the sequences have no names: give sequence_names, or drop the index by reset_index()"
        raise ValueError(
            f"{where}: expected the sequences {shown(list(sequences))} as its index, found {shown(labels)}{how}"
        )
    return table.iloc[[labels.index(name) for name in sequences]]


def _read(where: str, values: Any, count: int) -> NDArray[Any]:
    if isinstance(values, str | bytes | Mapping | set) or not hasattr(values, "__len__"):
        raise TypeError(f"{where}: expected one value per sequence, found {shown(values)}")
    if hasattr(values, "detach"):
        values = values.detach().cpu().numpy()
    if hasattr(values, "to_numpy"):  # a column of pandas, whose NA is no number, or an index
        missing = np.asarray(values.isna())
        items = [None if gone else item for item, gone in zip(values.tolist(), missing.tolist(), strict=True)]
        array = (
            np.asarray(values.to_numpy()) if values.dtype.kind in "biufmM" and not missing.any() else _objects(items)
        )
    else:
        array = values if isinstance(values, np.ndarray) else _objects(list(values))
    if array.shape != (count,):
        raise ValueError(f"{where}: expected {count} values, one per sequence, found shape {array.shape}")
    if array.dtype.kind == "O":
        array = _plain(where, array.tolist())
    if array.dtype.kind == "M":
        return array.astype("datetime64[ns]")
    if array.dtype.kind == "m":
        return array.astype("timedelta64[ns]")
    if array.dtype.kind == "U":
        return array
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{where}: expected numbers, labels, booleans, dates or durations, found dtype {array.dtype}")
    return np.array(array)  # a copy: what belongs to the user may change


def _objects(items: list[Any]) -> NDArray[Any]:
    array = np.empty(len(items), object)
    array[:] = items
    return array


def _plain(where: str, items: list[Any]) -> NDArray[Any]:
    """One type for Python's objects, in which a missing one has its own value."""
    there = [item for item in items if not _absent(item)]
    if all(isinstance(item, str) for item in there):
        return np.array(["" if _absent(item) else item for item in items], dtype=np.str_)
    if all(isinstance(item, bool | np.bool_) for item in there) and len(there) == len(items):
        return np.array(items, dtype=bool)
    if all(isinstance(item, int | np.integer) and not isinstance(item, bool) for item in there) and len(there) == len(
        items
    ):
        return np.array(items, dtype=np.int64)
    if all(isinstance(item, int | float | np.number) and not isinstance(item, bool) for item in there):
        return np.array([np.nan if _absent(item) else item for item in items], dtype=np.float64)
    for kind, nothing, numpy_type in (
        (datetime.date, np.datetime64("NaT"), np.datetime64),
        (datetime.timedelta, np.timedelta64("NaT"), np.timedelta64),
    ):
        if all(isinstance(item, kind | numpy_type) for item in there):
            if any(getattr(item, "tzinfo", None) is not None for item in there):
                there_utc = [_in_utc(item) for item in items]
                return np.array([nothing if _absent(item) else numpy_type(item) for item in there_utc])
            return np.array([nothing if _absent(item) else numpy_type(item) for item in items])
    odd = next(item for item in there if type(item) is not type(there[0])) if len({*map(type, there)}) > 1 else there[0]
    raise TypeError(
        f"{where}: expected labels alone, or numbers, booleans, dates or durations alone, found {shown(there[0])} and "
        f"{shown(odd)}"
    )


def _in_utc(item: Any) -> Any:
    return item if _absent(item) else item.astimezone(datetime.UTC).replace(tzinfo=None)


def _absent(item: Any) -> bool:
    if item is None or type(item).__name__ in ("NAType", "NaTType"):
        return True
    return isinstance(item, float | np.floating | np.datetime64 | np.timedelta64) and bool(item != item)


def _kind(values: NDArray[Any]) -> str:
    kinds = {"b": "booleans", "M": "dates", "m": "durations", "U": "labels"}
    return kinds.get(values.dtype.kind, "numbers")
