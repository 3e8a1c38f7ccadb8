"""What an encoder is: from what was observed to features of every step."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor

from latentrnn.data import DataSpec, SequenceData
from latentrnn.models.component import Component
from latentrnn.models.observations import EncoderInput


class Encoding(NamedTuple):
    """What an encoder returns.

    Attributes:
        steps: features of every step, (sequence, time, step_size).
        summary: features of the sequence as a whole, for its initial state, (sequence, summary_size).
    """

    steps: Tensor
    summary: Tensor


class Encoder(Component):
    """Summarises observations and covariates; `observes` says which heads it is shown, and it sees no other."""

    step_size: int
    summary_size: int
    observes: list[str] | None
    visible: list[str]  # the heads that it sees, once built
    continues = False  # whether `forward` goes on from the window before, where the data are one of longer sequences
    lookahead = 0  # steps after a window that it needs to see
    max_elements: int | None = None  # numbers of what it is shown that a read-in may hold at once; None for all

    @abstractmethod
    def build(self, spec: DataSpec, heads: Mapping[str, EncoderInput]) -> None:
        """Create the parameters for the heads of a model, given how each is shown; a per-sequence head never is."""

    @abstractmethod
    def forward(self, data: SequenceData) -> Encoding:
        """Encode a batch."""

    def start_streaming(self) -> dict[str, bool]:
        """Get ready for `advance`: frames of slow heads come at the step at which they are known.

        Returns:
            By head that it sees, whether it can be told that entries are missing.
        """
        return {}

    def advance(self, data: SequenceData, memory: Tensor | None) -> tuple[Encoding, Tensor | None]:
        """Encode the last step of `data` alone, given what is remembered of the steps before; for online filters.

        Args:
            data: the step, after as many as the features of covariates look back.
            memory: what the step before returned, None at the first.

        Returns:
            Features of this step, (sequence, 1, step_size), with those for the initial state; and the new memory.

        Raises:
            ValueError: this encoder sees later steps.
        """
        raise ValueError(f"{type(self).__name__} cannot encode step by step; use RNNEncoder(direction='causal')")

    def initialise(self, data: SequenceData) -> None:
        """Take what scales it needs from the training data."""
