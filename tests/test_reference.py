"""Every public name stands in the reference, once, where it can be imported from."""

from __future__ import annotations

import argparse
import importlib
import re
from collections import Counter
from pathlib import Path
from types import ModuleType

import pytest

import latentrnn as lr
from latentrnn.cli.parser import parser

REFERENCE = Path(__file__).resolve().parents[1] / "docs" / "reference"
HEADS = (
    "latentrnn",
    "latentrnn.interpret",
    "latentrnn.plotting",
    "latentrnn.datasets",
)  # modules that users import from


def listed(page: str) -> list[str]:
    """The full names that a page of the reference lists in its tables, in order."""
    found, module, inside = [], "", False
    for line in page.splitlines():
        if line.startswith(".. currentmodule:: "):
            module = line.split()[-1]
        if line and not line.startswith(" "):
            inside = line.startswith(".. autosummary::")
        elif inside and (name := re.fullmatch(r"   (\w+)", line)):
            found.append(f"{module}.{name[1]}")
    return found


def public(module: ModuleType) -> set[str]:
    """The names that a module offers: classes and functions of the package, without its modules."""
    return {
        f"{module.__name__}.{name}"
        for name, value in vars(module).items()
        if not name.startswith("_")
        and name != "former_name"
        and str(getattr(value, "__module__", "")).startswith("latentrnn")
    }


LISTED = [name for page in sorted(REFERENCE.glob("*.rst")) for name in listed(page.read_text())]


@pytest.mark.parametrize("module", HEADS)
def test_every_public_name_stands_in_the_reference(module: str) -> None:
    missing = public(importlib.import_module(module)) - set(LISTED)
    assert not missing, f"list these in a table of docs/reference: {sorted(missing)}"


def test_what_the_reference_lists_is_there_and_once() -> None:
    offered = set().union(*(public(importlib.import_module(module)) for module in HEADS))
    assert not set(LISTED) - offered
    assert not [name for name, times in Counter(LISTED).items() if times > 1]
    assert "latentrnn.fit" in LISTED
    assert lr.fit.__doc__


def test_every_page_of_the_reference_is_in_its_index() -> None:
    index = (REFERENCE / "index.md").read_text().splitlines()
    assert {page.stem for page in REFERENCE.glob("*.rst")} <= set(index)


def test_names_are_read_with_their_module() -> None:
    page = ".. currentmodule:: a.b\n\n.. autosummary::\n   :toctree: generated\n\n   one\n   two\n\nText\n\n   three\n"
    assert listed(page) == ["a.b.one", "a.b.two"]


def test_every_command_of_the_shell_stands_on_its_page() -> None:
    commands = next(action for action in parser()._actions if isinstance(action, argparse._SubParsersAction)).choices
    page = (REFERENCE / "shell.rst").read_text()
    assert re.findall(r"^\.\. shell-help:: (\w+)$", page, re.MULTILINE) == list(commands)
