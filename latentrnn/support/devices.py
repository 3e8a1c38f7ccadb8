"""The device that a name stands for."""

from __future__ import annotations

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
