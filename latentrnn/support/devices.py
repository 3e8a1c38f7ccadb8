"""Devices that names stand for: one to compute on, and one for tensors to lie on."""

from __future__ import annotations

from typing import Any

import torch

# what torch raises where it was built without a device, the machine lacks it, or a module that brings it is not there
MISSING = (RuntimeError, AssertionError, NotImplementedError, ImportError)


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
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise ValueError('device: "cuda" was asked for, but torch finds no CUDA device; use "auto" or "cpu"')
        if (device.index or 0) >= (count := torch.cuda.device_count()):
            raise ValueError(f'device: "{device}" was asked for, but torch finds {count} CUDA devices, from "cuda:0"')
        return device  # untouched: every process of a fit has one of its own
    if device.type == "meta" or not _is_there(device):
        raise ValueError(f'device: "{device}" cannot compute here; use "auto" or "cpu"')
    return device


def _is_there(device: torch.device) -> bool:
    try:
        torch.empty(0, device=device)
    except MISSING:
        return False
    return True


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
    except (*MISSING, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"{owner}: expected a device of this machine, found {str(device)!r} ({reason})") from None
    return found
