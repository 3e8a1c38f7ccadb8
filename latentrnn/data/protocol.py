"""What fits and posteriors ask of sequences, in memory or in files."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from latentrnn.data.metadata import Metadata
from latentrnn.data.sequence_data import SequenceData
from latentrnn.data.spec import DataSpec, SequenceKey


class Sequences(Protocol):
    """Sequences that are handed out batch by batch: a `SequenceData`, or `StoredSequences` that are read meanwhile."""

    @property
    def in_memory(self) -> bool:
        """Whether all tensors are there."""

    @property
    def spec(self) -> DataSpec:
        """Heads, covariates, units."""

    @property
    def keys(self) -> tuple[SequenceKey, ...]:
        """Identity of each sequence by content."""

    @property
    def names(self) -> tuple[str, ...]:
        """Name of each sequence."""

    @property
    def metadata(self) -> Metadata:
        """What else is known of each sequence, (sequence,) by name."""

    @property
    def total(self) -> int:
        """Sequences that these stand for, all of the plate."""

    @property
    def num_sequences(self) -> int:
        """Sequences held here."""

    @property
    def num_steps(self) -> int:
        """Base steps of the longest sequence."""

    @property
    def lengths(self) -> Tensor:
        """Base steps of each sequence."""

    @property
    def host_lengths(self) -> NDArray[np.int64]:
        """`lengths` as numpy."""

    @property
    def host_context(self) -> NDArray[np.int64]:
        """Leading base steps of each sequence that are not scored."""

    @property
    def padded(self) -> bool:
        """Whether any sequence is shorter than `num_steps`."""

    @property
    def dtype(self) -> torch.dtype:
        """Floating type of observations and covariates."""

    @property
    def device(self) -> torch.device:
        """Where batches lie."""

    def __len__(self) -> int: ...

    def __getitem__(self, item: Any) -> Any:
        """Some of the sequences, a plate of their own."""

    def batch(self, indices: Tensor, *, padded_as: Tensor | None = None, total: int | None = None) -> Any:
        """A sub-sample of the plate; of sequences in files that are read window by window, one that is not read yet."""

    def time_slice(self, start: int, stop: int) -> SequenceData:
        """Base steps `start` to `stop - 1` of every sequence, in memory."""

    def in_windows(self) -> Any:
        """The same sequences, of whose batches windows are taken."""

    def load(self) -> SequenceData:
        """All of these sequences in memory."""

    def load_batch(self) -> SequenceData:
        """These sequences in memory, as the batch of a plate that they are."""

    def for_start(self) -> SequenceData:
        """What starting values of a fit come from: all sequences, or parts from everywhere."""

    def through(self, *, whole: bool = False) -> Iterator[tuple[SequenceData, int, int]]:
        """Everything, some sequences at a time, with the first of them and its first base step.

        Args:
            whole: whether long sequences come whole instead of stretch by stretch.
        """

    def small(self, count: int) -> bool:
        """Whether so many sequences, or all where there are fewer, may be read at once."""

    def expect(
        self, indices: Tensor | None = None, start: int = 0, stop: int | None = None, *, total: int | None = None
    ) -> None:
        """Say what will be asked for next, a batch or a stretch of all, so that it can be read meanwhile."""

    def close(self) -> None:
        """End what reads ahead."""

    def overlaps(self, other: Any) -> int:
        """How many sequences score a step that `other` scores too."""

    def to(self, device: Any) -> Any:
        """The same sequences, whose batches lie on another device."""
