"""What a head needs of a batch besides the states."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from latentrnn.models.readouts import Surroundings

# what has an axis for time, and where it is: counted from the last, since draws of parameters lead with further axes
ALONG_TIME: Mapping[str, int] = MappingProxyType(
    {"mask": -2, "stimulus": -2, "covariates": -2, "totals": -1, "counted": -2, "log_exposure": -2, "known": -3}
)


class HeadInputs(NamedTuple):
    """What a head needs besides the state, for all its frames: tensors (sequence, time, ...), None where nothing."""

    mask: Tensor | None = None  # which entries count, (sequence, time, channel) or (sequence, channel)
    partial: bool = False  # some channels of a step may be missing while others are observed
    stimulus: Any = None
    covariates: Any = None
    totals: Any = None  # of the channels of every step, (sequence, time), of families whose channels share one
    surroundings: Surroundings = Surroundings()  # what the readout needs
    constant: tuple[Tensor, Tensor] | None = None  # of some values, (sequence,): what no state changes in their density
    counted: Any = None  # the channels that a step's total is of, (sequence, time, channel); None for all
    known: Any = None  # tensors of the family's parameters that covariates tell, (sequence, time, parameter, channel)
    running: Tensor | None = None  # steps before a sequence has ended, of heads that join them; None for all
    log_exposure: Any = None  # log of what a count's mean is multiplied by, (sequence, time, channel or one)

    def _along_time(self) -> dict[str, Any]:
        return {name: value for name in ALONG_TIME if (value := getattr(self, name)) is not None}

    def at(self, t: int, past: Tensor | None = None) -> HeadInputs:
        """Return the inputs of one frame, with a time axis of length one.

        Args:
            t: the frame.
            past: earlier states that the readout remembers, (*sample, sequence, earlier, hidden_size).
        """
        surroundings = self.surroundings.at(t)._replace(past=past)
        frame = {name: _frame(value, ALONG_TIME[name], t) for name, value in self._along_time().items()}
        return self._replace(surroundings=surroundings, constant=None, **frame)

    def split(self, frames: int, values: Tensor) -> list[HeadInputs]:
        """Return the inputs of consecutive stretches of this many frames; `values` are the head's, split too."""
        pieces = values.split(frames, -2)
        parts = {name: value.split(frames, ALONG_TIME[name]) for name, value in self._along_time().items()}
        surroundings = self.surroundings.split(frames, len(pieces))
        constants = self._constants(values, pieces)
        return [
            self._replace(surroundings=around, constant=constant, **{name: part[k] for name, part in parts.items()})
            for k, (around, constant) in enumerate(zip(surroundings, constants, strict=True))
        ]

    def _constants(self, values: Tensor, pieces: tuple[Tensor, ...]) -> list[tuple[Tensor, Tensor] | None]:
        """Return the constant of each stretch: all of it goes with the first."""
        if self.constant is None or values is not self.constant[0]:
            return [None] * len(pieces)
        whole, none = self.constant[1], torch.zeros_like(self.constant[1])
        return [(piece, none if k else whole) for k, piece in enumerate(pieces)]


def _frame(value: Tensor, axis: int, t: int) -> Any:
    """Return one frame with its axis, which is empty where there is no such frame."""
    place: Any = (..., slice(t, t + 1), *[slice(None)] * (-axis - 1))
    return value[place]
