"""Learned filters along time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from latentrnn.data import DataSpec, SequenceData
from latentrnn.models.features.feature import CovariateReader, Feature, inside, listed
from latentrnn.support.arguments import check_choice, check_flag, check_list, check_size, is_integer

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "tanh": nn.Tanh, "silu": nn.SiLU, "none": nn.Identity}


class Convolution(Feature):
    """x_t = f(b + sum_l W_l s_{t - dilation l}), l = 0..width-1: a bank of filters for every width and dilation.

    There is no pooling: every step keeps its own features. Steps before the start count as zero (standardised).

    Args:
        covariates: names of covariates, or features, that go in side by side.
        filters: filters of each bank.
        widths: taps of a filter.
        dilations: steps between taps.
        causal: whether filters see s_{<=t} only. If not they are centred on t, which costs (width - 1) // 2 * dilation
            steps of latency; see `LatentRNN.latency`.
        activation: f: "relu", "tanh", "silu" or "none".

    Raises:
        ValueError: a size below one, an unknown activation, or no covariate.

    References:
        van den Oord, Dieleman, Zen, Simonyan, Vinyals, Graves, Kalchbrenner, Senior, Kavukcuoglu. WaveNet: a
        generative model for raw audio. 2016.
    """

    def __init__(
        self,
        covariates: str | Feature | Sequence[str | Feature],
        filters: int = 8,
        *,
        widths: int | Sequence[int] = (5,),
        dilations: int | Sequence[int] = (1,),
        causal: bool = True,
        activation: str = "relu",
        **shared: Any,
    ) -> None:
        super().__init__(**shared)
        self.covariates = listed("Convolution", "covariates", covariates)
        self.filters = check_size("Convolution", "filters", filters)
        self.widths, self.dilations = _sizes("widths", widths), _sizes("dilations", dilations)
        self.causal = check_flag("Convolution", "causal", causal)
        self.activation = check_choice("Convolution", "activation", activation, ACTIVATIONS)
        self._banks = [(width, dilation) for width in self.widths for dilation in self.dilations]

    def build(self, owner: str, spec: DataSpec) -> None:
        self.reader = CovariateReader(owner, self.covariates, spec)
        self.size = self.filters * len(self._banks)
        self.banks = nn.ModuleList(
            nn.Conv1d(self.reader.size, self.filters, width, dilation=dilation) for width, dilation in self._banks
        )
        self.nonlinearity = ACTIVATIONS[self.activation]()
        self.lookahead = self.reader.lookahead + max(self._ahead(*bank) for bank in self._banks)
        self.memory = self.reader.memory + max((w - 1) * d - self._ahead(w, d) for w, d in self._banks)

    def _ahead(self, width: int, dilation: int) -> int:
        return 0 if self.causal else (width - 1) // 2 * dilation

    def forward(self, data: SequenceData) -> Tensor:
        signal = inside(self.reader(data), data).mT
        parts = []
        for bank, (width, dilation) in zip(self.banks, self._banks, strict=True):
            ahead = self._ahead(width, dilation)
            parts.append(bank(F.pad(signal, ((width - 1) * dilation - ahead, ahead))))
        return self.nonlinearity(torch.cat(parts, -2).mT)


def _sizes(argument: str, values: int | Sequence[int]) -> tuple[int, ...]:
    sizes = [values] if is_integer(values) else check_list("Convolution", argument, values, "positive integers")
    if not sizes:
        raise ValueError(f"Convolution: {argument} must hold at least one number")
    return tuple(check_size("Convolution", argument, size) for size in sizes)
