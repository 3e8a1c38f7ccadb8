"""Rows with names: what comes in as a row of a table, or a dict by channel, is taken by name and never by position."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from latentrnn.data import DataSpec
from latentrnn.data.ingest.plain_numbers import is_frame
from latentrnn.support.shown import shown

PLAIN = np.ndarray, Tensor, list, tuple  # known at a glance to have no names


def is_series(value: Any) -> bool:
    """Whether it is a row or column of a table, with a label for each number (pandas)."""
    return hasattr(value, "index") and hasattr(value, "to_numpy") and not is_frame(value)


def has_names(value: Any) -> bool:
    """Whether it is a row, or a table, with names."""
    if type(value) in PLAIN:
        return False
    return is_series(value) or is_frame(value)


def is_row(given: Any, heads: Mapping[str, Any]) -> bool:
    """Whether an observation is a row over the channels of all heads, not a dict of head to values."""
    if isinstance(given, Mapping):
        return bool(given) and not any(name in heads for name in given)
    return has_names(given)


class Row:
    """One step by the names of channels, features and "time": a dict, a row, or of many streams a table.

    Args:
        spec: of the data.
        heads: that are followed.
        names: of the streams; None where there is one without a name.
        given: the row.

    Raises:
        ValueError: a name that is none of a channel or feature, or that several have; streams that are not known.
    """

    def __init__(self, spec: DataSpec, heads: Sequence[str], names: tuple[str, ...] | None, given: Any) -> None:
        self.names = names
        self.columns = _columns(given)
        self.channels = {name: spec.heads[name].channel_names for name in heads}
        self.features = {name: covariate.feature_names for name, covariate in spec.covariates.items()}
        self.irregular = spec.irregular
        owners: dict[str, list[str]] = {"time": ["time"]} if spec.irregular else {}
        for name, labels in (*self.channels.items(), *self.features.items()):
            for label in labels:
                owners.setdefault(label, []).append(name)
        unknown = [column for column in self.columns if column not in owners]
        if unknown:
            raise ValueError(
                f"observation: unknown {unknown}; expected a dict of head to values, of {list(self.channels)}, or a "
                f"row by the names of channels and features, of {shown(sorted(owners), 200)}"
            )
        for column in self.columns:
            if len(owners[column]) > 1:
                raise ValueError(
                    f"observation: {column!r} is a name in {owners[column]}; give a dict of head to values instead"
                )

        self.rows = _rows(given, names)

    def observation(self) -> dict[str, Any]:
        """Return head to values, for the heads of which something is in the row.

        Raises:
            ValueError: a head some of whose channels are in the row, and others not.
        """
        return self._of(self.channels, "observation", "NaN where it is missing", missing=True)

    def covariates(self) -> dict[str, Any]:
        """Return covariate to values, for those that are in the row, likewise."""
        return self._of(self.features, "covariates", "a number for each", missing=False)

    def time(self) -> Any:
        """Return the seconds in the row; None where it has none."""
        if "time" not in self.columns or not self.irregular:
            return None
        found = self._placed(["time"])[..., 0]
        return float(found) if self.names is None else found

    def _of(self, groups: Mapping[str, Sequence[str]], where: str, expected: str, *, missing: bool) -> dict[str, Any]:
        found = {}
        for name, labels in groups.items():
            there = [label for label in labels if label in self.columns]
            if not there:
                continue
            if len(there) < len(labels):
                absent = [label for label in labels if label not in self.columns]
                raise ValueError(f"{where}[{name!r}]: expected {expected}; the row has no {shown(absent)}")
            values = self._placed(list(labels))
            if missing and bool(np.isnan(values).all()):
                continue
            found[name] = values
        return found

    def _placed(self, labels: list[str]) -> Any:
        values = np.stack([self.columns[label] for label in labels], -1)
        if self.names is None:
            return values[0]
        assert self.rows is not None
        found = np.full((len(self.names), len(labels)), np.nan)
        found[self.rows] = values
        return found


def by_name(where: str, value: Any, labels: Sequence[str], names: tuple[str, ...] | None) -> Any:
    """Return a head's or covariate's values in the order of its channels, and of the streams, where they have labels.

    Raises:
        ValueError: labels that are not those of the channels, or streams that are not known.
    """
    if not has_names(value):
        return value
    columns = _columns(value)
    if names is None and not is_series(value):
        raise ValueError(f"{where}: expected one row (table.iloc[0]), or a filter of several streams; found a table")
    if set(columns) != set(labels):
        raise ValueError(
            f"{where}: expected labels {shown(list(labels), 200)}, found {shown(list(columns), 200)}; without labels "
            "values are taken in order"
        )
    values = np.stack([columns[label] for label in labels], -1)
    rows = _rows(value, names)
    if names is None or rows is None:
        return values[0]
    found = np.full((len(names), len(labels)), np.nan)
    found[rows] = values
    return found


def _columns(given: Any) -> dict[str, Any]:
    """Return values by name, (row,) each."""
    if is_frame(given):
        labels = [str(label) for label in given.columns]
        values = np.asarray(given.to_numpy(), dtype=np.float64).T
    elif isinstance(given, Mapping):
        return {str(label): _numbers(str(label), value) for label, value in given.items()}
    else:
        labels = [str(label) for label in given.index]
        values = np.asarray(given.to_numpy(), dtype=np.float64).reshape(-1, 1)
    if len(set(labels)) < len(labels):
        twice = next(label for label in labels if labels.count(label) > 1)
        raise ValueError(f"observation: expected every name once in the row, found {twice!r} twice")
    return dict(zip(labels, values, strict=True))


def _numbers(label: str, value: Any) -> Any:
    try:
        found = np.atleast_1d(np.asarray(value, dtype=np.float64))
    except (TypeError, ValueError):
        raise TypeError(f"observation: expected a number under {label!r}, found {shown(value)}") from None
    if found.ndim > 1:
        raise ValueError(f"observation: expected a number under {label!r}; found shape {found.shape}")
    return found


def _rows(given: Any, names: tuple[str, ...] | None) -> Any:
    """Return the places of the rows of a table among the streams; None where there is one row."""
    if names is None:
        if is_frame(given) and len(given) != 1:
            raise ValueError(f"observation: expected one row, found a table of {len(given)}")
        sizes = (
            {len(value) for value in given.values()}
            if isinstance(given, Mapping) and all(np.ndim(value) for value in given.values())
            else {1}
        )
        if sizes != {1}:
            raise ValueError("observation: expected a number under each name; found several")
        return None
    if not is_frame(given):
        if isinstance(given, Mapping) and all(np.shape(value) == (len(names),) for value in given.values()):
            return slice(None)
        raise ValueError(
            f"observation: expected a table with a row for each of the {len(names)} streams, or a dict of name to "
            "(stream,) values"
        )
    index = [str(label) for label in given.index]
    unknown = [label for label in index if label not in names]
    if unknown or len(set(index)) < len(index):
        what = f"unknown {shown(unknown)}" if unknown else "a stream twice"
        raise ValueError(f"observation: expected rows that are streams, of {shown(list(names), 200)}; found {what}")
    return [names.index(label) for label in index]
