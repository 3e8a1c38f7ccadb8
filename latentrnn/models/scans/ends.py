"""The features of all steps, and once more those of the steps at which each direction has seen everything."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from latentrnn.models.scans.derivatives import by_hand


def with_ends(steps: Tensor, last: Tensor, ahead: int) -> tuple[Tensor, Tensor]:
    """Return features (row, time, size), and (row, size) of the last step and of the first.

    The backward adds the second to the gradient of the first; that of a slice would write zeros for all steps, and
    another pass would add them.

    Args:
        steps: (row, time, size).
        last: last step of each row, (row,).
        ahead: so many features, the first, run forwards in time and end at the last step, the others at the first.
    """
    return _WithEnds.apply(steps, last, ahead) if by_hand() else (steps, _ends(steps, last, ahead))


def _ends(steps: Tensor, last: Tensor, ahead: int) -> Tensor:
    if not ahead:
        return steps[:, 0]
    rows = torch.arange(len(steps), device=steps.device)
    return torch.cat([steps[rows, last, :ahead], steps[:, 0, ahead:]], -1)


class _WithEnds(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, steps: Tensor, last: Tensor, ahead: int) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(last)
        ctx.ahead = ahead
        return steps.view_as(steps), _ends(steps, last, ahead)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (last,), ahead = ctx.saved_tensors, ctx.ahead
        found, ends = gradients[0].clone(), gradients[1]
        found[:, 0, ahead:] += ends[:, ahead:]
        if ahead:
            rows = torch.arange(len(found), device=found.device)
            found.index_put_((rows, last), torch.nn.functional.pad(ends[:, :ahead], (0, found.shape[-1] - ahead)), True)
        return found, None, None
