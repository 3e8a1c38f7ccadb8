"""Models as TOML: what an editor and a diff show of a model, and what makes it again."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from latentrnn.data import DataSpec
from latentrnn.inference.guides.guide import Guide
from latentrnn.models.component import from_config, registered
from latentrnn.models.state_space import LatentRNN
from latentrnn.study.model_functions import default_guide
from latentrnn.support.arguments import check_kind_of
from latentrnn.support.shown import shown

TABLES = ("transition", "latent", "observations", "couplings", "inputs", "max_elements", "guide")
REQUIRED = ("transition", "latent", "observations")
WORDS = ("class", "distribution")  # what a table of a component, and of a distribution, begins with


def model_to_toml(model: LatentRNN, guide: Guide | None = None) -> str:
    """Write a model as TOML: a table for each part, with its class and those of its arguments that are no defaults.

    Weights are not in it (`FitResult.save` keeps those). `latentrnn.model_from_toml` makes the same model of it.

    Args:
        model: what to write.
        guide: of it; without one the reader gets the default one.

    Returns:
        The text, for a file ending in `.toml`.

    Raises:
        TypeError: something is no model, or holds what TOML has no word for, naming where.
        ModuleNotFoundError: tomli-w is not installed.

    Example:
        >>> import numpy as np, latentrnn as lr
        >>> data = lr.SequenceData.from_arrays({"y": np.zeros((2, 4, 1))})
        >>> heads = {"y": lr.Gaussian()}
        >>> model = lr.LatentRNN(data.spec, transition=lr.GRU(8), latent=lr.Innovations(2), observations=heads)
        >>> print(lr.model_to_toml(model))
        inputs = []
        <BLANKLINE>
        [transition]
        class = "GRU"
        hidden_size = 8
        <BLANKLINE>
        [latent]
        class = "Innovations"
        dim = 2
        <BLANKLINE>
        [observations.y]
        class = "Gaussian"
        <BLANKLINE>
    """
    check_kind_of("model_to_toml", "model", model, LatentRNN)
    if guide is not None:
        check_kind_of("model_to_toml", "guide", guide, Guide)
    try:
        writer = import_module("tomli_w")
    except ModuleNotFoundError as error:
        if error.name != "tomli_w":
            raise
        raise ModuleNotFoundError(
            "model_to_toml writes with tomli-w, which is not installed: pip install 'latentrnn[shell]'", name="tomli_w"
        ) from None
    found = {name: _plain(value, name) for name, value in model.config().items() if name != "couplings" or value}
    found = {name: found[name] for name in TABLES if name in found}
    if guide is not None:
        config = guide.config()
        if config["encoder"] is None:
            del config["encoder"]
        found["guide"] = {name: _plain(value, f"guide.{name}") for name, value in config.items()}
    text: str = writer.dumps(found)
    return text


def model_from_toml(
    source: str | os.PathLike[str] | Mapping[str, Any], spec: DataSpec, settings: Mapping[str, Any] | None = None
) -> tuple[LatentRNN, Guide]:
    """Read a model, and its guide, from TOML.

    The tables are `transition`, `latent` and `observations.<head>`, and, where wanted, `inputs`, `couplings`,
    `max_elements` and `guide` with `encoder` and `family`. Each component says its `class`, and arguments by their
    names; a prior is a table with its `distribution`. A class of your own is "module:Class", of a module that has been
    imported. Files name no other code.

    Args:
        source: path of a file, or what `tomllib` makes of one.
        spec: of the data that the model is for, `data.spec`.
        settings: values by dotted path that stand in the place of the file's, `{"transition.hidden_size": 32}`.

    Returns:
        Model and guide, unfitted.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: no TOML, a table that is missing or unknown, or parts that do not fit each other or the data.
        TypeError: an argument of the wrong kind.

    Example:
        >>> import numpy as np, latentrnn as lr
        >>> data = lr.SequenceData.from_arrays({"y": np.zeros((2, 4, 1))})
        >>> text = {
        ...     "transition": {"class": "GRU", "hidden_size": 8},
        ...     "latent": {"class": "Innovations", "dim": 2},
        ...     "observations": {"y": {"class": "Gaussian"}},
        ... }
        >>> model, guide = lr.model_from_toml(text, data.spec, {"transition.hidden_size": 16})
        >>> model.transition
        GRU(hidden_size=16)
    """
    check_kind_of("model_from_toml", "spec", spec, DataSpec)
    where, tables = _read(source)
    if settings is not None and not isinstance(settings, Mapping):
        raise TypeError(f"model_from_toml: settings must be a dict of dotted path to value; found {shown(settings)}")
    for path, value in (settings or {}).items():
        tables = _replaced(where, tables, path, value)
    if unknown := sorted(set(tables) - set(TABLES)):
        raise ValueError(f"{where}: unknown table {unknown[0]!r}; expected {list(TABLES)}")
    if missing := [name for name in REQUIRED if not isinstance(tables.get(name), Mapping)]:
        raise ValueError(f"{where}: expected a table [{missing[0]}]; found none")
    config = {"couplings": [], **{name: _config(value, f"{where}: {name}") for name, value in tables.items()}}
    declared = config.pop("guide", None)
    model = _made(where, lambda: _model(config, spec))
    if declared is None:
        return model, default_guide(model)
    if not isinstance(declared, dict) or (unknown := sorted(set(declared) - set(GUIDE))):
        raise ValueError(f"{where}: guide: expected {list(GUIDE)}; found {shown(declared)}")
    if "family" not in declared:
        declared["family"] = default_guide(model).local.config()
    return model, _made(
        where, lambda: Guide.from_config({"encoder": None, "global_family": "normal"} | declared, model)
    )


GUIDE = ("encoder", "family", "global_family", "global_rank")


def _model(config: Mapping[str, Any], spec: DataSpec) -> LatentRNN:
    inputs = config.get("inputs")  # by default every covariate that no gain claims
    if isinstance(inputs, list):
        inputs = [item if isinstance(item, str) else from_config(item) for item in inputs]
    return LatentRNN(
        spec,
        transition=from_config(config["transition"]),
        latent=from_config(config["latent"]),
        observations={name: from_config(head) for name, head in config["observations"].items()},
        couplings=[from_config(coupling) for coupling in config["couplings"]],
        inputs=inputs,
        max_elements=config.get("max_elements"),
    )


def _made(where: str, make: Any) -> Any:
    """Make something of a file, which an error names."""
    try:
        with torch.random.fork_rng(devices=[]):  # weights are drawn; the user's generator is left alone
            return make()
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        said = f"{type(error).__name__}: {error}" if isinstance(error, KeyError | AttributeError) else str(error)
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"{where}: {said}") from error


def _read(source: Any) -> tuple[str, dict[str, Any]]:
    if isinstance(source, Mapping):
        return "model_from_toml", dict(source)
    if not isinstance(source, str | os.PathLike):
        raise TypeError(
            f"model_from_toml: source must be a path or the tables of a file; found {type(source).__name__}"
        )
    path = Path(source)
    return str(path), read_toml(path)


def read_toml(path: Path) -> dict[str, Any]:
    """Return the tables of a file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not TOML.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}; expected one of TOML")
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not TOML: {error}") from None


