"""JSON that every parser reads: NaN and infinities are tagged, and what JSON has no word for is refused by name."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch

_TAG = "$float"


def dumps(value: Any, name: str) -> str:
    """Return `value` as strict JSON text.

    A number that JSON lacks is written as `{"$float": "nan" | "inf" | "-inf"}`; NumPy and torch scalars become
    plain numbers, arrays and tensors become lists, and tuples come back as lists.

    Args:
        value: dicts with string keys, lists, tuples, strings, numbers, booleans, None, arrays and tensors.
        name: what `value` is called in an error.

    Raises:
        TypeError: something else is in it; the message says where, e.g. `settings['optimiser']`.

    Example:
        >>> loads(dumps({"elbo": [float("-inf"), -3.5]}, "history"))
        {'elbo': [-inf, -3.5]}
    """
    return json.dumps(_encode(value, name), indent=1, allow_nan=False)


def loads(text: str) -> Any:
    """Return what `dumps` wrote.

    Raises:
        ValueError: not JSON, or JSON with the bare `NaN` and `Infinity` that the standard does not have, with numbers
            beyond 64 bits, a key twice, or nested so deeply that no parser would follow.
    """
    try:
        return json.loads(
            text,
            parse_constant=_refuse_constant,
            parse_float=_finite,
            parse_int=_within_64_bits,
            object_pairs_hook=_decode,
        )
    except RecursionError:
        raise ValueError("nested too deeply") from None


def checksum(value: Any) -> str:
    """Return the SHA-256 of the JSON form of `value`, whatever the order of its keys, its spaces and line breaks.

    Example:
        >>> checksum({"a": 1, "b": [2.0]}) == checksum({"b": [2.0], "a": 1})
        True
    """
    text = json.dumps(_encode(value, "value"), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def refuse_changed(path: Path, manifest: dict[str, Any]) -> None:
    """Refuse what a JSON file holds unless its entry "checksum" is that of all the others.

    Raises:
        ValueError: the file was damaged or edited after it was written; the message names it.
    """
    try:
        found = checksum({name: value for name, value in manifest.items() if name != "checksum"})
    except RecursionError:
        raise ValueError(f"{path}: damaged; nested too deeply") from None
    written = manifest.get("checksum")
    if written != found:
        begins = f"{written[:12]}..." if isinstance(written, str) else f"{written!r:.80}"
        raise ValueError(
            f"{path}: damaged, or edited after it was saved; checksum: expected {found[:12]}... for what is there, "
            f"found {begins}"
        )


def _encode(value: Any, where: str) -> Any:
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().tolist()
    elif isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {_TAG: str(value)}
    if isinstance(value, list | tuple):
        return [_encode(item, f"{where}[{i}]") for i, item in enumerate(value)]
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str) or key == _TAG:
                raise TypeError(f"{where}: JSON needs keys that are strings other than {_TAG!r}; found {key!r}")
        return {key: _encode(item, f"{where}[{key!r}]") for key, item in value.items()}
    raise TypeError(
        f"{where}: only dicts, lists, strings, numbers, booleans, None and arrays can be saved as JSON; "
        f"found {type(value).__name__}"
    )


def _decode(pairs: list[tuple[str, Any]]) -> Any:
    mapping = dict(pairs)
    if len(mapping) < len(pairs):
        raise ValueError("a key stands twice in one object")
    if _TAG not in mapping:
        return mapping
    if mapping.keys() != {_TAG} or mapping[_TAG] not in ("nan", "inf", "-inf"):
        raise ValueError(f"{_TAG} must be alone and nan, inf or -inf")
    return float(mapping[_TAG])


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:80]} is beyond all floats")
    return number


def _within_64_bits(text: str) -> int:
    if len(text) > 20 or not -(2**63) <= int(text) < 2**64:
        raise ValueError(f"{text[:80]} is an integer of more than 64 bits")
    return int(text)


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")
