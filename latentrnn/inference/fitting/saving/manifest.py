"""The JSON file of a saved fit, checked before anything in it is believed."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from latentrnn.inference.fitting.checkpoints.unfinished import unfinished_files
from latentrnn.models.component import with_modules
from latentrnn.support.arguments import is_number
from latentrnn.support.shown import shown
from latentrnn.support.strict_json import loads, refuse_changed

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


def read_manifest(directory: Path) -> dict[str, Any]:
    """Return the description of the fit in a directory.

    Raises:
        FileNotFoundError: there is no such directory.
        ValueError: it holds no fit, or one that is damaged or of a newer version.
    """
    if not directory.exists():
        raise FileNotFoundError(f"{directory}: no such directory; expected one that FitResult.save wrote")
    path = directory / MANIFEST
    if not path.is_file():
        under_way = "; it holds a fit that is under way: go on with fit(checkpointing=Checkpointing(..., resume=True))"
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
            manifest[part] = rebuilt(path, part, partial(with_modules, manifest[part], manifest["own_classes"]))
    return manifest


def checksum_of(directory: Path) -> str | None:
    """Return the checksum of the fit in a directory, which stands for all of its files; None where it has none.

    Raises:
        FileNotFoundError, ValueError: as of `load`.
    """
    written: str | None = read_manifest(directory).get("checksum")
    return written


def rebuilt(path: Path, part: str, build: Callable[[], T], manifest: dict[str, Any] | None = None) -> T:
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