def _replaced(where: str, tables: Mapping[str, Any], path: Any, value: Any) -> dict[str, Any]:
    """Return tables with a value at a dotted path of a table that is there."""
    if not isinstance(path, str):
        raise TypeError(f"{where}: settings must go by dotted paths; found {shown(path)}")
    first, _, rest = path.partition(".")
    if not rest:
        return {**tables, first: value}
    inner = tables.get(first)
    if not isinstance(inner, Mapping):
        raise ValueError(f"{where}: setting {path!r}: there is no table {first!r}; there are {sorted(tables)}")
    return {**tables, first: _replaced(where, inner, rest, value)}


def _plain(value: Any, where: str) -> Any:
    """Return what TOML has for a part of a description, arguments that are defaults left out."""
    if isinstance(value, dict) and value.keys() == {"class", "arguments"}:
        defaults = {name: item.default for name, item in registered(value["class"])._signature().items()}
        given = {}
        for name, item in value["arguments"].items():
            if _is_default(item, defaults.get(name)) or (name in ("priors", "fixed") and not item):
                continue
            given[name] = _plain(item, f"{where}.{name}")
        return {"class": value["class"], **given}
    if isinstance(value, dict) and value.keys() == {"distribution", "arguments"}:
        inner = {name: _plain(item, f"{where}.{name}") for name, item in value["arguments"].items() if item is not None}
        return {"distribution": value["distribution"], **inner}
    if isinstance(value, dict):
        for name in value:
            if not isinstance(name, str) or name in WORDS:
                raise TypeError(f"model_to_toml: {where}: TOML cannot hold the name {name!r} here")
        return {name: _plain(item, f"{where}.{name}") for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, f"{where}[{index}]") for index, item in enumerate(value)]
    if isinstance(value, bool | int | float | str):
        return value
    found = "None" if value is None else type(value).__name__
    raise TypeError(
        f"model_to_toml: {where}: TOML has numbers, strings, booleans, lists and tables; found {found}. Keep such a "
        "model in a Python file, def model(data): ..."
    )


def _is_default(value: Any, default: Any) -> bool:
    if isinstance(value, list) and isinstance(default, tuple):
        value = tuple(value)
    return type(value) is type(default) and bool(value == default)


def _config(value: Any, where: str) -> Any:
    """Return the description that a part of a file stands for."""
    if isinstance(value, Mapping):
        both = [word for word in WORDS if word in value]
        if len(both) > 1:
            raise ValueError(f"{where}: a table is of a class or of a distribution; found both")
        rest = {name: _config(item, f"{where}.{name}") for name, item in value.items() if name not in WORDS}
        if "class" in value:
            rest = {**_check_arguments(where, value["class"], rest), **rest}
        return {both[0]: value[both[0]], "arguments": rest} if both else rest
    if isinstance(value, list):
        return [_config(item, f"{where}[{index}]") for index, item in enumerate(value)]
    return value


def _check_arguments(where: str, name: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """Check that a class is known and takes these arguments, in the words of the file.

    Returns:
        Defaults of those whose absence from a saved fit means something else.
    """
    if not isinstance(name, str):
        raise ValueError(f"{where}: class must be a name; found {shown(name)}")
    try:
        taken = registered(name)._signature()
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
    if unknown := sorted(set(given) - set(taken)):
        raise ValueError(f"{where}: {name} has no argument {unknown[0]!r}; expected some of {list(taken)}")
    needed = [key for key, item in taken.items() if item.default is item.empty and key not in given]
    if needed:
        raise ValueError(f"{where}: {name} needs {needed[0]!r}; found {sorted(given)}")
    return {key: taken[key].default for key in registered(name).arguments_added_later if key in taken}
