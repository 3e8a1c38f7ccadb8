"""The package's rooms depend on each other in one direction: a room imports only from itself and from rooms before it.

Every import counts: those inside functions and those for type checkers too. `CONTRIBUTING.md` shows the same list.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "latentrnn"
ROOMS = {
    "support": "argument checks, seeding, devices, strict JSON, former names, private symbols of torch and Pyro",
    "data": "from arrays, files and spike times to the one data object, and its views",
    "datasets": "recordings that packages ship, and files of public formats",
    "models": "the generative program and its parts",
    "inference.guides": "the guide, its families and encoders",
    "inference.filters": "the particle filter, and one-step-ahead densities",
    "inference.objectives": "bounds on the log evidence and their terms",
    "inference.evidence": "the marginal likelihood by several estimators",
    "inference.posterior": "what is asked of a fitted model",
    "inference.online": "sequences as they come in, step by step",
    "inference.fitting": "stochastic variational inference: settings, loop, checkpoints, saved fits",
    "inference.sampling": "NUTS, Laplace's approximation, ensembles",
    "plotting": "axes in, axes out, from plain fields",
    "export": "ArviZ and netCDF",
    "criticism": "checks, scores, calibration, comparison",
    "interpret": "gates, memories and dynamics of a fitted model as quantities with names, units and intervals",
    "pages": "a fitted model as one page to read and to send",
    "study": "comparison runs: models, seeds and settings, shared by processes, that survive kills",
    "cli": "the command line",
}
ORDER = list(ROOMS)


@dataclass(frozen=True)
class Import:
    """One import of a module of the package: where it stands, and what it names."""

    line: int
    module: str
    name: str | None = None  # what is taken from the module


def imports_of(source: str, module: str, *, is_package: bool) -> Iterator[Import]:
    """Every import of ``latentrnn`` in a source file, relative ones resolved against ``module``, its dotted name."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found = [Import(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            parts = module.split(".")
            parts = parts[: len(parts) - node.level + is_package] if node.level else []
            base = ".".join([*parts, *([node.module] if node.module else [])])
            found = [Import(node.lineno, base, alias.name) for alias in node.names]
        else:
            found = []
        yield from (item for item in found if item.module.split(".")[0] == "latentrnn")


def room_of(module: str, name: str | None = None) -> str | None:
    """The room of a module, or of a name in it; None where it is none: the package itself, or all of inference."""
    parts = [*module.split("."), *([name] if name else [])][1:]
    for depth in (2, 1):
        if ".".join(parts[:depth]) in ROOMS:
            return ".".join(parts[:depth])
    return None


def complaints_about(source: str, module: str, *, is_package: bool = False) -> list[str]:
    """What a source file imports that its room may not."""
    room = room_of(module)
    if room is None:  # the package's and inference's `__init__`, which hand on names of all rooms
        return []
    found = []
    for item in imports_of(source, module, is_package=is_package):
        target = room_of(item.module, item.name)
        if target is None:
            found.append(f"{module}:{item.line} imports {item.module}: not a room; name the room that defines it")
        elif ORDER.index(target) > ORDER.index(room):
            found.append(f"{module}:{item.line} imports {item.module}: {target} comes after {room}")
    return found


