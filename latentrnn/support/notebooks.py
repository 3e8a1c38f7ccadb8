"""What objects show of themselves in a notebook: a heading, lines of text, and tables; never their arrays."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas

MOST_ROWS = 12  # of a table that is shown; the others are counted


class ShownInNotebooks:
    """Gives a class `_repr_html_`: its `repr`, and the first rows of its table where it has one.

    A class with more to say writes `_shown`.
    """

    def _shown(self) -> tuple[Sequence[str], Sequence[Any]]:
        """Return lines of text, and data frames."""
        table = getattr(self, "to_dataframe", None)
        return [repr(self)], [] if table is None else [table()]

    def _repr_html_(self) -> str:
        lines, frames = self._shown()
        return page(type(self).__name__, lines, frames)


def page(title: str, lines: Iterable[str], frames: Iterable[pandas.DataFrame] = ()) -> str:
    """Return HTML of a heading, lines of text, and tables.

    Example:
        >>> page("Evidence", ["a < b"])
        '<div><strong>Evidence</strong><div style="white-space: pre-wrap">a &lt; b</div></div>'
    """
    texts = [line.removeprefix(f"{title}: ") for line in lines]
    shown = "".join(f'<div style="white-space: pre-wrap">{escape(text)}</div>' for text in texts)
    return f"<div><strong>{escape(title)}</strong>{shown}{''.join(map(_table, frames))}</div>"


def _table(frame: pandas.DataFrame) -> str:
    rows = frame.head(MOST_ROWS).to_html(max_rows=MOST_ROWS, border=0, float_format="{:.4g}".format, justify="left")
    more = len(frame) - MOST_ROWS
    return rows + (f"<div>and {more} more rows</div>" if more > 0 else "")
