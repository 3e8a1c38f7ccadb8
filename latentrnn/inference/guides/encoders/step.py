"""A network of each step by itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
from torch import nn

from latentrnn.data import DataSpec, SequenceData
from latentrnn.inference.guides.encoders.encoder import Encoding
from latentrnn.inference.guides.encoders.reading import ReadingEncoder
from latentrnn.models.observations import EncoderInput
from latentrnn.support.arguments import check_list, check_size


class StepEncoder(ReadingEncoder):
    """What each step shows by itself, through a network of its own: features of step t see y_t alone.

    With `GaussianChain`, which carries what is seen along time, this is all that a linear-Gaussian model needs; with
    other families a step is then inferred from itself. The summary is the mean over steps.

    Args:
        hidden_sizes: widths of hidden layers with tanh; none passes the inputs on as they are.
        observes: heads that it is shown; by default every per-step head of the model.
        mask_input: whether masks are an input; None decides by the data's spec (True where entries are missing).
        gap_input: whether the time since the step before is an input; None decides by the data's spec (True where steps
            have times of their own).
        read_in: see `RNNEncoder`.

    Raises:
        ValueError: an unknown head, a per-sequence head, or a size below one.

    References:
        Johnson, Duvenaud, Wiltschko, Datta, Adams. Composing graphical models with neural networks for structured
        representations and fast inference. 2016.
    """

    continues = True

    def __init__(
        self,
        hidden_sizes: Sequence[int] = (),
        *,
        observes: Sequence[str] | None = None,
        mask_input: bool | None = None,
        gap_input: bool | None = None,
        read_in: int | None = None,
    ) -> None:
        super().__init__()
        sizes = check_list("StepEncoder", "hidden_sizes", hidden_sizes, "positive integers")
        self.hidden_sizes = [check_size("StepEncoder", "hidden_sizes", size) for size in sizes]
        self._set(observes, mask_input, read_in, gap_input)

    def build(self, spec: DataSpec, heads: Mapping[str, EncoderInput]) -> None:
        sizes = [self._read(spec, heads), *self.hidden_sizes]
        layers: list[nn.Module] = []
        for before, after in pairwise(sizes):
            layers += [nn.Linear(before, after), nn.Tanh()]
        self.network = nn.Sequential(*layers)
        self.step_size = self.summary_size = sizes[-1]

    def forward(self, data: SequenceData) -> Encoding:
        steps = self.network(self.inputs(data))
        total = torch.where(data.valid.unsqueeze(-1), steps, 0.0).sum(1)
        return Encoding(steps, total / data.lengths.clamp_min(1).unsqueeze(-1))
