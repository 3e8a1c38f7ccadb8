"""Encoder-decoder attention: a readout that asks a whole source sequence at every step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from latentrnn.data import DataSpec, SequenceData
from latentrnn.models.features import CovariateReader, Feature, listed
from latentrnn.models.features.feature import find
from latentrnn.models.readouts.attention import AttentionReadout, check_heads
from latentrnn.models.readouts.dot_product import Asked
from latentrnn.models.readouts.readout import Surroundings
from latentrnn.models.scans import run_directions
from latentrnn.support.arguments import check_size, check_text
from latentrnn.support.shown import first_entry


class SourceAttention(AttentionReadout):
    """eta_t = W h_t + U c_t + b,  c_t = sum_s alpha_ts V e_s,  alpha_t = softmax_s(q_t . k_s / sqrt(size/heads)).

        e_s = [GRU(x_1, ..., x_s), GRU(x_S, ..., x_s)]: the source x read in both directions
        q_t = Q h_t,  k_s = K e_s

    Sequence to sequence: the model's states are the decoder, a source sequence of covariates is what they translate.
    All of it is visible at every step, so that `LatentRNN.latency` is infinite and one-step-ahead densities are
    refused.

    The source is given on the time axis of the sequence, whose length is that of the longer of the two. Where the
    source is shorter, `valid` says which steps it has (they need not be adjacent; what the covariates hold elsewhere
    is not read, unless by a feature that looks around); where the observations are, they are NaN. A sequence without
    any source step has c_t = 0. By default covariates drive the transition too: list those that should in
    `LatentRNN(inputs=...)`. Windows of a sequence see their own stretch of the source alone.

    Args:
        source: the source: covariates (names, or features such as `Embedding`).
        size: channels of queries, keys and values, all heads together.
        heads: attention heads, a divisor of `size`.
        hidden_size: hidden units of the source's GRU, per direction.
        valid: name of a covariate of one feature, 1 where there is a step of the source and 0 elsewhere; None where
            every step of the sequence is one.

    Raises:
        ValueError: a size below one, or one that the heads do not divide, no source, or a `valid` that is not one.

    References:
        Bahdanau, Cho, Bengio. Neural machine translation by jointly learning to align and translate. 2015.
        Luong, Pham, Manning. Effective approaches to attention-based neural machine translation. 2015.
    """

    lookahead = math.inf

    def __init__(
        self,
        source: str | Feature | Sequence[str | Feature],
        size: int = 32,
        *,
        heads: int = 1,
        hidden_size: int = 16,
        valid: str | None = None,
        **shared: Any,
    ) -> None:
        super().__init__(**shared)
        self.source = listed("SourceAttention", "source", source)
        self.size, self.heads = check_heads("SourceAttention", size, heads)
        self.hidden_size = check_size("SourceAttention", "hidden_size", hidden_size)
        self.valid = None if valid is None else check_text("SourceAttention", "valid", valid)

    def build(self, hidden_size: int, outputs: int, spec: DataSpec) -> None:
        self.reader = CovariateReader("SourceAttention", self.source, spec)
        if self.valid is not None and (found := find("SourceAttention: valid", self.valid, spec).features) != 1:
            raise ValueError(f"SourceAttention: valid must be a covariate of one feature; {self.valid!r} has {found}")
        self.forwards, self.backwards = (nn.GRU(self.reader.size, self.hidden_size, batch_first=True) for _ in range(2))
        self._build(hidden_size, 2 * self.hidden_size, outputs, self.heads)
        self.reset_parameters()

    def check(self, data: SequenceData) -> None:
        if self.valid is None:
            return
        values = data.covariates[self.valid][..., 0]
        bad = data.valid & (values != 0) & (values != 1)
        if bool(bad.any()):
            index, place = first_entry(bad, ("sequence", "step"))
            raise ValueError(
                f"SourceAttention: covariates[{self.valid!r}] must be 1 where there is a step of the source and 0 "
                f"elsewhere; found {float(values[index])} at {place}"
            )

    def surroundings(self, data: SequenceData) -> Surroundings:
        x, valid, order = self.reader(data), data.valid, None
        if self.valid is not None:
            there = valid & (data.covariates[self.valid][..., 0] > 0.5)
            # the steps of the source first, in their order, so that either direction starts at one
            order = (~there).to(torch.uint8).argsort(dim=1, stable=True)
            x, valid = x.gather(1, order.unsqueeze(-1).expand_as(x)), there.gather(1, order)
        lengths = valid.sum(1)
        source, _ = run_directions(self.forwards, self.backwards, x, lengths)
        source = torch.where(valid.unsqueeze(-1), source, 0.0)
        if order is not None:
            where = order.argsort(1)
            source, valid = source.gather(1, where.unsqueeze(-1).expand_as(source)), there
        return Surroundings(source=source, source_valid=valid)

    def _asked(self, states: Tensor, surroundings: Surroundings) -> Asked:
        assert surroundings.source is not None
        return Asked(states, surroundings.source, valid=surroundings.source_valid)

    def attention_weights(self, states: Tensor, data: SequenceData) -> Tensor:
        """Return alpha, (..., head, time, source time), of states (..., time, hidden_size) and their batch."""
        return self.weights(states, self.surroundings(data))
