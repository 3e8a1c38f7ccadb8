"""Values in a line: as errors show them, and as results do where a notebook prints them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor


def shown(value: Any, width: int = 80) -> str:
    """Return a value as an error shows it, cut short where it is long."""
    text = str(value) if isinstance(value, np.generic) and not isinstance(value, np.str_) else repr(value)
    return text if len(text) <= width else text[: width - 3] + "..."


def first_entry(bad: Tensor | NDArray[np.bool_], axes: Sequence[str]) -> tuple[tuple[int, ...], str]:
    """Return the index of the first True entry, and its place in words.

    Example:
        >>> first_entry(np.array([[False, False], [False, True]]), ["sequence", "step"])
        ((1, 1), 'sequence 1, step 1')
    """
    found = bad.nonzero()[0] if isinstance(bad, Tensor) else np.argwhere(bad)[0]
    index = tuple(int(i) for i in found)
    return index, ", ".join(f"{axis} {i}" for axis, i in zip(axes, index, strict=False))


def shapes(arrays: Mapping[str, Tensor], axes: Sequence[str]) -> str:
    """Return "name: size axis x ..., ..." of arrays by name.

    Args:
        arrays: arrays with as many axes as `axes` names, or fewer.
        axes: names of the axes.

    Example:
        >>> import torch
        >>> shapes({"y": torch.zeros(2, 3)}, ["samples", "steps"])
        'y: 2 samples x 3 steps'
    """
    return ", ".join(
        f"{name}: " + " x ".join(f"{size} {axis}" for size, axis in zip(value.shape, axes, strict=False))
        for name, value in arrays.items()
    )
