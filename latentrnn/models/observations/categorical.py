"""Symbols."""

from __future__ import annotations

from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.nn import functional as F

from latentrnn.models.observations.encoder_input import EncoderInput
from latentrnn.models.observations.entries import unmasked_entries
from latentrnn.models.observations.observation import Observation, refuse_outside
from latentrnn.support.arguments import check_size


class Categorical(Observation):
    """y ~ Categorical(softmax(eta_1, ..., eta_K)): each channel holds one symbol, coded 0 to K - 1.

    Its mean is the vector of class probabilities, (..., channel, class).

    Args:
        classes: K, the number of symbols.
        **shared: see `Observation`.

    Raises:
        ValueError: fewer than two classes.
    """

    discrete = True

    def __init__(self, classes: int, **shared: Any) -> None:
        super().__init__(**shared)
        self.classes = self.outputs_per_channel = check_size("Categorical", "classes", classes)
        if classes < 2:
            raise ValueError("Categorical: classes must be at least 2; found 1")

    def family(self, eta: Tensor) -> dist.Distribution:
        return Codes(logits=eta, validate_args=False)

    def mean(self, distribution: dist.Distribution) -> Tensor:
        return unmasked_entries(distribution).probs

    def check(self, name: str, values: Tensor, mask: Tensor) -> None:
        bad = mask & ((values < 0) | (values >= self.classes) | (values != values.floor()))
        refuse_outside(name, "Categorical", f"integer codes from 0 to {self.classes - 1}", bad, values)

    def starting_baseline(self, values: Tensor, mask: Tensor) -> Tensor:
        seen = F.one_hot(values.long(), self.classes) * mask.unsqueeze(-1)
        counts = seen.flatten(0, -3).sum(0) + 0.5
        return (counts / counts.sum(-1, keepdim=True)).log().flatten().to(values.dtype)

    @property
    def encoder_input(self) -> EncoderInput:
        return EncoderInput(self.head.channels, self.classes)

    @property
    def history_channels(self) -> int:
        return self.head.channels * self.classes

    def encode_history(self, values: Tensor, mask: Tensor | None) -> Tensor:
        encoded = F.one_hot(values.long(), self.classes).to(values.dtype)
        if mask is not None:
            encoded = encoded * mask.unsqueeze(-1)
        return encoded.flatten(-2)


class Codes(dist.Categorical):
    """A categorical distribution whose samples have the data's floating type, so that they can be fed back."""

    def sample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008
        return super().sample(sample_shape).to(self.logits.dtype)
