"""Scaled dot-product attention: what asks, what is attended to, and how they are compared."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from latentrnn.support.private_symbols import within_transform


class Asked(NamedTuple):
    """What attention is asked.

    Attributes:
        states: what asks, (..., time, channel).
        source: what is attended to, (..., source time, channel).
        causal: the last states of `source` are `states`, and each step sees those up to its own.
        valid: which steps of the source exist, (sequence, source time); None for all.
        scale, shift: modulation of the queries, (..., time, size); None without.
    """

    states: Tensor
    source: Tensor
    causal: bool = False
    valid: Tensor | None = None
    scale: Tensor | None = None
    shift: Tensor | None = None


class Attention(nn.Module):
    """Scaled dot-product attention with learned maps to queries, keys and values; sample axes broadcast.

    Args:
        asking: channels of what asks.
        asked: channels of what is attended to.
        size, heads: see `CausalAttention`.
    """

    def __init__(self, asking: int, asked: int, size: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(asking, size)
        self.key = nn.Linear(asked, size, bias=False)  # a bias of the keys leaves the softmax as it is
        self.value = nn.Linear(asked, size, bias=False)  # one of the values is the readout's baseline

    def forward(self, asked: Asked) -> Tensor:
        """Return the attended values, (..., time, size)."""
        query, key, mask = self._compared(asked)
        value = self.split(self.value(asked.source))
        batch = torch.broadcast_shapes(query.shape[:-2], key.shape[:-2])
        query, key, value = (part.expand(*batch, *part.shape[-2:]) for part in (query, key, value))
        if within_transform(query, key, value):  # which the library's kernel does not know
            return self.join(_softmax_of(query, key, mask) @ value)
        return self.join(F.scaled_dot_product_attention(query, key, value, attn_mask=mask))

    def weights(self, asked: Asked) -> Tensor:
        """Return the softmax weights, (..., head, time, source time)."""
        return _softmax_of(*self._compared(asked))

    def _compared(self, asked: Asked) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return queries, keys and what of the source may be seen."""
        query = self.query(asked.states)
        if asked.scale is not None:
            query = query * asked.scale + asked.shift
        return self.split(query), self.split(self.key(asked.source)), self._mask(asked)

    def _mask(self, asked: Asked) -> Tensor | None:
        if asked.valid is not None:
            valid = asked.valid | ~asked.valid.any(
                -1, keepdim=True
            )  # nothing to see: no NaN, and nothing counts there anyway
            return valid[..., None, None, :]  # (sequence, head, time, source time)
        time, source_time = asked.states.shape[-2], asked.source.shape[-2]
        if not asked.causal or time == 1:
            return None
        seen = torch.ones(time, source_time, dtype=torch.bool, device=asked.states.device)
        return seen.tril(source_time - time)

    def split(self, values: Tensor) -> Tensor:
        """Return (..., head, time, channel) of (..., time, size)."""
        return values.unflatten(-1, (self.heads, -1)).transpose(-2, -3)

    @staticmethod
    def join(values: Tensor) -> Tensor:
        """Return (..., time, size) of (..., head, time, channel)."""
        return values.transpose(-2, -3).flatten(-2)


def _softmax_of(query: Tensor, key: Tensor, mask: Tensor | None) -> Tensor:
    scores = query @ key.mT / math.sqrt(query.shape[-1])
    return (scores if mask is None else scores.masked_fill(~mask, -math.inf)).softmax(-1)
