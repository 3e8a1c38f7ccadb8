"""Saving an ensemble: a folder of checkpoints, one for each member, and a JSON file with what weighs them."""

from __future__ import annotations

import math
import os
import re
import secrets
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from latentrnn.data import DataSpec, SequenceKey
from latentrnn.inference.fitting.result import FitResult
from latentrnn.inference.fitting.saving.load import load
from latentrnn.inference.fitting.saving.manifest import checksum_of
from latentrnn.inference.fitting.saving.weights import write_atomically
from latentrnn.support.arguments import check_path, is_integer
from latentrnn.support.strict_json import checksum, dumps, loads, refuse_changed

MANIFEST = "ensemble.json"
FORMAT = "latentrnn ensemble"
FORMAT_VERSION = 2  # 1 had no checksums
LARGEST = 64 * 2**20  # bytes of a manifest that is read

_MEMBER = re.compile(r"member-\d{1,6}-[0-9a-f]{12}")


class Mixture(NamedTuple):
    """What there is to save of an ensemble; see `Ensemble`."""

    members: tuple[FitResult, ...]
    weights: Tensor
    log_evidence: Tensor | None
    used: frozenset[SequenceKey]


def save_ensemble(ensemble: Mixture, path: str | os.PathLike[str]) -> None:
    """Save an ensemble to a directory: a checkpoint for each member, and `ensemble.json`, which names them.

    Members are written first, into folders of new names, and then the JSON file, in one atomic step; an ensemble that
    was there before stays whole until then.

    Args:
        ensemble: what there is to save.
        path: the directory; it is made, with its parents, if it does not exist.

    Raises:
        ValueError: `path` is a file, or whatever saving a member raises.
    """
    directory = check_path("Ensemble.save", path)
    if directory.exists() and not directory.is_dir():
        raise ValueError(f"{directory}: expected a directory to save to; found a file")
    directory.mkdir(parents=True, exist_ok=True)
    before = _names(directory)
    names = [f"member-{number}-{secrets.token_hex(6)}" for number in range(len(ensemble.members))]
    manifest = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "members": names,
        "weights": ensemble.weights,
        "log_evidence": ensemble.log_evidence,
        "used": sorted([key.key, key.start, key.stop] for key in ensemble.used),
    }
    try:
        for name, member in zip(names, ensemble.members, strict=True):
            member.save(directory / name)
        manifest["checksums"] = [checksum_of(directory / name) for name in names]
        manifest["checksum"] = checksum(manifest)
        content = dumps(manifest, "ensemble").encode()
        if len(content) > LARGEST:
            raise ValueError(
                f"Ensemble.save: {MANIFEST} would have {len(content)} bytes, mostly the keys of "
                f"{len(ensemble.used)} stretches that were used; expected at most {LARGEST}"
            )
        write_atomically(directory / MANIFEST, content)
    finally:
        # what the JSON file names stays, be it the new ensemble or, after a failure, the old one
        for name in {*before, *names} - set(_names(directory)):
            shutil.rmtree(directory / name, ignore_errors=True)


def load_ensemble(path: str | os.PathLike[str], *, spec: DataSpec | None = None) -> Mixture:
    """Load an ensemble that `save_ensemble` wrote, on CPU.

    Args:
        path: the directory.
        spec: the spec of the data that it is meant for; it is compared with every member's.

    Raises:
        FileNotFoundError: there is nothing at `path`.
        ValueError: `path` holds no ensemble, a file is damaged, or a member is not what `latentrnn.load` takes.
    """
    directory = check_path("Ensemble.load", path)
    manifest = _read(directory)
    where = directory / MANIFEST
    count, log_evidence = len(manifest["members"]), manifest["log_evidence"]
    weights = _numbers(where, "weights", manifest["weights"], count)
    if min(weights) < 0 or not math.isclose(sum(weights), 1, abs_tol=1e-6):
        raise ValueError(f"{where}: weights: expected shares that add up to one; found {weights}")
    if log_evidence is not None:
        if not isinstance(log_evidence, list) or len(log_evidence) != count:
            raise ValueError(f"{where}: log_evidence: expected one row for each of {count} members")
        width = len(log_evidence[0]) if isinstance(log_evidence[0], list) else 0
        log_evidence = [_numbers(where, "log_evidence", row, width) for row in log_evidence]
    if manifest["format_version"] > 1:
        _refuse_other_members(directory, manifest)
    return Mixture(
        members=tuple(load(directory / name, spec=spec) for name in manifest["members"]),
        weights=torch.tensor(weights, dtype=torch.float64),
        log_evidence=None if log_evidence is None else torch.tensor(log_evidence, dtype=torch.float64),
        used=frozenset(SequenceKey(*key) for key in manifest["used"]),
    )


