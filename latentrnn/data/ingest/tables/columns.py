"""Columns of a table as numbers: categories coded with their names kept, gaps told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from latentrnn.support.arguments import is_number
from latentrnn.support.shown import shown

if TYPE_CHECKING:
    import pandas

Levels = tuple[str, ...]


def column_names(option: str, given: Any, columns: Sequence[Any]) -> list[Any]:
    """Columns of a table, from one, several or None.

    Raises:
        TypeError: no column or list of columns.
        ValueError: one that is not there, or is named twice.
    """
    names = [] if given is None else list(given) if isinstance(given, list | tuple) else [given]
    for name in names:
        if not isinstance(name, str | int | np.integer):
            raise TypeError(f"{option}: expected a column or a list of columns, found {shown(given)}")
        if name not in columns:
            raise ValueError(f"{option}: expected a column among {shown(list(columns), 200)}, found {name!r}")
        if names.count(name) > 1:
            raise ValueError(f"{option}: expected every column once, found {name!r} twice")
    return names


def named_columns(option: str, given: Any, columns: Sequence[Any]) -> dict[str, list[str]]:
    """Names of heads or covariates with the columns of each.

    Args:
        option: what it is, for messages.
        given: a dict of name to a column or a list of columns, or a list of columns that are one each.
        columns: of the table.

    Raises:
        TypeError: something else.
        ValueError: a column that is not there, or is taken twice.
    """
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        given = {str(name): name for name in column_names(option, given, columns)}
    found = {name: column_names(f"{option}[{name!r}]", item, columns) for name, item in given.items()}
    taken: set[Any] = set()
    for name, items in found.items():
        if not items:
            raise ValueError(f"{option}[{name!r}]: expected at least one column, found none")
        for item in items:
            if item in taken:
                raise ValueError(f"{option}[{name!r}]: expected every column once, found {item!r} twice")
            taken.add(item)
    return found


def is_category(column: pandas.Series) -> bool:
    """Return whether a column holds names instead of numbers: text, categories or Python objects; booleans are numbers.

    Args:
        column: (row,).
    """
    import pandas

    kind = column.dtype
    return isinstance(kind, pandas.CategoricalDtype) or not (
        pandas.api.types.is_numeric_dtype(kind) or pandas.api.types.is_bool_dtype(kind)
    )


def codes(where: str, column: pandas.Series, known: Sequence[Any] | None) -> tuple[NDArray[np.float64], Levels]:
    """Values 0, 1, ... of a column of names, NaN where one is missing, and the names.

    Names are in the order of the column's categories, or sorted where it has none.

    Raises:
        TypeError: something other than names, such as dates or lists.
        ValueError: a name that is not among the `known` ones.
    """
    import pandas

    column = column if isinstance(column.dtype, pandas.CategoricalDtype) else _checked(where, column).astype("category")
    levels = [str(level) for level in column.cat.categories]
    found = np.asarray(column.cat.codes.to_numpy(), np.float64)
    found[found < 0] = np.nan
    if known is None:
        return found, tuple(levels)
    wanted = [str(level) for level in known]
    seen = [levels[int(code)] for code in np.unique(found[~np.isnan(found)])]
    for level in seen:
        if level not in wanted:
            raise ValueError(f"{where}: expected a level among {shown(wanted, 200)}, found {level!r}")
    place = np.array([wanted.index(level) if level in wanted else -1 for level in levels] or [-1], np.float64)
    return np.where(np.isnan(found), np.nan, place[np.nan_to_num(found).astype(np.int64)]), tuple(wanted)


def numbers(where: str, column: pandas.Series) -> NDArray[np.float64]:
    """A column of numbers or booleans, NaN where one is missing.

    Raises:
        TypeError: complex numbers.
    """
    if column.dtype.kind == "c":
        raise TypeError(f"{where}: expected real numbers, found {column.dtype}")
    return np.asarray(column.to_numpy(dtype=np.float64, na_value=np.nan))


def read_levels(given: Any, columns: Sequence[Any]) -> dict[str, list[Any]]:
    """Names of the values of columns, as the user lists them.

    Raises:
        TypeError: no dict of lists.
        ValueError: a column that is not there, or a name twice.
    """
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise TypeError(f"levels: expected a dict of column to names of its values, found {shown(given)}")
    found = {}
    for column, names in given.items():
        if column not in columns:
            raise ValueError(f"levels: expected a column among {shown(list(columns), 200)}, found {column!r}")
        if isinstance(names, str) or not hasattr(names, "__iter__"):
            raise TypeError(f"levels[{column!r}]: expected a list of names, found {shown(names)}")
        found[column] = list(names)
        if len({str(name) for name in found[column]}) < len(found[column]) or not found[column]:
            raise ValueError(f"levels[{column!r}]: expected every name once, and at least one, found {shown(names)}")
    return found


def read_fill(given: Any, columns: Sequence[str]) -> dict[str, float] | None:
    """What stands for a missing covariate, by column; None where it may not be missing.

    Raises:
        TypeError: neither "refuse", "indicator" nor a dict of column to number.
        ValueError: a column that is no covariate.
    """
    if isinstance(given, str) and given in ("refuse", "indicator"):
        return None if given == "refuse" else dict.fromkeys(columns, 0.0)
    if not isinstance(given, Mapping):
        raise TypeError(
            f'missing_covariates: expected "refuse", "indicator" or a dict of column to number, found {shown(given)}'
        )
    for column, value in given.items():
        if column not in columns:
            raise ValueError(
                f"missing_covariates: expected a covariate's column among {list(columns)}, found {column!r}"
            )
        if not is_number(value) or not np.isfinite(value):
            raise TypeError(f"missing_covariates[{column!r}]: expected a number, found {shown(value)}")
    return {column: float(value) for column, value in given.items()}


def _checked(where: str, column: pandas.Series) -> pandas.Series:
    there = column.dropna()
    if not all(isinstance(item, str | bool | int | np.bool_ | np.integer) for item in there):
        odd = next(item for item in there if not isinstance(item, str | bool | int | np.bool_ | np.integer))
        raise TypeError(f"{where}: expected numbers or names, found {shown(odd)}, {type(odd).__name__}")
    return column.where(column.isna(), column.astype(str))
