"""What a command answers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True)
class Answer:
    """What a command answers.

    Attributes:
        text: for people.
        values: for programs, with `--json`: numbers, texts, lists, dicts and tables.
        code: that the command ends with.
    """

    text: str
    values: dict[str, Any] = field(default_factory=dict)
    code: int = 0


def shown_table(frame: pandas.DataFrame) -> str:
    """A table as text, all of it, numbers with a few digits."""
    wide = frame.to_string(float_format=lambda value: f"{value:.4g}", na_rep="")
    return wide if len(frame) else "(no rows)"
