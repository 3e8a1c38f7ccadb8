"""Starting values of weights, drawn anew."""

from __future__ import annotations

import torch
from torch import nn


def draw_weights(module: nn.Module) -> None:
    """Draw the weights of all parts of a module anew from torch's generators, children before parents."""
    for part in reversed(list(module.modules())):
        if callable(reset := getattr(part, "reset_parameters", None)):
            reset()
        if isinstance(part, nn.RNNBase):
            _draw_those_with_priors(part)


def _draw_those_with_priors(kernel: nn.RNNBase) -> None:
    """Draw what torch passes over, since it looks at parameters alone: with a prior or a known value it is a buffer."""
    bound = max(kernel.hidden_size, 1) ** -0.5
    with torch.no_grad():
        for tensor in kernel.buffers(recurse=False):
            tensor.uniform_(-bound, bound)
