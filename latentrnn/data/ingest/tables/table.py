"""One table with a row for each step, or for each value, as the arguments of `from_arrays`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from latentrnn.data.calendar import Calendar
from latentrnn.data.ingest.names import check_known
from latentrnn.data.ingest.tables.clock import Clock, as_times, read_clock
from latentrnn.data.ingest.tables.columns import (
    Levels,
    codes,
    column_names,
    is_category,
    named_columns,
    numbers,
    read_fill,
    read_levels,
)
from latentrnn.support.shown import shown

if TYPE_CHECKING:
    import pandas

TIME = "(time)"  # of the column that holds the index, which no file has


@dataclass(frozen=True)
class FromTable:
    """What a table holds.

    Attributes:
        arrays: arguments of `SequenceData.from_arrays`.
        levels: per head what its channels' values stand for.
        calendar: dates of the steps; None where the table has none.
    """

    arrays: dict[str, Any]
    levels: dict[str, tuple[Levels, ...]]
    calendar: Calendar | None


def read_table(
    frame: Any,
    observations: Any,
    covariates: Any,
    *,
    time: str | None,
    group: str | Sequence[str] | None,
    variable: str | None,
    value: str | None,
    per_sequence: Sequence[str],
    metadata: Sequence[str],
    dt: Any,
    sampling: str,
    missing_covariates: Any,
    levels: Any,
) -> FromTable:
    """Return the arguments of `from_arrays` that a table holds; those here are of `SequenceData.from_dataframe`.

    Raises:
        TypeError: something is of the wrong type.
        ValueError: a column is not there, rows are not at equal distances, or two have the same time.
    """
    table = _as_table(frame)
    columns = list(table.columns)
    groups, metadata = column_names("group", group, columns), column_names("metadata", metadata, columns)
    table, time = _with_time(table, time, groups)
    facts = table
    if variable is not None or value is not None:
        table = _wide(table, groups, time, variable, value)
    heads = named_columns("observations", observations, list(table.columns))
    inputs = named_columns("covariates", covariates, list(table.columns))
    check_known("per_sequence", per_sequence, [*heads, *inputs], "a head or covariate")
    sequences = _sequences(table, groups, time)
    names = list(sequences)
    times = None if time is None else [part[time] for part in sequences.values()]
    clock = read_clock(times, [len(part) for part in sequences.values()], dt, sampling, names)
    reader = _Reader(table, sequences, clock, read_levels(levels, [*_all(heads), *_all(inputs)]))
    fill = read_fill(missing_covariates, _all(inputs))
    read = {name: reader.head(name, items, name in per_sequence) for name, items in heads.items()}
    given = {name: reader.covariate(name, items, name in per_sequence, fill) for name, items in inputs.items()}
    arrays = {
        "observations": {name: head[0] for name, head in read.items()},
        "covariates": {name: item[0] for name, item in given.items()},
        "dt": clock.dt,
        "times": clock.times,
        "per_sequence": per_sequence,
        "channel_names": heads,
        "feature_names": {name: item[1] for name, item in given.items()},
        "sequence_names": names,
        "metadata": _metadata(facts, groups, metadata, names) or None,
    }
    named = {name: head[1] for name, head in read.items() if any(head[1])}
    return FromTable(arrays, named, clock.calendar)


@dataclass(frozen=True)
class _Reader:
    """Heads and covariates of the sequences of a table."""

    table: pandas.DataFrame
    sequences: Mapping[str, pandas.DataFrame]
    clock: Clock
    levels: Mapping[str, list[Any]]

    def head(self, name: str, columns: list[str], single: bool) -> tuple[Any, tuple[Levels, ...]]:
        """Values, NaN where there is none, and what they stand for where they are names."""
        where, read, named = f"observations[{name!r}]", [], []
        for column in columns:
            values, names = self._column(f"{where}, column {column!r}", column)
            read.append(values)
            named.append(names)
        return self._arrays(where, columns, np.stack(read, 1), single), tuple(named)

    def covariate(
        self, name: str, columns: list[str], single: bool, fill: Mapping[str, float] | None
    ) -> tuple[Any, list[str]]:
        """Values, one column per name where they are names, and whether they are missing where they may be."""
        where, read = f"covariates[{name!r}]", []
        named: list[str] = []
        firsts, allowed, instead = [], [], []
        for column in columns:
            values, names = self._column(f"{where}, column {column!r}", column)
            firsts.append(len(named))
            if names:
                read += [np.where(np.isnan(values), np.nan, values == code) for code in range(len(names))]
                named += [f"{column}={level}" for level in names]
            else:
                read.append(values)
                named.append(str(column))
            width = max(len(names), 1)
            allowed += [fill is not None and column in fill] * width
            # of names none is true where none is known, whatever stands for a number
            instead += [0.0 if names or fill is None else fill.get(column, 0.0)] * width
        arrays = self._arrays(where, named, np.stack(read, 1), single)
        self._refuse_missing(where, [np.where(allowed, 0.0, array) for array in arrays], named, single)
        told = [(column, first) for column, first in zip(columns, firsts, strict=True) if allowed[first]]
        if not told:
            return arrays, named
        gone = [np.isnan(array[..., [first for _, first in told]]).astype(np.float64) for array in arrays]
        filled = [np.where(np.isnan(array), instead, array) for array in arrays]
        full = [np.concatenate([values, missing], -1) for values, missing in zip(filled, gone, strict=True)]
        return (np.stack(full) if single else full), [*named, *(f"{column} missing" for column, _ in told)]

    def _column(self, where: str, column: str) -> tuple[NDArray[np.float64], Levels]:
        if column in self.levels or is_category(self.table[column]):
            return codes(where, self.table[column], self.levels.get(column))
        return numbers(where, self.table[column]), ()

    def _arrays(self, where: str, names: list[str], values: NDArray[np.float64], single: bool) -> Any:
        """Of every sequence its rows at their steps, or the one row that all of them repeat."""
        found = []
        for (name, part), places, length in zip(
            self.sequences.items(), self.clock.places, self.clock.lengths, strict=True
        ):
            rows = values[part.index.to_numpy()]
            if single:
                found.append(_one_row(where, rows, names, name))
                continue
            array = np.full((length, values.shape[1]), np.nan)
            array[places] = rows
            found.append(array)
        return np.stack(found) if single else found

    def _refuse_missing(self, where: str, arrays: Any, names: list[str], single: bool) -> None:
        for name, array in zip(self.sequences, arrays, strict=True):
            if not np.isnan(array).any():
                continue
            step, feature = (0, *np.argwhere(np.isnan(array))[0]) if single else np.argwhere(np.isnan(array))[0]
            place = f"sequence {name!r}" if single else f"sequence {name!r}, step {step}"
            raise ValueError(
                f"{where}: expected a value of {names[int(feature)]!r} at every step, found none at {place}; "
                'missing_covariates="indicator" tells the model where they are missing'
            )


def _one_row(where: str, rows: NDArray[np.float64], names: list[str], sequence: str) -> NDArray[np.float64]:
    out = np.full(rows.shape[1], np.nan)
    for at, name in enumerate(names):
        there = rows[~np.isnan(rows[:, at]), at]
        if len(np.unique(there)) > 1:
            raise ValueError(
                f"{where}: expected one value of {name!r} per sequence, found {there[0]:g} and "
                f"{there[there != there[0]][0]:g} in sequence {sequence!r}"
            )
        out[at] = there[0] if len(there) else np.nan
    return out


def _as_table(frame: Any) -> pandas.DataFrame:
    import pandas

    if not isinstance(frame, pandas.DataFrame) and hasattr(frame, "to_pandas"):  # polars, pyarrow
        frame = frame.to_pandas()
    if not isinstance(frame, pandas.DataFrame):
        raise TypeError(f"from_dataframe: expected a table (pandas, polars), found {type(frame).__name__}")
    if not len(frame):
        raise ValueError("from_dataframe: expected at least one row, found none")
    named = [name for name in frame.index.names if name is not None and name not in frame.columns]
    if named and isinstance(frame.index, pandas.DatetimeIndex | pandas.TimedeltaIndex):
        frame = frame.assign(**{named[0]: frame.index})  # which may be asked for by name, or not
    elif named:
        frame = frame.reset_index(named)
    twice = frame.columns[frame.columns.duplicated()]
    if len(twice):
        raise ValueError(f"from_dataframe: expected every column once, found {twice[0]!r} twice")
    return frame


def _with_time(table: pandas.DataFrame, time: Any, groups: list[str]) -> tuple[pandas.DataFrame, str | None]:
    """The table with a column of times, from its index where that has them and no column is named."""
    import pandas

    if time is None:
        if isinstance(table.index, pandas.DatetimeIndex | pandas.TimedeltaIndex):
            return table.assign(**{TIME: table.index}).reset_index(drop=True), TIME
        dated = [name for name in table.columns if table[name].dtype.kind == "M" and name not in groups]
        if dated:
            raise ValueError(
                f"time: expected the column that says when, found none, and dates in {dated}; write time={dated[0]!r}"
            )
        return table.reset_index(drop=True), None
    column_names("time", [time], list(table.columns))
    table = table.reset_index(drop=True)
    return table.assign(**{time: as_times(f"time, column {time!r}", table[time])}), time


def _wide(table: pandas.DataFrame, groups: list[str], time: str | None, variable: Any, value: Any) -> pandas.DataFrame:
    """A table with a row for each value as one with a column for each variable."""
    for option, name in (("variable", variable), ("value", value)):
        column_names(option, [name], list(table.columns))
    if time is None:
        raise ValueError("time: expected a column of times where every row is one value, found none")
    keys = [*groups, time]
    _refuse_unnamed(table, groups)
    twice = table.duplicated([*keys, variable])
    if twice.any():
        row = table[twice].iloc[0]
        place = ", ".join(f"{key} {row[key]}" for key in keys)
        raise ValueError(f"variable: expected one value of {row[variable]!r} at {place}, found several")
    order = table[groups].drop_duplicates() if groups else None
    wide = table.pivot(index=keys, columns=variable, values=value).reset_index()
    wide.columns = [str(name) for name in wide.columns]
    wide = wide.infer_objects()
    return wide if order is None else order.merge(wide, on=groups, how="left").reset_index(drop=True)


def _sequences(table: pandas.DataFrame, groups: list[str], time: str | None) -> dict[str, pandas.DataFrame]:
    """The rows of each sequence by its name, in the order in which they come first, by time within each."""
    _refuse_unnamed(table, groups)
    parts = {("0",): table} if not groups else dict(tuple(table.groupby(groups, sort=False, observed=True)))
    found = {}
    for key, part in parts.items():
        name = "/".join(str(item) for item in key)
        if name in found:
            raise ValueError(f"group: expected every sequence to have a name of its own, found {name!r} twice")
        if time is not None:
            part = part.sort_values(time, kind="stable")
            twice = part[time].duplicated()
            if twice.any():
                hint = "" if groups else "; name the column that tells sequences apart by group="
                when = part[time][twice].iloc[0]
                raise ValueError(f"time: expected one row per time, found several at {when} in sequence {name!r}{hint}")
        found[name] = part
    return found


def _refuse_unnamed(table: pandas.DataFrame, groups: list[str]) -> None:
    for name in groups:
        if table[name].isna().any():
            raise ValueError(f"group: expected a value of {name!r} in every row, found none in some")


def _metadata(
    table: pandas.DataFrame, groups: list[str], columns: list[str], names: list[str]
) -> dict[str, pandas.Series]:
    """What the columns say of each sequence, of which every row says the same."""
    wanted = [*(name for name in groups if len(groups) > 1 and name not in columns), *columns]
    if not wanted:
        return {}
    if not groups:
        parts = {names[0]: table}
    else:
        grouped = table.groupby(groups, sort=False, observed=True)
        parts = {"/".join(str(item) for item in key): part for key, part in grouped}
    import pandas

    found = {}
    for column in wanted:
        values = []
        for name in names:
            there = parts[name][column].dropna().unique()
            if len(there) > 1:
                raise ValueError(
                    f"metadata: expected one value of {column!r} per sequence, found {shown(there[0])} and "
                    f"{shown(there[1])} in sequence {name!r}"
                )
            values.append(there[0] if len(there) else None)
        found[column] = pandas.Series(values)
    return found


def _all(columns: Mapping[str, list[str]]) -> list[str]:
    return [name for names in columns.values() for name in names]
