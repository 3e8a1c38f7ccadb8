"""What hand-written backwards through draws along time have in common."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from latentrnn.inference.guides.families.family import SMALLEST_SCALE
from latentrnn.models.scans.packed_layout import PackedRows


class DrawGradients:
    """Gradients that come from outside to draws z_t = m_t + s_t e_t, s_t = softplus(r_t), step by step.

    Args:
        entries: of the rows.
        scale, noise: s and e, as `entries` has them.
        gradients: of z_{1:T} and s_{1:T}, (..., time, dim); None where nobody asks.

    Attributes:
        to_draws: gradient of each z_t.
    """

    def __init__(self, entries: PackedRows, scale: Tensor, noise: Tensor, gradients: Sequence[Tensor | None]) -> None:
        from_draws, from_scale = (entries.take_gradient(gradient) for gradient in gradients)
        # d softplus(r) / dr = sigmoid(r) = 1 - exp(-softplus(r))
        slope = torch.expm1(SMALLEST_SCALE - scale).neg_()
        self._by_noise = entries.views(slope * noise)
        self._by_scale = None if from_scale is None else entries.views(slope * from_scale)
        self.to_draws = entries.views(torch.zeros_like(scale) if from_draws is None else from_draws)

    def write_to_raw(self, step: int, to_noise: Tensor, out: Tensor) -> None:
        """Write the gradient of r_t into `out`, given that of s_t e_t."""
        if self._by_scale is None:
            torch.mul(to_noise, self._by_noise[step], out=out)
        else:
            torch.addcmul(self._by_scale[step], to_noise, self._by_noise[step], out=out)