def files() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def dotted(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def circles(imports: dict[str, set[str]]) -> list[list[str]]:
    """The sets of modules that reach each other through their imports."""
    reached: dict[str, set[str]] = {}
    for module in imports:
        seen, ahead = set(), list(imports[module])
        while ahead:
            if (other := ahead.pop()) not in seen:
                seen.add(other)
                ahead += imports.get(other, set())
        reached[module] = seen
    tied = {tuple(sorted({m} | {o for o in reached[m] if m in reached.get(o, set())})) for m in imports}
    return sorted(list(group) for group in tied if len(group) > 1)


def graph() -> dict[str, set[str]]:
    """The files that each file imports from; a name that an `__init__` hands on counts for the file that defines it."""
    sources = {dotted(path): path for path in files()}
    handed_on = {
        (module, item.name): (item.module, item.name)
        for module, path in sources.items()
        if path.name == "__init__.py"
        for item in imports_of(path.read_text(), module, is_package=True)
    }
    found: dict[str, set[str]] = {}
    for module, path in sources.items():
        if path.name == "__init__.py":
            continue
        found[module] = set()
        for item in imports_of(path.read_text(), module, is_package=False):
            base, name = item.module, item.name
            while (base, name) in handed_on:
                base, name = handed_on[base, name]
            target = f"{base}.{name}" if f"{base}.{name}" in sources else base
            if target != module:
                found[module].add(target)
    return found


def test_every_file_stands_in_a_room() -> None:
    assert files()
    strangers = {dotted(path) for path in files() if room_of(dotted(path)) is None} - {"latentrnn.inference"}
    assert not strangers, f"not in the list of rooms: {sorted(strangers)}"


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_rooms_import_only_from_rooms_before_them(path: Path) -> None:
    assert complaints_about(path.read_text(), dotted(path), is_package=path.name == "__init__.py") == []


def test_files_import_each_other_in_no_circle() -> None:
    assert circles(graph()) == []


def test_a_circle_is_noticed() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [["a", "b", "c"]]
    assert circles({"a": {"b"}, "b": {"c"}, "c": set()}) == []


def test_contributing_shows_the_list() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    listed = [line for line in text.splitlines() if line.startswith("  - `")]
    assert listed == [f"  - `{room}`: {what}" for room, what in ROOMS.items()]


@pytest.mark.parametrize(
    ("source", "module", "message"),
    [
        (
            "from latentrnn.inference.fitting import fit",
            "latentrnn.models.gain",
            "inference.fitting comes after models",
        ),
        ("from latentrnn.inference import fitting", "latentrnn.models.gain", "inference.fitting comes after models"),
        ("from latentrnn.inference import fit", "latentrnn.criticism.checks", "not a room"),
        ("import latentrnn.models", "latentrnn.data.spec", "models comes after data"),
        ("from ..models import gain", "latentrnn.data.spec", "models comes after data"),
        ("from ...models import gain", "latentrnn.data.parts.spec", "models comes after data"),
        ("def f():\n    from latentrnn import models", "latentrnn.data.spec", "models comes after data"),
        ("if TYPE_CHECKING:\n    from latentrnn.models import GRU", "latentrnn.data.spec", "models comes after data"),
        ("from latentrnn.inference.fitting import fit", "latentrnn.inference.posterior.posterior", "comes after"),
        ("import latentrnn as lr", "latentrnn.models.gain", "not a room"),
        ("from latentrnn import GRU", "latentrnn.models.gain", "not a room"),
        ("from .. import GRU", "latentrnn.models.gain", "not a room"),
        ("from latentrnn.criticism import compare", "latentrnn.plotting.checks", "criticism comes after plotting"),
    ],
)
def test_a_wrong_import_is_noticed(source: str, module: str, message: str) -> None:
    [complaint] = complaints_about(source, module)
    assert message in complaint


@pytest.mark.parametrize(
    ("source", "module"),
    [
        ("from latentrnn.data import SequenceData\nimport torch", "latentrnn.models.gain"),
        ("from .spec import DataSpec", "latentrnn.data.protocol"),
        ("from ..data.spec import DataSpec", "latentrnn.models.gain"),
        ("from latentrnn.plotting import checks", "latentrnn.criticism.checks"),
    ],
)
def test_a_right_import_passes(source: str, module: str) -> None:
    assert complaints_about(source, module) == []


def test_a_package_resolves_its_own_relative_imports() -> None:
    assert complaints_about("from .spec import DataSpec", "latentrnn.data", is_package=True) == []
    [complaint] = complaints_about("from ..models import gain", "latentrnn.data", is_package=True)
    assert "models comes after data" in complaint
