"""Whether a file holds the state of the fit that is to go on: checked before any of it is taken over."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from latentrnn.inference.fitting.snapshots import part
from latentrnn.support.arguments import is_integer, is_number

if TYPE_CHECKING:
    from latentrnn.inference.fitting.trainer import Run


def _count(value: Any) -> bool:
    return is_integer(value) and value >= 0


def _texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _numbers(value: Any) -> bool:
    return isinstance(value, list) and all(is_number(item) for item in value)


def _rows(value: Any) -> bool:
    return isinstance(value, list) and all(map(_numbers, value))


def _history(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_numbers, value.values()))


def _watch(value: Any) -> bool:
    right = isinstance(value, dict) and value.keys() == {"names", "past", "fresh"}
    return right and _texts(value["names"]) and _rows(value["past"]) and _rows(value["fresh"])


_FORM: dict[str, Callable[[Any], bool]] = {
    **dict.fromkeys(("step", "stale", "rollbacks", "restart", "best_step", "position", "window"), _count),
    "shrink": lambda value: is_number(value) and 0 < value <= 1,
    "history": _history,
    "events": _texts,
    "stop_reason": lambda value: isinstance(value, str),
    "best_bound": is_number,
    "unjudged": lambda value: value is None or _count(value),
    "good": lambda value: isinstance(value, list) and 1 <= len(value) <= 2 and all(map(_count, value)),
    "watch": _watch,
    "finished": lambda value: isinstance(value, bool),
    "identity": lambda value: isinstance(value, dict) and isinstance(value.get("settings"), dict),
    "surroundings": lambda value: isinstance(value, dict),
}
_LATER = {"unjudged": None}  # what older files do not have


def check_values(where: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a checkpoint says in JSON form.

    Raises:
        ValueError: an entry is missing, or of another kind; naming the file and the entry.
    """
    found = {**_LATER, **values}
    for name, right in _FORM.items():
        if name not in found:
            raise ValueError(f"{where}: not the state of a fit: {name} is missing")
        if not right(found[name]):
            shown = repr(found[name])
            raise ValueError(f"{where}: not the state of a fit: {name} cannot be {shown[:80]}")
    return found


def check_tensors(where: str, run: Run, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
    """Check that the tensors of a checkpoint are those of this run.

    Raises:
        ValueError: one is missing, unknown, or of another shape or type; naming the file and the tensor.
    """
    now = run.snapshot().tensors
    trained = [parameter for group in run.engine.param_groups for parameter in group["params"]]
    weights = {name: value for name, value in now.items() if not name.startswith("optimiser/")}
    for state in ("now", *(f"good{index}" for index in range(len(values["good"])))):
        found = part(tensors, state)
        moments = part(found, "optimiser")
        _check_same(where, f"{state}/", weights, {k: v for k, v in found.items() if not k.startswith("optimiser/")})
        for name, moment in moments.items():
            index = name.partition("/")[0]
            known = index.isdecimal() and int(index) < len(trained)
            if not known or moment.shape not in (torch.Size(), trained[int(index)].shape):
                raise ValueError(f"{where}: not the state of this fit: tensor '{state}/optimiser/{name}' does not fit")
    for module in ("model", "guide"):
        _check_same(where, f"best/{module}/", part(now, module), part(tensors, f"best/{module}"))
    generators = {"random/cpu": torch.random.get_rng_state(), "random/order": run.batches.start}
    _check_same(where, "", generators, {name: tensors[name] for name in generators if name in tensors})


def _check_same(where: str, prefix: str, expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> None:
    for name, value in expected.items():
        if name not in found:
            raise ValueError(f"{where}: not the state of this fit: tensor '{prefix}{name}' is missing")
        its = found[name]
        if its.shape != value.shape or its.dtype != value.dtype:
            raise ValueError(
                f"{where}: not the state of this fit: tensor '{prefix}{name}': expected {value.dtype} of shape "
                f"{tuple(value.shape)}; found {its.dtype} of shape {tuple(its.shape)}"
            )
    for name in found:
        if name not in expected:
            raise ValueError(f"{where}: not the state of this fit: tensor '{prefix}{name}' is not one of its own")
