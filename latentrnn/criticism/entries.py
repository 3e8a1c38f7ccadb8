"""Which entries of a prediction and an observation are scored: the one place for the masks of arrays."""

from __future__ import annotations

import numpy
import torch
from torch import Tensor

from latentrnn.data.ingest.plain_numbers import to_tensor

ArrayLike = Tensor | numpy.ndarray


def aligned(
    name: str, prediction: ArrayLike, other: str, observed: ArrayLike, mask: ArrayLike | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Float64 tensors of one shape, zero where not scored, and the boolean mask of what is."""
    predicted, values = to_tensor(name, prediction).double(), to_tensor(other, observed).double()
    if predicted.shape != values.shape or values.dim() != 3:
        raise ValueError(
            f"{name}: expected (sequence, time, channel) like {other}; got {tuple(predicted.shape)} "
            f"and {tuple(values.shape)}"
        )
    scored = ~values.isnan()
    if mask is not None:
        given = to_tensor("mask", mask)
        if given.dtype != torch.bool:
            raise TypeError(f"mask: expected booleans (True = scored), got {given.dtype}")
        if given.shape not in (values.shape, values.shape[:2]):
            raise ValueError(f"mask: expected shape {tuple(values.shape)} or its first two, got {tuple(given.shape)}")
        scored = scored & (given if given.dim() == 3 else given[..., None])
    if not bool(scored.any()):
        raise ValueError(f"{other}: nothing is scored")
    if not bool(torch.isfinite(predicted[scored]).all()):
        raise ValueError(f"{name}: expected finite values in the scored entries, found NaN or infinity")
    return predicted.masked_fill(~scored, 0.0), values.masked_fill(~scored, 0.0), scored
