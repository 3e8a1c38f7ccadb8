"""What the whole sequence of covariates says about each step: for labelling offline."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from latentrnn.data import DataSpec, SequenceData
from latentrnn.models.features.feature import CovariateReader, Feature, listed
from latentrnn.models.scans import run_directions
from latentrnn.support.arguments import check_size


class BidirectionalRNN(Feature):
    """x_t = [GRU(s_1, ..., s_t), GRU(s_T, ..., s_t)]: a GRU over the covariates in either direction.

    Every step sees the whole sequence, so the model can label a recording but not follow it: one-step-ahead densities
    are refused, and `LatentRNN.latency` is infinite.

    Args:
        covariates: names of covariates, or features, that go in side by side.
        hidden_size: hidden units per direction.
        layers: stacked layers per direction.

    Raises:
        ValueError: a size below one, or no covariate.

    References:
        Schuster, Paliwal. Bidirectional recurrent neural networks. 1997.
    """

    lookahead = math.inf

    def __init__(
        self,
        covariates: str | Feature | Sequence[str | Feature],
        hidden_size: int,
        *,
        layers: int = 1,
        **shared: Any,
    ) -> None:
        super().__init__(**shared)
        self.covariates = listed("BidirectionalRNN", "covariates", covariates)
        self.hidden_size = check_size("BidirectionalRNN", "hidden_size", hidden_size)
        self.layers = check_size("BidirectionalRNN", "layers", layers)

    def build(self, owner: str, spec: DataSpec) -> None:
        self.reader = CovariateReader(owner, self.covariates, spec)
        self.size = 2 * self.hidden_size
        self.forwards, self.backwards = (
            nn.GRU(self.reader.size, self.hidden_size, self.layers, batch_first=True) for _ in range(2)
        )

    def forward(self, data: SequenceData) -> Tensor:
        inputs = self.reader(data)
        return run_directions(self.forwards, self.backwards, inputs, data.lengths if data.padded else None)[0]
