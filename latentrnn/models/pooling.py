"""From the states of a sequence to the one that a per-sequence head reads."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from latentrnn.data import SequenceData
from latentrnn.models.component import Component
from latentrnn.support.arguments import check_size


class Pooling(Component):
    """h = pooling(h_1, ..., h_T): what lies in padding does not count."""

    @abstractmethod
    def build(self, hidden_size: int) -> None:
        """Create the parameters for states of `hidden_size`."""

    @abstractmethod
    def forward(self, states: Tensor, data: SequenceData) -> Tensor:
        """Return (..., sequence, hidden_size) of states (..., sequence, time, hidden_size)."""


class LastState(Pooling):
    """h = h_T, T the sequence's own last step."""

    def build(self, hidden_size: int) -> None:
        """There is nothing to learn."""

    def forward(self, states: Tensor, data: SequenceData) -> Tensor:
        last = (data.lengths - 1).clamp_min(0)[:, None, None].expand(*states.shape[:-2], 1, states.shape[-1])
        return states.gather(-2, last).squeeze(-2)


class MeanState(Pooling):
    """h = (h_1 + ... + h_T) / T."""

    def build(self, hidden_size: int) -> None:
        """There is nothing to learn."""

    def forward(self, states: Tensor, data: SequenceData) -> Tensor:
        weight = data.valid.to(states.dtype).unsqueeze(-1)
        return (states * weight).sum(-2) / weight.sum(-2).clamp_min(1)


class AttentionPooling(Pooling):
    """h = sum_t alpha_t h_t,  alpha = softmax_t(v^T tanh(A h_t + a)): which steps count is learned.

    Args:
        size: units of the scoring layer.

    Raises:
        ValueError: a size below one.

    References:
        Bahdanau, Cho, Bengio. Neural machine translation by jointly learning to align and translate. 2015.
        Yang, Yang, Dyer, He, Smola, Hovy. Hierarchical attention networks for document classification. 2016.
    """

    def __init__(self, size: int = 16, **shared: Any) -> None:
        super().__init__(**shared)
        self.size = check_size("AttentionPooling", "size", size)

    def build(self, hidden_size: int) -> None:
        self.map = nn.Linear(hidden_size, self.size)
        self.direction = nn.Parameter(torch.zeros(self.size))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw a small v from torch's global generator: steps start nearly alike."""
        with torch.no_grad():
            self.direction.normal_(0.0, 0.1)

    def weights(self, states: Tensor, data: SequenceData) -> Tensor:
        """Return alpha, (..., sequence, time), zero in padding."""
        scores = torch.tanh(self.map(states)) @ self.direction
        if data.padded:
            valid = data.valid | (data.lengths == 0)[:, None]  # a sequence without steps has no NaN either
            scores = scores.masked_fill(~valid, -math.inf)
        return scores.softmax(-1)

    def forward(self, states: Tensor, data: SequenceData) -> Tensor:
        return (self.weights(states, data).unsqueeze(-1) * states).sum(-2)


POOLINGS: dict[str, type[Pooling]] = {"last": LastState, "mean": MeanState, "attention": AttentionPooling}
