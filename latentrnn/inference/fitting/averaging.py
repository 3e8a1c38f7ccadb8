"""A moving average of the weights."""

from __future__ import annotations

import torch
from torch import nn

from latentrnn.support.private_symbols import lerp_all_


class Average:
    """An exponential moving average of the weights, which can change places with the weights themselves."""

    def __init__(self, parameters: list[nn.Parameter], decay: float) -> None:
        self.parameters, self.decay = parameters, decay
        self.values = [p.detach().clone() for p in parameters] if decay else []

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after a step; early on the average forgets faster, so that the start does not linger."""
        if self.decay:
            decay = min(self.decay, (1 + step) / (10 + step))
            lerp_all_(self.values, [p.detach() for p in self.parameters], 1 - decay)

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange weights and average."""
        for parameter, value in zip(self.parameters, self.values, strict=False):
            kept = parameter.clone()
            parameter.copy_(value)
            value.copy_(kept)
