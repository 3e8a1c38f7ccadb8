"""Saving a fit to a directory of safetensors and JSON; nothing is pickled."""

from __future__ import annotations

import os
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Protocol

from torch import nn

from latentrnn.data import DataSpec
from latentrnn.inference.fitting.saving.manifest import FORMAT, FORMAT_VERSION, MANIFEST, read_manifest
from latentrnn.inference.fitting.saving.weights import write_atomically, write_weights
from latentrnn.inference.guides.fitted import Fit
from latentrnn.models.component import Component, saved_name
from latentrnn.models.parameters.distributions import refuse_unknown_distributions
from latentrnn.support.arguments import check_path
from latentrnn.support.strict_json import checksum, dumps


class Savable(Fit, Protocol):
    """What there is to save, by the attributes that a `FitResult` has for it.

    Attributes:
        spec: of the data that it was fitted to.
        history: reports by name, a number each.
        stop_reason: why the fit ended, in words.
        best_step: the step whose weights these are.
        seed: of the fit.
        settings: what decided its course, in JSON form.
        events: what happened on the way, in words.
    """

    @property
    def spec(self) -> DataSpec: ...

    @property
    def history(self) -> dict[str, list[float]]: ...

    @property
    def stop_reason(self) -> str: ...

    @property
    def best_step(self) -> int: ...

    @property
    def seed(self) -> int: ...

    @property
    def settings(self) -> dict[str, Any]: ...

    @property
    def events(self) -> list[str]: ...


def save(result: Savable, path: str | os.PathLike[str]) -> None:
    """Save a fit to a directory: `latentrnn.json` and one safetensors file each for model and guide.

    The weights are written first, under names that carry the hash of their content, and then the JSON file that
    names them, each in one atomic step. So a checkpoint that was there before stays whole until the new one is, even
    if the process is killed; other files in the directory stay as they are.

    Args:
        result: what `lr.fit` returned.
        path: the directory; it is made, with its parents, if it does not exist.

    Raises:
        ValueError: `path` is a file, a parameter is NaN or infinite, or a prior is a distribution that `load` does not
            know.
        TypeError: a setting, or an argument of a component of your own, has no JSON form; the message says which.
    """
    directory = check_path("save", path)
    if directory.exists() and not directory.is_dir():
        raise ValueError(f"{directory}: expected a directory to save to; found a file")
    manifest = _describe(result)
    # what JSON refuses, or `load` would, is refused before anything is written
    dumps(manifest, "result")
    refuse_unknown_distributions({"model": manifest["model"], "guide": manifest["guide"]})
    directory.mkdir(parents=True, exist_ok=True)
    before = _weights_files(directory)
    written: set[str] = set()
    try:
        manifest["weights"] = {}
        for part, module in (("model", result.model), ("guide", result.guide)):
            manifest["weights"][part] = write_weights(module, directory, part)
            written.add(manifest["weights"][part]["file"])
        manifest["checksum"] = checksum(manifest)
        write_atomically(directory / MANIFEST, dumps(manifest, "result").encode())
    finally:
        # what the JSON file names stays, be it the new checkpoint or, after a failure, the old one
        for file in (before | written) - _weights_files(directory):
            (directory / file).unlink(missing_ok=True)


def _describe(result: Savable) -> dict[str, Any]:
    """Return everything about a fit but its weights."""
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "versions": {name: _version(name) for name in ("latentrnn", "torch", "pyro-ppl")},
        "spec": result.spec.to_json(),
        "model": result.model.config(),
        "guide": result.guide.config(),
        "own_classes": _own_classes(result.model) | _own_classes(result.guide),
        "stop_reason": result.stop_reason,
        "best_step": result.best_step,
        "seed": result.seed,
        "settings": result.settings,
        "history": result.history,
        "events": result.events,
        "used": sorted([key.key, key.start, key.stop] for key in result.used),
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"  # run from a source tree that is not installed


def _own_classes(module: nn.Module) -> dict[str, str]:
    """Return {class: module} of what is not the package's own, so that `load` can say what to import."""
    classes = {
        saved_name(type(part)): type(part).__module__ for part in module.modules() if isinstance(part, Component)
    }
    return {name: home for name, home in classes.items() if ":" in name}


def _weights_files(directory: Path) -> set[str]:
    """Return the weights files of the checkpoint that is in a directory now; none if there is none that can be read."""
    try:
        entries = read_manifest(directory)["weights"].values()
    except (FileNotFoundError, ValueError):
        return set()
    return {entry["file"] for entry in entries}
