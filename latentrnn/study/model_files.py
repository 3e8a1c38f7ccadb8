"""A model in a file: a function of a Python file, or TOML."""

from __future__ import annotations

import inspect
import os
import sys
import tomllib
from collections.abc import Mapping
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

from latentrnn.study.model_functions import ModelFunction
from latentrnn.study.toml_models import model_from_toml, read_toml
from latentrnn.support.shown import shown

FUNCTION = "model"  # the name of the function where none is said


class ModelFile:
    """A model function that a file holds, `model.py` or `model.py:gru`, or a file of TOML.

    A Python file is run when it is needed, and is yours: what it does is done. Its function takes the training data,
    and settings by their names, and returns a `LatentRNN`, or one with its `Guide`:

        def model(data, hidden=16):
            return lr.LatentRNN(data.spec, transition=lr.GRU(hidden), ...)

    Of TOML the settings are dotted paths, `{"transition.hidden_size": 32}`. It can be pickled, as other processes of a
    study need it.

    Args:
        source: the path, with the function's name after a colon where that is not `model`.
        folder: that a relative path starts from.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a file of another kind.

    Example:
        >>> ModelFile("nowhere.py:gru")
        Traceback (most recent call last):
        FileNotFoundError: model file: no file nowhere.py
    """

    def __init__(self, source: str | os.PathLike[str], folder: Path | None = None) -> None:
        if not isinstance(source, str | os.PathLike):
            raise TypeError(f"model file: expected a path; found {type(source).__name__}")
        text, function = os.fspath(source), FUNCTION
        if ".py:" in text:
            text, _, function = text.rpartition(":")
        self.path, self.function = (Path() if folder is None else folder) / text, function
        if self.path.suffix not in (".py", ".toml"):
            raise ValueError(f"model file: expected a file ending in .py or .toml; found {shown(text)}")
        if not self.path.is_file():
            raise FileNotFoundError(f"model file: no file {self.path}")
        self._loaded: ModelFunction | None = None

    @property
    def __signature__(self) -> inspect.Signature:
        """Of its function, as `inspect.signature` asks for it: the settings that it takes."""
        return inspect.signature(self.load())

    def __call__(self, data: Any, **settings: Any) -> Any:
        """Return what its function returns."""
        return self.load()(data, **settings)

    def load(self) -> ModelFunction:
        """Read the file, and return the function.

        Raises:
            ValueError: the file has no such function, or is not what it ends in.
            Exception: what a Python file raises.
        """
        if self._loaded is None:
            self._loaded = self._from_toml() if self.path.suffix == ".toml" else self._from_python()
        return self._loaded

    def _from_toml(self) -> ModelFunction:
        tables = read_toml(self.path)

        def model(data: Any, **settings: Any) -> Any:
            try:
                return model_from_toml(tables, data.spec, settings)
            except (ValueError, TypeError) as error:
                raise type(error)(str(error).replace("model_from_toml", str(self.path), 1)) from None

        return model

    def _from_python(self) -> ModelFunction:
        found = getattr(load_python(self.path), self.function, None)
        if isinstance(found, type) or not callable(found):
            raise ValueError(
                f"{self.path}: expected a function {self.function}(data), returning the model; found "
                f"{'none' if found is None else type(found).__name__}"
            )
        function: ModelFunction = found
        return function

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_loaded": None}

    def __repr__(self) -> str:
        name = "" if self.path.suffix == ".toml" or self.function == FUNCTION else f":{self.function}"
        return f"ModelFile({str(self.path) + name!r})"


def load_python(path: Path) -> ModuleType:
    """Run a Python file as a module of its name, and return it; classes in it are known by that name from then on.

    Raises:
        FileNotFoundError: there is no such file.
        Exception: what it raises.
    """
    if not path.is_file():
        raise FileNotFoundError(f"model file: no file {path}")
    description = spec_from_file_location(path.stem, path)
    assert description is not None
    assert description.loader is not None
    module = module_from_spec(description)
    before = sys.modules.get(path.stem)
    sys.modules[path.stem] = module  # where its dataclasses look for it
    beside = str(path.parent.absolute())
    sys.path.insert(0, beside)
    try:
        description.loader.exec_module(module)
    except BaseException:
        sys.modules.pop(path.stem)
        raise
    finally:
        sys.path.remove(beside)
        if before is not None:
            sys.modules[path.stem] = before  # another of that name, which is not ours to replace
    return module


def settings_given(texts: Mapping[str, str]) -> dict[str, Any]:
    """Return values of settings from text as a command line has them: numbers, booleans, lists as in TOML, else words.

    Example:
        >>> settings_given({"hidden": "32", "cell": "gru", "deep": "true"})
        {'hidden': 32, 'cell': 'gru', 'deep': True}
    """
    return {name: _value(text) for name, text in texts.items()}


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
