"""Files of fits that are under way: numbered, named by their content, the last two kept."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from typing import Any, NamedTuple

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from latentrnn.inference.fitting.saving.weights import write_atomically
from latentrnn.support.strict_json import dumps, loads

FORMAT = "latentrnn unfinished fit"
FORMAT_VERSION = 1

KEPT = 2  # should a disk damage the last one, there is one before it
_FILE = re.compile(r"fit-(\d{6,})-([0-9a-f]{12})\.safetensors")
_VALUES = "values"  # the tensor that holds the JSON text


class Unfinished(NamedTuple):
    """The state of a fit: tensors by name, and everything else in JSON form."""

    tensors: dict[str, Tensor]
    values: dict[str, Any]


def write_unfinished(state: Unfinished, directory: Path) -> Path:
    """Write the state of a fit as the newest of a folder, in one atomic step, and then remove all but the newest two.

    The name carries the content's hash, so that a file that was cut short or changed is known for what it is.

    Raises:
        TypeError: a value has no JSON form; the message says which.
        OSError: the folder cannot be written to; what it held is still there.
    """
    values = {"format": FORMAT, "format_version": FORMAT_VERSION, **state.values}
    text = torch.frombuffer(bytearray(dumps(values, "fit").encode()), dtype=torch.uint8)
    tensors = {name: value.detach().cpu().contiguous() for name, value in state.tensors.items()}
    content = safetensors.torch.save(tensors | {_VALUES: text})
    directory.mkdir(parents=True, exist_ok=True)
    before = unfinished_files(directory)
    number = 1 + (int(_match(before[-1])[1]) if before else 0)
    path = directory / f"fit-{number:06d}-{hashlib.sha256(content).hexdigest()[:12]}.safetensors"
    write_atomically(path, content)
    for old in before[: len(before) + 1 - KEPT]:
        old.unlink(missing_ok=True)
    return path


def read_unfinished(path: Path) -> Unfinished:
    """Read what `write_unfinished` wrote.

    Raises:
        ValueError: the file is truncated, changed, of a newer version, or no state of a fit; the message names the
            file, and, where it was damaged, the one to go on from without it.
    """
    if not path.is_file():
        raise ValueError(f"{path}: expected a file, the checkpoint of a fit; remove what has its name")
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()[:12]
    if digest != _match(path)[2]:
        others = [other.name for other in unfinished_files(path.parent) if other != path]
        remedy = f"go on from {others[-1]}" if others else "begin again, for there is no other"
        raise ValueError(
            f"{path}: damaged or truncated; its SHA-256 begins with {digest}, not as its name says. Remove the file to "
            f"{remedy}"
        )
    try:
        tensors = safetensors.torch.load(content)
        values = loads(tensors.pop(_VALUES).numpy().tobytes().decode())
    except (KeyError, TypeError, ValueError, safetensors.SafetensorError) as error:
        raise ValueError(f"{path}: not the state of a fit ({error})") from error
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        raise ValueError(f"{path}: not the state of a fit; expected 'format' to be {FORMAT!r}")
    number = values.get("format_version")
    if not isinstance(number, int) or isinstance(number, bool) or number < 1:
        raise ValueError(f"{path}: not the state of a fit; format_version: expected a positive integer")
    if number > FORMAT_VERSION:
        raise ValueError(f"{path}: written by a newer version of latentrnn than this one; upgrade, or begin again")
    return Unfinished(tensors, values)


def unfinished_files(directory: Path) -> list[Path]:
    """Return the files of a fit in a folder, oldest first; none if there is no such folder."""
    if not directory.is_dir():
        return []
    return sorted((path for path in directory.iterdir() if _FILE.fullmatch(path.name)), key=lambda p: int(_match(p)[1]))


def remove_remnants(directory: Path) -> None:
    """Remove what processes that were killed while writing left behind."""
    for path in directory.glob(".*.tmp") if directory.is_dir() else ():
        owner = path.name.split(".")[-2]
        if owner.isdigit() and not _alive(int(owner)):
            path.unlink(missing_ok=True)


def _match(path: Path) -> re.Match[str]:
    found = _FILE.fullmatch(path.name)
    assert found is not None
    return found


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's process
        return True
    return True
