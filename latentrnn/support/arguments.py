"""Checks of arguments: numbers in their ranges, flags, words. Each returns what it was given as a plain Python value.

NumPy's integers, floats and booleans are taken wherever Python's are. A boolean is no number, NaN is in no range, and a
string is no flag.
"""

from __future__ import annotations

import math
import os
import secrets
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from latentrnn.support.shown import shown

LARGEST_SIZE = 2**31 - 1  # of an axis; larger ones are a slip, and overflow somewhere below torch
LARGEST_COUNT = 2**63 - 1  # what torch and NumPy count with
LARGEST_RATE = 1e30  # torch's fused optimizers compute with single precision


def is_integer(value: Any) -> bool:
    """Return whether `value` is an integer of Python or NumPy (booleans are not)."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def is_number(value: Any) -> bool:
    """Return whether `value` is an integer or a float of Python or NumPy (booleans are not; NaN and infinity are)."""
    return is_integer(value) or isinstance(value, float | np.floating)


def check_integer(owner: str, name: str, value: Any, *, least: int = 0, most: int = LARGEST_COUNT) -> int:
    """Return `value`, an integer from `least` to `most`.

    Args:
        owner: whose argument it is, e.g. "fit".
        name: of the argument.
        value: what was given.
        least, most: its range, both included.

    Raises:
        ValueError: anything else.

    Example:
        >>> check_integer("Window", "overlap", np.int64(3))
        3
    """
    if not is_integer(value) or not least <= value <= most:
        kind = {0: "a non-negative integer", 1: "a positive integer"}.get(least, f"an integer of at least {least}")
        limit = f" of at most {most}" if is_integer(value) and value > most else ""
        raise ValueError(f"{owner}: {name} must be {kind}{limit}; found {shown(value)}")
    return int(value)


def check_size(owner: str, name: str, value: Any, *, most: int = LARGEST_SIZE) -> int:
    """Return `value`, a positive integer.

    Raises:
        ValueError: it is not, or it is larger than `most`, by default the longest axis that makes sense.
    """
    return check_integer(owner, name, value, least=1, most=most)


def check_number(
    owner: str,
    name: str,
    value: Any,
    *,
    least: float = -math.inf,
    most: float = math.inf,
    above: float | None = None,
    below: float | None = None,
    finite: bool = True,
) -> float:
    """Return `value`, a number in a range; never NaN.

    Args:
        owner: whose argument it is, e.g. "AdamW".
        name: of the argument.
        value: what was given.
        least, most: bounds that belong to the range.
        above, below: bounds that do not.
        finite: whether infinity is out.

    Raises:
        ValueError: anything else.

    Example:
        >>> check_number("AdamW", "averaging", np.float32(0.5), least=0, below=1)
        0.5
        >>> check_number("Rollback", "tolerance", float("nan"), above=0, finite=False)
        Traceback (most recent call last):
        ...
        ValueError: Rollback: tolerance must be positive; found nan
    """
    inside = is_number(value) and least <= value <= most
    inside = inside and (above is None or value > above) and (below is None or value < below)
    infinite = is_number(value) and math.isinf(_as_float(value))
    if not inside or (finite and infinite):
        must = "must be finite" if inside else f"must {_in_words(least, most, above, below)}"
        raise ValueError(f"{owner}: {name} {must}; found {shown(value)}")
    return _as_float(value)


def check_learning_rate(owner: str, rate: Any) -> float:
    """Return a learning rate, positive and within what single precision holds.

    Raises:
        ValueError: anything else.
    """
    found = check_number(owner, "learning_rate", rate, above=0)
    if found > LARGEST_RATE:
        raise ValueError(f"{owner}: learning_rate must be at most {LARGEST_RATE:g}; found {found:g}")
    return found


def check_rate(owner: str, name: str, value: Any) -> float:
    """Return `value`, a number in [0, 1), such as a rate of dropout.

    Raises:
        ValueError: anything else.
    """
    return check_number(owner, name, value, least=0, below=1)


def check_flag(owner: str, name: str, value: Any) -> bool:
    """Return `value`, True or False.

    Raises:
        TypeError: anything else; a string, for which any but the empty one would count as true, above all.
    """
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{owner}: {name} must be True or False; found {shown(value)}")
    return bool(value)


def check_text(owner: str, name: str, value: Any) -> str:
    """Return `value`, a string that is not empty.

    Raises:
        TypeError: it is no string.
        ValueError: it is empty.
    """
    if not isinstance(value, str):
        raise TypeError(f"{owner}: {name} must be a string; found {shown(value)}")
    if not value:
        raise ValueError(f"{owner}: {name} must not be empty")
    return str(value)


def check_choice(owner: str, name: str, value: Any, choices: Iterable[str]) -> str:
    """Return `value`, one of some words.

    Raises:
        ValueError: anything else.
    """
    known = list(choices)
    if not isinstance(value, str) or value not in known:
        raise ValueError(f"{owner}: {name} must be one of {', '.join(map(repr, known))}; found {shown(value)}")
    return str(value)


def check_list(owner: str, name: str, value: Any, of: str) -> list[Any]:
    """Return `value`, a list, a tuple or anything else that can be gone through, as a list.

    Args:
        owner: whose argument it is, e.g. "Convolution".
        name: of the argument.
        value: what was given; a string is no list of its letters, and of arrays only those of one axis are lists.
        of: what it holds, in words, e.g. "positive integers".

    Raises:
        TypeError: it is none.
    """
    if isinstance(value, str | bytes) or not isinstance(value, Iterable) or getattr(value, "ndim", 1) != 1:
        raise TypeError(f"{owner}: {name} must be a list of {of}; found {shown(value)}")
    return list(value)


def check_names(owner: str, name: str, value: Any) -> list[str]:
    """Return `value`, names, as a list; one name may stand alone.

    Raises:
        TypeError: these are not names.
        ValueError: one is empty.
    """
    names = [value] if isinstance(value, str) else check_list(owner, name, value, "names")
    for each in names:
        if not isinstance(each, str):
            raise TypeError(f"{owner}: {name} must be a list of names; found {shown(each)} among them")
    return [check_text(owner, name, each) for each in names]


def as_plain(value: Any) -> Any:
    """Return an array or a tensor of numbers as a number or nested lists of them, and anything else as it is."""
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    dense = isinstance(value, torch.Tensor) and value.layout is torch.strided and value.device.type != "meta"
    return value.tolist() if dense else value


def check_seed(owner: str, seed: Any, *, name: str = "seed") -> int:
    """Return a seed of random numbers: the integer that was given, or, for None, a fresh one of the operating system's.

    Whoever takes a seed keeps what this returns, so that what was drawn can be drawn again.

    Raises:
        TypeError: neither an integer nor None.
        ValueError: an integer of more than 64 bits.

    Example:
        >>> check_seed("fit", np.uint8(7))
        7
        >>> check_seed("fit", "a")
        Traceback (most recent call last):
        ...
        TypeError: fit: seed must be an integer, or None for a fresh one; found 'a'
    """
    if seed is None:
        return secrets.randbits(32)
    if not is_integer(seed):
        raise TypeError(f"{owner}: {name} must be an integer, or None for a fresh one; found {shown(seed)}")
    if not -(2**63) <= seed < 2**64:  # what torch takes
        raise ValueError(f"{owner}: {name} must be an integer of at most 64 bits; found {shown(seed)}")
    return int(seed)


def check_kind_of(owner: str, name: str, value: Any, *kinds: type) -> Any:
    """Return `value`, an instance of one of some classes.

    Raises:
        TypeError: it is none.
    """
    if not isinstance(value, kinds):
        expected = " or ".join(f"{'an' if kind.__name__[0] in 'AEIOU' else 'a'} {kind.__name__}" for kind in kinds)
        raise TypeError(f"{owner}: {name} must be {expected}; found {shown(value)}")
    return value


def check_selection(owner: str, name: str, value: Any, known: Iterable[str], what: str = "name") -> list[str]:
    """Return `value`, several of some names, as a list.

    Args:
        owner: whose argument it is.
        name: of the argument.
        value: what was given.
        known: the names that there are.
        what: they are names of, for the error, e.g. "head".

    Raises:
        TypeError: no names, or a single string.
        ValueError: a name that is not known.

    Example:
        >>> check_selection("forecast", "heads", "y", ["y", "z"])
        Traceback (most recent call last):
        ...
        TypeError: forecast: heads must be a list of names; found 'y', write ['y']
    """
    if isinstance(value, str | bytes) or not isinstance(value, list | tuple | set | frozenset | Mapping):
        hint = f", write [{value!r}]" if isinstance(value, str) else ""
        if hint or not _is_iterable(value):
            raise TypeError(f"{owner}: {name} must be a list of names; found {shown(value)}{hint}")
    found, known = list(value), list(known)
    for each in found:
        if not isinstance(each, str) or each not in known:
            raise ValueError(f"{owner}: unknown {what} {shown(each)} in {name}; there are {known}")
    return found


def check_path(owner: str, value: Any, *, name: str = "path") -> Path:
    """Return the path of a file or folder, with `~` expanded.

    Raises:
        TypeError: neither a string nor a path.
        ValueError: an empty string.
    """
    if not isinstance(value, str | os.PathLike) or not isinstance(os.fspath(value), str):
        raise TypeError(f"{owner}: {name} must be a string or a pathlib.Path; found {shown(value)}")
    if not os.fspath(value):
        raise ValueError(f"{owner}: {name} must not be empty")
    return Path(value).expanduser()


def settle(owner: object, **values: Any) -> None:
    """Give the fields of a frozen dataclass the values that checks of it returned."""
    for name, value in values.items():
        object.__setattr__(owner, name, value)


def _in_words(least: float, most: float, above: float | None, below: float | None) -> str:
    low, high = least if above is None else above, most if below is None else below
    if math.isinf(low) and math.isinf(high):
        return "be a number"
    if low == 0 and math.isinf(high):
        return "not be negative" if above is None else "be positive"
    if math.isinf(high):
        return f"be a number {'of at least' if above is None else 'above'} {low:g}"
    return f"be in {'[' if above is None else '('}{low:g}, {high:g}{']' if below is None else ')'}"


def _is_iterable(value: Any) -> bool:
    try:
        iter(value)
    except TypeError:
        return False
    return True


def _as_float(value: Any) -> float:
    try:
        return float(value)
    except OverflowError:  # an integer beyond all floats
        return math.inf
