"""Heads of different sizes mapped to one, so that sessions whose channels differ share an encoder."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from latentrnn.models.module_dict import NamedModules


class ReadIn(nn.Module):
    """x_t = sum over the heads k that a sequence has of (W_k y^k_t + b_k).

    A head of another session contributes nothing, not even its offset: its channels are neither zeros nor average
    values to this one, they are not there.

    Args:
        widths: head name to the number of its inputs (values, and masks where these are inputs).
        size: of x_t.

    References:
        Pandarinath et al. Inferring single-trial neural population dynamics using sequential auto-encoders. 2018.
    """

    def __init__(self, widths: Mapping[str, int], size: int) -> None:
        super().__init__()
        self.size = size
        self.maps = NamedModules({name: nn.Linear(width, size) for name, width in widths.items()})

    def forward(self, inputs: Mapping[str, Tensor], present: Mapping[str, Tensor | None]) -> Tensor:
        """Return x, (sequence, time, size).

        Args:
            inputs: per head (sequence, time, width).
            present: per head which sequences have it, booleans (sequence,); None for all.
        """
        total: Tensor | None = None
        for name, values in inputs.items():
            read = self.maps[name](values)
            if (there := present[name]) is not None:
                read = torch.where(there[:, None, None], read, torch.zeros_like(read))
            total = read if total is None else total + read
        assert total is not None
        return total
