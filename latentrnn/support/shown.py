"""Arrays in a line: what records of results show of themselves where a notebook prints them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor


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
