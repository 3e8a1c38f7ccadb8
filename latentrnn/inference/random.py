"""Seeds without global state."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def random_state(seed: int, device: torch.device | str = "cpu") -> Iterator[None]:
    """Seed torch's generators inside the block, and put them back as they were after it."""
    device = torch.device(device)
    devices = []
    if device.type == "cuda":
        devices = [torch.cuda.current_device() if device.index is None else device.index]
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield
