"""JSON that every parser reads: NaN and infinities are tagged, and what JSON has no word for is refused by name."""

from __future__ import annotations

import json
import math
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
        ValueError: not JSON, or JSON with the bare `NaN` and `Infinity` that the standard does not have.
    """
    return json.loads(text, parse_constant=_refuse_constant, object_hook=_decode)


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


def _decode(mapping: dict[str, Any]) -> Any:
    if mapping.keys() == {_TAG}:
        return float(mapping[_TAG])
    return mapping


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")
