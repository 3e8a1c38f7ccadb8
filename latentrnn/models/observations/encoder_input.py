"""A head's values as the input of an encoder."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from latentrnn.models.features.units import units_of_all
from latentrnn.support.deprecations import former_attributes


@former_attributes
@dataclass(frozen=True)
class EncoderInput:
    """As numbers, which an encoder takes in standard units, or as symbols without order, one indicator for each.

    Args:
        channels: channels of the head.
        symbols: number of symbols, coded from zero; None for numbers.
    """

    channels: int
    symbols: int | None = None

    @property
    def size(self) -> int:
        """How many inputs an encoder gets."""
        return self.channels * (self.symbols or 1)

    def encode(self, values: Tensor) -> Tensor:
        """Return values (..., channel) as inputs (..., size); a code that is no symbol's sets no indicator."""
        if self.symbols is None:
            return values
        codes = torch.arange(self.symbols, dtype=values.dtype, device=values.device)
        return (values.unsqueeze(-1) == codes).flatten(-2).to(values.dtype)

    def expand_mask(self, mask: Tensor) -> Tensor:
        """Return a mask (..., channel) as that of the inputs, (..., size)."""
        return mask if self.symbols is None else mask.repeat_interleave(self.symbols, -1)

    def centre_and_scale(self, values: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return centre and scale of the inputs, (size,), over observed entries; indicators stay 0 and 1."""
        if self.symbols is not None:
            return values.new_zeros(self.size), values.new_ones(self.size)
        return units_of_all(values, mask)
