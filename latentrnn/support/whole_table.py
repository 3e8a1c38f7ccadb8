"""A table that prints as a whole. Imported where a table is made: pandas takes its time."""

from __future__ import annotations

from typing import Any

import pandas


class WholeTable(pandas.DataFrame):
    """A data frame that prints all of its rows and columns, however narrow the screen; what is taken of it is plain.

    Example:
        >>> print(WholeTable({"name": ["scale"], "given": ["LogNormal(loc=0, scale=1)"]}))
            name                      given
        0  scale  LogNormal(loc=0, scale=1)
    """

    def __repr__(self) -> str:
        return str(self.to_string())

    @property
    def _constructor(self) -> Any:
        return pandas.DataFrame
