"""On which device data lie, and in which floating type."""

from __future__ import annotations

from typing import Any

import torch


def check_dtype(dtype: Any) -> torch.dtype:
    """Return a floating type that data can have.

    Raises:
        TypeError: no type of torch, such as a string.
        ValueError: neither torch.float32 nor torch.float64.
    """
    if not isinstance(dtype, torch.dtype):
        raise TypeError(f"dtype: expected torch.float32 or torch.float64, found {dtype!r}")
    if dtype not in (torch.float32, torch.float64):
        raise ValueError(f"dtype: expected torch.float32 or torch.float64, found {dtype}")
    return dtype


def read_device(owner: str, device: Any) -> torch.device:
    """Return a device on which tensors can be made.

    Raises:
        TypeError: neither a device nor its name.
        ValueError: a name that torch does not know, or a device that this machine does not have.
    """
    if isinstance(device, bool) or not isinstance(device, torch.device | str | int):
        raise TypeError(f"{owner}: expected a device or its name, such as 'cpu' or 'cuda', found {device!r}")
    try:
        found = torch.device(device)
        if found.type != "cpu":
            torch.empty(0, device=found)
    except (RuntimeError, AssertionError, NotImplementedError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"{owner}: expected a device of this machine, found {str(device)!r} ({reason})") from None
    return found
