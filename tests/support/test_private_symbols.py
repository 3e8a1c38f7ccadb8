"""What is private in torch and Pyro is used through one file, and means what that file says."""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterator
from pathlib import Path

import torch
from pyro import poutine
from torch import nn

import latentrnn
from latentrnn.support import private_symbols

PACKAGE = Path(latentrnn.__file__).parent


def private_names(tree: ast.AST) -> Iterator[str]:
    """Names with an underscore in imports from torch and Pyro, and in what is read of these modules."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in ("torch", "pyro"):
            path = [*(node.module or "").split("."), *(alias.name for alias in node.names)]
            yield from (name for name in path if name.startswith("_"))
        elif isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__"):
            root = node.value
            while isinstance(root, ast.Attribute):
                root = root.value
            if isinstance(root, ast.Name) and root.id in ("torch", "pyro", "poutine", "dist", "F"):
                yield node.attr


def test_only_one_file_uses_what_is_private() -> None:
    found = {
        path.relative_to(PACKAGE).as_posix(): names
        for path in PACKAGE.rglob("*.py")
        if (names := list(private_names(ast.parse(path.read_text()))))
    }
    assert list(found) == ["support/private_symbols.py"]


def test_transforms_are_seen() -> None:
    def seen(value: torch.Tensor) -> torch.Tensor:
        found.append((private_symbols.transforms_active(), private_symbols.within_transform(value)))
        return value.sum()

    found: list[tuple[bool, bool]] = []
    seen(torch.ones(3))
    torch.func.vmap(seen)(torch.ones(2, 3))
    with torch.autograd.forward_ad.dual_level():
        seen(torch.ones(3))
    assert found == [(False, False), (True, True), (True, False)]


def test_handlers_come_outermost_first() -> None:
    assert private_symbols.handlers() == []
    with poutine.trace() as outer, poutine.trace() as inner:
        assert private_symbols.handlers() == [outer, inner]


def test_a_copy_gets_another_part_and_the_original_keeps_its_own() -> None:
    whole = nn.Sequential(nn.Linear(1, 1))
    other, part = copy.copy(whole), nn.Linear(2, 2)
    private_symbols.replace_child(other, "0", part)
    assert other[0] is part
    assert whole[0] is not part
