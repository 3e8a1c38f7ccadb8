"""Devices that names stand for: one to compute on, and one for tensors to lie on."""

from __future__ import annotations

from typing import Any

import torch


def resolve_device(device: str | torch.device) -> torch.device:
    """Return the torch device; "auto" is CUDA where there is one.

    Raises:
        ValueError: CUDA is asked for and there is none, or torch knows no such device.
    """
    if isinstance(device, str) and device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(device)
    except (RuntimeError, TypeError, ValueError):
        raise ValueError(f"device: expected 'auto' or the name of a torch device; found {device!r}") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError('device: "cuda" was asked for, but torch finds no CUDA device; use "auto" or "cpu"')
    if device.type == "meta" or (device.type == "mps" and not torch.backends.mps.is_available()):
        raise ValueError(f'device: {device.type!r} cannot compute here; use "auto" or "cpu"')
    return device


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
