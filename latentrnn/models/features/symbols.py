"""Covariates that hold symbols: bases, words, keys, speakers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from latentrnn.data import DataSpec, SequenceData
from latentrnn.models.features.feature import Feature, find
from latentrnn.support.arguments import check_size, check_text
from latentrnn.support.shown import first_entry


class Symbols(Feature):
    """A feature of symbols: of each feature of a covariate of codes 0 to symbols - 1.

    Attributes:
        stand_in: weights of the symbols, (sequence, time, feature, symbol), that stand in for the codes while they are
            set: one-hot codes themselves, or what lies between them, where derivatives are asked for.
    """

    covariate: str
    symbols: int
    stand_in: Tensor | None = None

    def check(self, data: SequenceData) -> None:
        check_codes(type(self).__name__, self.covariate, self.symbols, data)

    def coding(self, data: SequenceData) -> Tensor:
        """Return the codes one-hot, (sequence, time, feature, symbol), or what stands in for them."""
        if self.stand_in is not None:
            return self.stand_in
        codes = data.covariates[self.covariate]
        symbols = torch.arange(self.symbols, dtype=codes.dtype, device=codes.device)
        return (codes.unsqueeze(-1) == symbols).to(codes.dtype)


class OneHot(Symbols):
    """x_t = e_{s_t}: one channel per symbol, for each feature of a covariate of codes 0 to symbols - 1.

    Args:
        covariate: the covariate's name.
        symbols: number of symbols.

    Raises:
        ValueError: fewer than one symbol, or, when data are checked, a code outside the range.
    """

    def __init__(self, covariate: str, symbols: int) -> None:
        super().__init__()
        self.covariate = check_text("OneHot", "covariate", covariate)
        self.symbols = check_size("OneHot", "symbols", symbols)

    def build(self, owner: str, spec: DataSpec) -> None:
        self.size = find(owner, self.covariate, spec).features * self.symbols

    def forward(self, data: SequenceData) -> Tensor:
        return self.coding(data).flatten(-2)


class Embedding(Symbols):
    """x_t = E[s_t]: a learned vector for each symbol, for each feature of a covariate of codes 0 to symbols - 1.

    Args:
        covariate: the covariate's name.
        symbols: number of symbols.
        dim: channels of a vector.

    Raises:
        ValueError: a size below one, or, when data are checked, a code outside the range.

    References:
        Bengio, Ducharme, Vincent, Jauvin. A neural probabilistic language model. 2003.
    """

    def __init__(self, covariate: str, symbols: int, dim: int, **shared: Any) -> None:
        super().__init__(**shared)
        self.covariate = check_text("Embedding", "covariate", covariate)
        self.symbols = check_size("Embedding", "symbols", symbols)
        self.dim = check_size("Embedding", "dim", dim)

    def build(self, owner: str, spec: DataSpec) -> None:
        features = find(owner, self.covariate, spec).features
        self.size = features * self.dim
        self.vectors = nn.Embedding(self.symbols, self.dim)

    def forward(self, data: SequenceData) -> Tensor:
        if self.stand_in is not None:
            return (self.stand_in @ self.vectors.weight).flatten(-2)
        codes = data.covariates[self.covariate].long()
        codes = torch.where(data.valid.unsqueeze(-1), codes, 0) if data.padded else codes
        return self.vectors(codes).flatten(-2)


def check_codes(owner: str, covariate: str, symbols: int, data: SequenceData) -> None:
    """Raise where a covariate holds anything but codes.

    Raises:
        ValueError: naming the first such entry.
    """
    codes = data.covariates[covariate]
    bad = data.valid.unsqueeze(-1) & ((codes < 0) | (codes >= symbols) | (codes != codes.floor()))
    if bool(bad.any()):
        index, place = first_entry(bad, ("sequence", "step", "feature"))
        raise ValueError(
            f"covariates[{covariate!r}]: {owner} needs integer codes from 0 to {symbols - 1}; found "
            f"{float(codes[index])} at {place}"
        )
