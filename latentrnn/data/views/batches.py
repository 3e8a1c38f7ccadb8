"""Which sequences go together, and taking them out of the plate."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from latentrnn.data.metadata import taken
from latentrnn.data.record import Fact, Record
from latentrnn.support.arguments import is_integer

# batches per pool within which sequences are sorted by length: enough to save padding, few enough to stay random
POOL = 8


def take(data: Record, indices: Tensor, longest: Tensor | None = None, total: int | None = None) -> Record:
    """The sequences at `indices` (in the host's memory) as a sub-sample of the same plate, trimmed to the longest.

    The longest of the sequences at `longest`, where these are given. They stand for `total` sequences, by default for
    all that `data` stand for.
    """
    chosen = indices.numpy()
    lengths = data.host_lengths[chosen]
    num_steps = max(int((lengths if longest is None else data.host_lengths[longest.numpy()]).max()), data.spec.slowest)
    on_device = indices.to(data.device, non_blocking=True)

    def pick(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        out = {}
        for name, tensor in tensors.items():
            head = data.spec.heads.get(name)
            if head is None or head.per_step:
                # narrowed first, so that only what is kept is copied, and the copy is contiguous
                tensor = tensor[:, : num_steps // (1 if head is None else head.clock)]
            out[name] = tensor.index_select(0, on_device)
        return out

    observations, masks = pick(data.observations), pick(data.masks)
    context = data.context.index_select(0, on_device)
    known = {name: data.constant(name) for name in data.constants}
    constants = {
        name: Fact.of(values.index_select(0, on_device), observations[name], masks[name], context)
        for name, values in known.items()
        if values is not None
    }
    return dataclasses.replace(
        data,
        observations=observations,
        masks=masks,
        covariates=pick(data.covariates),
        totals=pick(data.totals),
        lengths=data.lengths.index_select(0, on_device),
        context=context,
        times=None if data.times is None else data.times[:, :num_steps].index_select(0, on_device),
        keys=tuple(data.keys[i] for i in chosen),
        names=tuple(data.names[i] for i in chosen),
        sessions=None if data.sessions is None else tuple(data.sessions[i] for i in chosen),
        metadata=taken(data.metadata, chosen) if data.metadata else {},
        calendar=None if data.calendar is None else data.calendar.take(chosen),
        indices=on_device if data.indices is None else data.indices.index_select(0, on_device),
        total=data.total if total is None else total,
        num_steps=num_steps,
        host_lengths=lengths,
        host_context=data.host_context[chosen],
        around=None,
        gapless=data.inherited(masks),
        constants=constants,
    )


def batch_order(
    lengths: NDArray[np.int64], batch_size: int, bucket: bool, generator: torch.Generator | None
) -> list[Tensor]:
    """Positions of the sequences of each batch of a pass; with `bucket`, shuffled batches hold similar lengths.

    There are as few batches as `batch_size` allows, of sizes that differ by one at most: where a sequence counts the
    same in every batch, a small last one would be a step of little but noise.
    """
    if not is_integer(batch_size) or batch_size < 1:
        raise ValueError(f"batch_size: expected a positive whole number, found {batch_size!r}")
    if generator is not None and not isinstance(generator, torch.Generator):
        raise TypeError(f"generator: expected a torch.Generator or None, found {type(generator).__name__}")
    count = -(-len(lengths) // int(batch_size))
    if generator is None:
        return list(torch.arange(len(lengths), device="cpu").tensor_split(count))
    batches = torch.randperm(len(lengths), generator=generator, device="cpu").tensor_split(count)
    if not bucket:
        return list(batches)
    by_length = torch.from_numpy(lengths)
    alike: list[Tensor] = []
    for first in range(0, count, POOL):
        together = torch.cat(batches[first : first + POOL])
        together = together[torch.argsort(by_length[together], stable=True)]
        alike += together.split([len(batch) for batch in batches[first : first + POOL]])
    return [alike[i] for i in torch.randperm(count, generator=generator, device="cpu").tolist()]


def read_index(item: Any, size: int) -> NDArray[np.int64]:
    """Positions of the chosen sequences, all from 0 to `size` - 1."""
    if isinstance(item, slice):
        for end in (item.start, item.stop, item.step):
            if end is not None and not is_integer(end):
                raise TypeError(f"index: expected whole numbers in a slice, found {item}")
        chosen = np.arange(size)[item]
    else:
        try:
            array = np.asarray(item.cpu() if isinstance(item, Tensor) else item)
        except (ValueError, TypeError, NotImplementedError):  # ragged; sparse; on the device meta
            raise TypeError(f"index: expected an integer, a slice, integers or booleans, found {item!r:.80}") from None
        if array.size == 0:
            array = array.astype(np.int64)
        if array.dtype == bool and array.shape != (size,):
            raise ValueError(f"index: expected {size} booleans, one per sequence, found shape {array.shape}")
        if array.dtype.kind not in "bui" or array.ndim > 1:
            raise TypeError(f"index: expected an integer, a slice, integers or booleans, found {item!r:.80}")
        chosen = np.flatnonzero(array) if array.dtype == bool else np.atleast_1d(array).astype(np.int64)
    if ((chosen < -size) | (chosen >= size)).any():
        raise IndexError(f"index: expected sequences from 0 to {size - 1}, found {chosen.tolist()!r:.80}")
    if len(chosen) == 0:
        raise ValueError("index: expected at least one sequence, found none")
    return np.asarray(np.where(chosen < 0, chosen + size, chosen), dtype=np.int64)
