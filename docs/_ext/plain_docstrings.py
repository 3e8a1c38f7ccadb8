"""Docstrings as the package writes them, as reStructuredText for Sphinx.

They are plain text, to be read in a terminal: `code` in single backticks, formulas as indented blocks, no other markup.
Here code becomes literal or a link to what it names, formulas become literal blocks, and characters that mean something
to reStructuredText mean themselves.
"""

from __future__ import annotations

import re
from types import ModuleType
from typing import Any

import latentrnn

SECTION = re.compile(r"(?:Args|Attributes|Example|Examples|Raises|References|Returns|Warns|Yields|Note):$")
CODE = re.compile(r"`([^`]+)`")
SPECIAL = re.compile(r"([*|\\]|_(?=\W|$))")


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _target(code: str) -> str | None:
    """The public name that a piece of code is, if it is one."""
    full = code.removeprefix("latentrnn.").removeprefix("lr.").removesuffix("()")
    if not re.fullmatch(r"\w+(\.\w+)*", full):
        return None
    first, *rest = full.split(".")
    found: Any = getattr(latentrnn, first, None) if first in vars(latentrnn) and first != "former_name" else None
    if found is None or (isinstance(found, ModuleType) and not rest):
        return None
    for part in rest:
        found = getattr(found, part, None)
    return None if found is None else f"latentrnn.{full}"


def _inline(text: str) -> str:
    """A piece of a line outside blocks: its code marked as such, everything else meaning itself."""
    pieces = CODE.split(text)
    for i, piece in enumerate(pieces):
        if i % 2 == 0:
            pieces[i] = SPECIAL.sub(r"\\\1", piece)
            continue
        name = _target(piece)
        marked = f"``{piece}``" if name is None else f":py:obj:`{piece} <{name}>`"
        before = pieces[i - 1][-1:] if pieces[i - 1] else ""
        after = pieces[i + 1][:1] if i + 1 < len(pieces) else ""
        if before and re.match(r"\w", before):
            marked = "\\ " + marked
        if after and re.match(r"\w", after):
            marked += "\\ "
        pieces[i] = marked
    return "".join(pieces)


def _formulas(lines: list[str]) -> list[str]:
    """Blocks that are indented deeper than the paragraph before them, outside sections, as literal blocks."""
    out: list[str] = []
    section = literal = False
    for i, line in enumerate(lines):
        if SECTION.match(line):
            section = True
        elif line and _indent(line) == 0 and i and not lines[i - 1]:
            section = False  # a paragraph (or a doctest) after a section
        blank_before = i == 0 or not lines[i - 1].strip()
        if literal and line.strip() and _indent(line) == 0:
            literal = False
        if not section and not literal and line.strip() and _indent(line) >= 4 and blank_before:
            out += [".. code-block:: text", ""]
            literal = True
        out.append(line if literal else "\0" + line)
    return out


def _whole_code(lines: list[str]) -> list[str]:
    """The lines, those joined over whose ends a piece of code goes on."""
    out: list[str] = []
    for line in lines:
        if out and out[-1].count("`") % 2 and line.strip():
            out[-1] += " " + line.strip()
        else:
            out.append(line)
    return out


def convert(lines: list[str]) -> list[str]:
    """The lines of a docstring as reStructuredText with sections for napoleon.

    Args:
        lines: as `inspect.getdoc` gives them.
    """
    out, doctest = [], False
    for line in _formulas(_whole_code(lines)):
        if not line.startswith("\0"):
            out.append(line)
            continue
        line = line[1:]
        doctest = bool(line.strip()) and (doctest or line.lstrip().startswith(">>>"))
        if (
            doctest
            and out
            and out[-1].strip()
            and not out[-1].lstrip().startswith((">>>", "..."))
            and not _is_output(out)
        ):
            out.append("")
        out.append(line if doctest or SECTION.match(line) else _inline(line))
    return out


def _is_output(lines: list[str]) -> bool:
    """Whether the last paragraph is a doctest already."""
    for line in reversed(lines):
        if not line.strip():
            return False
        if line.lstrip().startswith(">>>"):
            return True
    return False


def _process(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    lines[:] = convert(list(lines))


def setup(app: Any) -> dict[str, Any]:
    app.connect("autodoc-process-docstring", _process, priority=100)  # before napoleon
    return {"parallel_read_safe": True}