def _read(directory: Path) -> dict[str, Any]:
    if not directory.exists():
        raise FileNotFoundError(f"{directory}: no such directory; expected one that Ensemble.save wrote")
    path = directory / MANIFEST
    if not path.is_file():
        raise ValueError(
            f"{directory}: not an ensemble; expected a directory with an {MANIFEST}. One fit: latentrnn.load"
        )
    if path.stat().st_size > LARGEST:
        raise ValueError(f"{path}: {path.stat().st_size} bytes; expected at most {LARGEST}")
    try:
        manifest = loads(path.read_bytes().decode())
    except ValueError as error:
        raise ValueError(f"{path}: damaged or truncated; not valid JSON ({error})") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise ValueError(f'{path}: not an ensemble; expected "format": "{FORMAT}"')
    number: Any = manifest.get("format_version")
    if not is_integer(number) or not 1 <= number <= FORMAT_VERSION:
        raise ValueError(
            f"{path}: format_version: expected 1 to {FORMAT_VERSION}; found {str(number)[:80]}, perhaps of a newer "
            "latentrnn"
        )
    if number > 1 or "checksum" in manifest:
        refuse_changed(path, manifest)
    _check_entries(path, manifest)
    return manifest


def _check_entries(path: Path, manifest: dict[str, Any]) -> None:
    for name in ("members", "weights", "used"):
        if not isinstance(manifest.get(name), list):
            raise ValueError(f"{path}: {name}: expected a list; found {type(manifest.get(name)).__name__}")
    names = manifest["members"]
    if not names or len(set(map(str, names))) < len(names) or not all(_is_member(name) for name in names):
        raise ValueError(
            f"{path}: members: expected different names member-<number>-<hash>, at least one; found {names!r}"
        )
    for key in manifest["used"]:
        if not isinstance(key, list) or [type(part) for part in key] != [str, int, int] or not 0 <= key[1] <= key[2]:
            raise ValueError(f"{path}: used: expected [key, start, stop]; found {key!r}")
    if "log_evidence" not in manifest:
        raise ValueError(f"{path}: log_evidence is missing")


def _refuse_other_members(directory: Path, manifest: dict[str, Any]) -> None:
    """Refuse an ensemble in whose folders lie other fits than those that were saved there.

    Raises:
        FileNotFoundError, ValueError: as of `load_ensemble`.
    """
    names, written = manifest["members"], manifest.get("checksums")
    if not isinstance(written, list) or len(written) != len(names):
        raise ValueError(f"{directory / MANIFEST}: checksums: expected one for each of {len(names)} members")
    for name, expected in zip(names, written, strict=True):
        if checksum_of(directory / name) != expected:
            raise ValueError(f"{directory / name}: another fit than the one that {MANIFEST} was written with")


def _is_member(name: Any) -> bool:
    return isinstance(name, str) and _MEMBER.fullmatch(name) is not None


def _numbers(where: Path, name: str, values: Any, count: int) -> list[float]:
    if not isinstance(values, list) or len(values) != count or not all(_is_finite(value) for value in values):
        raise ValueError(f"{where}: {name}: expected {count} finite numbers; found {str(values)[:80]}")
    return values


def _is_finite(value: Any) -> bool:
    return isinstance(value, float | int) and not isinstance(value, bool) and math.isfinite(value)


def _names(directory: Path) -> list[str]:
    """Return the folders of the members of the ensemble that is in a directory now; none if there is none to read."""
    try:
        return list(_read(directory)["members"])
    except (FileNotFoundError, ValueError):
        return []
