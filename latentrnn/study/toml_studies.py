"""A study in a TOML file: data, models, settings and how they are fitted."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from latentrnn.datasets import data_file
from latentrnn.study.model_files import ModelFile
from latentrnn.study.parts import parts
from latentrnn.study.storage import optuna
from latentrnn.study.toml_models import read_toml
from latentrnn.support.shown import shown

PLAIN = (
    "seeds", "settings", "trials", "fit", "storage", "name", "kind", "num_particles", "checkpoint_every", "heartbeat",
)  # fmt: skip
OWN = ("folder", "data", "models", "sampler", "pruner")


def study_arguments(path: Path) -> dict[str, Any]:
    """Return the arguments of `Study` that a file stands for; see `Study.from_toml`.

    Raises:
        FileNotFoundError: it names a file that is not there.
        ValueError, TypeError: something in it is unknown, missing, or of the wrong kind.
    """
    tables = read_toml(path)
    beside = path.parent
    if unknown := sorted(set(tables) - {*PLAIN, *OWN}):
        raise ValueError(f"{path}: unknown entry {unknown[0]!r}; expected {[*OWN, *PLAIN]}")
    for name in ("data", "models"):
        if not isinstance(tables.get(name), Mapping) or not tables[name]:
            raise ValueError(f"{path}: expected a table [{name}]; found {shown(tables.get(name))}")
    folder = tables.get("folder", path.stem)
    if not isinstance(folder, str):
        raise TypeError(f"{path}: folder must be a path; found {shown(folder)}")
    train, validation, test = parts_of_file(str(path), tables["data"], beside)
    found = {
        "folder": beside / folder,
        "models": {name: ModelFile(source, beside) for name, source in tables["models"].items()},
        "train": train,
        "validation": validation,
        "test": test,
        **{name: tables[name] for name in PLAIN if name in tables},
    }
    for name, module, base in (("sampler", "samplers", "BaseSampler"), ("pruner", "pruners", "BasePruner")):
        if name in tables:
            found[name] = _of_optuna(f"{path}: {name}", tables[name], module, base)
    return found


def parts_of_file(where: str, given: Mapping[str, Any], folder: Path) -> tuple[Any, Any, Any]:
    """Return training, validation and test sequences that a table of options stands for.

    Args:
        where: what names the table, for messages.
        given: `file`, options of `latentrnn.datasets.data_file`, and `split` with `valid`, `test` and `seed`.
        folder: that a relative path starts from.

    Raises:
        ValueError, TypeError, FileNotFoundError: as of the reader, or no file, or an unknown option.
    """
    options = dict(given)
    source, split = options.pop("file", None), options.pop("split", {})
    if not isinstance(source, str):
        raise ValueError(f"{where}: data: expected file, the path of the data; found {shown(source)}")
    if not isinstance(split, Mapping) or set(split) - {"valid", "test", "seed"}:
        raise ValueError(f"{where}: data.split: expected valid, test and seed; found {shown(split)}")
    try:
        data = data_file(folder / source, **options)
    except TypeError as error:
        raise TypeError(f"{where}: data: {error}") from None
    return parts(data, **split)


def _of_optuna(where: str, given: Any, module: str, base: str) -> Any:
    """Return an object of one of Optuna's own classes."""
    package = getattr(optuna(), module)
    if isinstance(given, str):
        given = {"class": given}
    if not isinstance(given, Mapping) or not isinstance(given.get("class"), str):
        raise ValueError(f"{where}: expected a class of optuna.{module}; found {shown(given)}")
    name, arguments = given["class"], {key: value for key, value in given.items() if key != "class"}
    kind = getattr(package, name, None) if name in package.__all__ else None
    if not isinstance(kind, type) or not issubclass(kind, getattr(package, base)):
        raise ValueError(f"{where}: expected a class of optuna.{module}; found {shown(name)}")
    try:
        return kind(**arguments)
    except TypeError as error:
        raise TypeError(f"{where}: {error}") from None
