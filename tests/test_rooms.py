"""Dependencies between the package's rooms point one way: a room imports only from itself and from rooms before it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "latentrnn"
ROOMS = ["support", "data", "models", "inference", "plotting", "export", "criticism", "interpret", "cli"]

# Methods that hand their object to a later room (`posterior.to_arviz()`, `result.save()`, `check.plot()`). They import
# inside the function, so that no room needs a later one to be imported.
SHORTCUTS = {("inference", "export")}


@dataclass(frozen=True)
class Import:
    """One import of a module of the package: where it stands, what it names, and whether it waits inside a function."""

    line: int
    module: str
    deferred: bool


def imports_of(source: str, module: str, *, is_package: bool) -> Iterator[Import]:
    """Every import of ``latentrnn`` in a source file, relative ones resolved against ``module``, its dotted name."""

    def visit(node: ast.AST, deferred: bool) -> Iterator[Import]:
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            parts = module.split(".")
            parts = parts[: len(parts) - node.level + is_package] if node.level else []
            base = ".".join([*parts, *([node.module] if node.module else [])])
            # `from latentrnn import models` names a room, `from latentrnn.models import GRU` something in one.
            names = [f"{base}.{alias.name}" for alias in node.names] if base == "latentrnn" else [base]
        else:
            names = []
        for name in names:
            if name.split(".")[0] == "latentrnn":
                yield Import(node.lineno, name, deferred)
        for child in ast.iter_child_nodes(node):
            yield from visit(child, deferred or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))

    yield from visit(ast.parse(source), False)


def complaints_about(source: str, module: str, *, is_package: bool = False) -> list[str]:
    """What a source file imports that its room may not."""
    room = module.split(".")[1]
    found = []
    for item in imports_of(source, module, is_package=is_package):
        target = [*item.module.split("."), ""][1]
        if target not in ROOMS:
            found.append(f"{module}:{item.line} imports {item.module}: not a room; name the room that defines it")
        elif ROOMS.index(target) > ROOMS.index(room) and not (item.deferred and (room, target) in SHORTCUTS):
            found.append(f"{module}:{item.line} imports {item.module}: {target} comes after {room}")
    return found


def files() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def test_every_file_stands_in_a_room() -> None:
    assert files()
    strangers = {path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in files()} - set(ROOMS)
    assert not strangers, f"not in the list of rooms: {sorted(strangers)}"


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_rooms_import_only_from_rooms_before_them(path: Path) -> None:
    dotted = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")
    assert complaints_about(path.read_text(), dotted, is_package=path.name == "__init__.py") == []


@pytest.mark.parametrize(
    ("source", "module", "message"),
    [
        ("from latentrnn.inference import fit", "latentrnn.models.gain", "inference comes after models"),
        ("import latentrnn.models", "latentrnn.data.spec", "models comes after data"),
        ("from ..models import gain", "latentrnn.data.spec", "models comes after data"),
        ("from ...models import gain", "latentrnn.data.parts.spec", "models comes after data"),
        ("def f():\n    from latentrnn import models", "latentrnn.data.spec", "models comes after data"),
        ("import latentrnn as lr", "latentrnn.models.gain", "not a room"),
        ("from latentrnn import GRU", "latentrnn.models.gain", "not a room"),
        ("from .. import GRU", "latentrnn.models.gain", "not a room"),
        ("from latentrnn.criticism import PIT", "latentrnn.plotting.checks", "criticism comes after plotting"),
    ],
)
def test_a_wrong_import_is_noticed(source: str, module: str, message: str) -> None:
    [complaint] = complaints_about(source, module)
    assert message in complaint


@pytest.mark.parametrize(
    ("source", "module"),
    [
        ("from latentrnn.data import SequenceData\nimport torch", "latentrnn.models.gain"),
        ("from .spec import DataSpec", "latentrnn.data.ingest.ingest"),
        ("from ..data.spec import DataSpec", "latentrnn.models.gain"),
        ("def plot():\n    from latentrnn.plotting import raster", "latentrnn.criticism.checks"),
        ("def save():\n    from latentrnn.export import save", "latentrnn.inference.fitting.result"),
    ],
)
def test_a_right_import_passes(source: str, module: str) -> None:
    assert complaints_about(source, module) == []


def test_a_package_resolves_its_own_relative_imports() -> None:
    assert complaints_about("from .spec import DataSpec", "latentrnn.data", is_package=True) == []
    [complaint] = complaints_about("from ..models import gain", "latentrnn.data", is_package=True)
    assert "models comes after data" in complaint
