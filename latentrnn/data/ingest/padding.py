"""Sequences of different lengths in one tensor, with harmless values wherever nothing was observed."""

from __future__ import annotations

import numpy as np
import torch

from latentrnn.data.ingest.arrays import Array


def padded(arrays: list[Array], num_steps: int, dtype: torch.dtype) -> torch.Tensor:
    """Arrays (time_i, channel) as one tensor (sequence, time, channel), 0 in padding."""
    out = torch.zeros((len(arrays), num_steps, *arrays[0].shape[1:]), dtype=dtype, device="cpu")
    view = out.numpy()
    for index, array in enumerate(arrays):
        # values beyond float32 were refused where observed; what is masked may overflow, and is replaced
        with np.errstate(over="ignore"):
            view[index, : len(array)] = array
    return out


def fill(values: torch.Tensor, mask: torch.Tensor, filler: torch.Tensor | None = None) -> torch.Tensor:
    """Unobserved entries replaced by `filler`, (channel,): by default the first observed value of their channel.

    Where there is none, 1.0.

    An observed value is inside the support of whatever family the head will get, so that no NaN and no
    impossible value reaches a distribution, whose gradients would be NaN even when masked.
    """
    if filler is None:
        found, there = first_observed(values, mask)
        filler = torch.where(there, found, torch.ones_like(found))
    return torch.where(mask, values, filler)


def first_observed(values: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The first observed value of every channel, and whether there is one, (channel,) each."""
    flat_values, flat_mask = values.flatten(0, -2), mask.flatten(0, -2)
    first = flat_mask.to(torch.uint8).argmax(0, keepdim=True)
    return flat_values.gather(0, first)[0], flat_mask.any(0)


def continued(stamps: list[Array], num_steps: int) -> Array:
    """Times (sequence, time) that go on in padding with the sequence's last step, so that steps stay positive."""
    out = np.empty((len(stamps), num_steps))
    for index, stamp in enumerate(stamps):
        step = stamp[-1] - stamp[-2] if len(stamp) > 1 else 1.0
        out[index, : len(stamp)] = stamp
        out[index, len(stamp) :] = stamp[-1] + step * np.arange(1, num_steps - len(stamp) + 1)
    return out
