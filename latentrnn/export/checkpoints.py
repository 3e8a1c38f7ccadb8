"""Saving a fit to a directory of safetensors and JSON, and loading it; nothing is pickled."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import nn

from latentrnn.export.bounded import Bounded
from latentrnn.export.strict_json import checksum, dumps, loads, refuse_changed
from latentrnn.export.unfinished import unfinished_files
from latentrnn.export.weights import open_weights, read_weights, write_atomically, write_weights
from latentrnn.models.component import Component, saved_name, with_modules
from latentrnn.models.scalar_distributions import refuse_unknown_distributions
from latentrnn.support.arguments import check_kind_of, check_path, is_number
from latentrnn.support.isolation import isolated
from latentrnn.support.shown import shown

if TYPE_CHECKING:
    from latentrnn.data import DataSpec
    from latentrnn.inference.fitting.result import FitResult

T = TypeVar("T")

MANIFEST = "latentrnn.json"
FORMAT = "latentrnn checkpoint"
FORMAT_VERSION = 2  # 1 named classes without their modules, and had no checksum

# What the manifest must hold, and of what type: the table that `load` checks before it believes anything.
_SCHEMA: dict[str, type] = {
    "versions": dict,
    "spec": dict,
    "model": dict,
    "guide": dict,
    "own_classes": dict,
    "weights": dict,
    "weights.model": dict,
    "weights.guide": dict,
    "history": dict,
    "settings": dict,
    "stop_reason": str,
    "best_step": int,
    "seed": int,
    "used": list,
    "events": list,
}
_WEIGHTS_SCHEMA: dict[str, type] = {
    "file": str,
    "sha256": str,
    "bytes": int,
    "dtype": str,
    "training": bool,
}
_WEIGHTS_FILE = re.compile(r"(model|guide)-[0-9a-f]{12}\.safetensors")


def save(result: FitResult, path: str | os.PathLike[str]) -> None:
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


@isolated
def load(path: str | os.PathLike[str], *, spec: DataSpec | None = None) -> FitResult:
    """Load a fit that `save` wrote, on CPU, checking everything that can be wrong with the files.

    Files are not trusted: nothing in them names code other than the package's components, classes of your own that are
    known already, distributions of a list, and functions that were registered (`PhysicalPenalty.register`). The JSON
    file and the weights are held against their checksums, and nothing larger than the weights is built.

    Args:
        path: the directory given to `save`.
        spec: the spec of the data that the model is meant for, `data.spec`; it is compared with the saved one.

    Returns:
        The fit: configuration, weights and history equal those of the saved one bit for bit.

    Raises:
        FileNotFoundError: there is nothing at `path`.
        ValueError: `path` is not a checkpoint, or was written by a newer version, or a file is missing, truncated or
            changed, or a tensor is not what the configuration describes, or a component class is not known yet, or
            `spec` differs from the saved one. The message names the file and what is wrong.
    """
    from latentrnn.data import DataSpec, SequenceKey
    from latentrnn.inference.fitting.result import FitResult
    from latentrnn.inference.guides.guide import Guide
    from latentrnn.models.state_space import LatentRNN

    directory = check_path("load", path)
    if spec is not None:
        check_kind_of("load", "spec", spec, DataSpec)
    manifest = _read_manifest(directory)
    where = directory / MANIFEST
    weights = {part: open_weights(directory, manifest["weights"][part]) for part in ("model", "guide")}
    saved_spec = _rebuild(where, "spec", lambda: DataSpec.from_json(manifest["spec"]))
    if spec is not None:
        try:
            saved_spec.check_compatible(spec)
        except ValueError as error:
            raise ValueError(f"{directory}: the saved model does not fit this data: {error}") from error

    def built(part: str, build: Callable[[], T]) -> T:
        # building draws weights; loading leaves the user's generator alone, which no other thread may use meanwhile
        file = weights[part]
        bound = Bounded(file.numbers, len(file.shapes))
        with torch.random.fork_rng(devices=[]), bound:
            return _rebuild(where, part, build, manifest)

    model = built("model", lambda: LatentRNN.from_config(manifest["model"], saved_spec))
    guide = built("guide", lambda: Guide.from_config(manifest["guide"], model))
    for part, module in (("model", model), ("guide", guide)):
        _rebuild(where, part, partial(read_weights, module, weights[part]), manifest)
    return FitResult(
        model=model,
        guide=guide,
        history=manifest["history"],
        stop_reason=manifest["stop_reason"],
        best_step=manifest["best_step"],
        seed=manifest["seed"],
        used=frozenset(SequenceKey(*key) for key in manifest["used"]),
        settings=manifest["settings"],
        events=manifest["events"],
    )


def checksum_of(directory: Path) -> str | None:
    """Return the checksum of the fit in a directory, which stands for all of its files; None where it has none.

    Raises:
        FileNotFoundError, ValueError: as of `load`.
    """
    written: str | None = _read_manifest(directory).get("checksum")
    return written


def _describe(result: FitResult) -> dict[str, Any]:
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
        entries = _read_manifest(directory)["weights"].values()
    except (FileNotFoundError, ValueError):
        return set()
    return {entry["file"] for entry in entries}


def _read_manifest(directory: Path) -> dict[str, Any]:
    if not directory.exists():
        raise FileNotFoundError(f"{directory}: no such directory; expected one that FitResult.save wrote")
    path = directory / MANIFEST
    if not path.is_file():
        under_way = "; it holds a fit that is under way: go on with fit(checkpoint=..., resume=True)"
        hint = under_way if unfinished_files(directory) else ""
        hint = "; it holds an ensemble: Ensemble.load" if (directory / "ensemble.json").is_file() else hint
        raise ValueError(f"{directory}: not a latentrnn checkpoint; expected a directory with a {MANIFEST}{hint}")
    try:
        manifest = loads(path.read_bytes().decode())
    except ValueError as error:  # JSONDecodeError and UnicodeDecodeError are ValueErrors
        raise ValueError(f"{path}: damaged or truncated; not valid JSON ({error})") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise ValueError(f'{path}: not a latentrnn checkpoint; expected "format": "{FORMAT}"')
    number = manifest.get("format_version")
    if not isinstance(number, int) or isinstance(number, bool) or number < 1:
        raise ValueError(f"{path}: format_version: expected a positive integer; found {shown(number)}")
    if number > FORMAT_VERSION:
        writer = manifest.get("versions")
        writer = str(writer.get("latentrnn", "unknown"))[:80] if isinstance(writer, dict) else "unknown"
        raise ValueError(
            f"{path}: format_version {number}, written by latentrnn {writer}, is newer than this version reads "
            f"(up to {FORMAT_VERSION}); upgrade latentrnn"
        )
    if number > 1 or "checksum" in manifest:
        refuse_changed(path, manifest)
    _check_schema(path, manifest, _SCHEMA)
    _check_values(path, manifest)
    for part in ("model", "guide"):
        _check_schema(path, manifest["weights"][part], _WEIGHTS_SCHEMA, f"weights.{part}.")
        if not _WEIGHTS_FILE.fullmatch(manifest["weights"][part]["file"]):
            raise ValueError(
                f"{path}: weights.{part}.file: expected {part}-<hash>.safetensors; "
                f"found {manifest['weights'][part]['file']!r}"
            )
    if number == 1:
        for part in ("model", "guide"):
            manifest[part] = _rebuild(path, part, partial(with_modules, manifest[part], manifest["own_classes"]))
    return manifest


def _check_schema(path: Path, values: dict[str, Any], schema: dict[str, type], prefix: str = "") -> None:
    for name, kind in schema.items():
        found: Any = values
        for key in name.split("."):
            if key not in found:
                raise ValueError(f"{path}: {prefix}{name} is missing; the file was not written by latentrnn, or edited")
            found = found[key]
        if not isinstance(found, kind) or (kind is int and isinstance(found, bool)):
            raise ValueError(f"{path}: {prefix}{name}: expected {kind.__name__}; found {type(found).__name__}")


def _check_values(path: Path, manifest: dict[str, Any]) -> None:
    """Check what the entries hold: nothing later would notice."""
    for part in ("versions", "own_classes"):
        for name, value in manifest[part].items():
            _check_kind(path, f"{part}[{name!r}]", value, isinstance(value, str), "a string")
    for name, values in manifest["history"].items():
        numbers = isinstance(values, list) and all(is_number(value) for value in values)
        _check_kind(path, f"history[{name!r}]", values, numbers, "a list of numbers")
    for index, event in enumerate(manifest["events"]):
        _check_kind(path, f"events[{index}]", event, isinstance(event, str), "a string")
    for index, key in enumerate(manifest["used"]):
        kinds = isinstance(key, list) and list(map(type, key)) == [str, int, int]
        expected = "the key of a sequence, its start and its stop"
        _check_kind(path, f"used[{index}]", key, kinds and 0 <= key[1] <= key[2], expected)
    _check_kind(path, "best_step", manifest["best_step"], manifest["best_step"] >= 0, "a step")


def _check_kind(path: Path, name: str, found: Any, right: bool, expected: str) -> None:
    if not right:
        raise ValueError(f"{path}: {name}: expected {expected}; found {shown(found)}")


def _rebuild(path: Path, part: str, build: Callable[[], T], manifest: dict[str, Any] | None = None) -> T:
    """Return `build()`; if the saved description makes no sense here, name the file, the part and what to import."""
    try:
        return build()
    except Exception as error:
        if isinstance(error, ValueError) and str(error).startswith(str(path.parent)):
            raise  # it names the file already
        reason = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        reason = reason if len(reason) < 2000 else f"{reason[:2000]}..."
        for name, home in (manifest or {}).get("own_classes", {}).items():
            local = name.rpartition(":")[2]
            if not hasattr(sys.modules.get(home), local.partition(".")[0]):
                remedy = "define it" if home == "__main__" else f"import {home}, which defines it,"
                reason += f". The fit was saved with a class of your own, {local}: {remedy} before loading"
        raise ValueError(f"{path}: cannot rebuild the {part} it describes: {reason}") from error
