"""What transitions that know the time share: the scale of a vector field, and time constants of numbers that fade."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from latentrnn.data import SequenceData
from latentrnn.models.features.gap import median_gap
from latentrnn.models.parameters.parameter_spec import TIME, ParameterSpec
from latentrnn.models.transitions.transition import Transition
from latentrnn.support.arguments import as_plain, is_number
from latentrnn.support.clock import step_length


class TimeScaled(Transition):
    """A transition that moves by its field in `time_scale`: as given, or else ten steps (ten median gaps)."""

    timed = True
    added_later = ("gap_unit",)
    time_scale: float | None
    gap_unit: Tensor

    def build_time_scale(self) -> None:
        """Create what remembers the median gap of the training data."""
        self.register_buffer("gap_unit", torch.ones(()))

    def initialise(self, data: SequenceData) -> None:
        """Take the median gap of irregular steps as the unit of ten of which the time scale is made."""
        if (gap := median_gap(data)) is not None:
            self.gap_unit.fill_(gap)

    def time_unit(self) -> float | Tensor:
        """Return the time scale in seconds, or in steps where the data have no clock."""
        if self.time_scale is not None:
            return self.time_scale
        return 10.0 * (self.gap_unit if self.dt is None else self.dt)


class Fading(Transition):
    """A transition of which numbers of the state fade, each with a time constant of its own, learned or fixed."""

    declared: ClassVar = {"time_constant": ParameterSpec.positive("log_time_constant", unit=TIME, dims=("unit",))}

    timed = True
    fastest: ClassVar[float]  # steps (median gaps), between which time constants start
    slowest: ClassVar[float]
    tau: float | list[float] | None
    learned: bool

    def build_time_constants(self, size: int) -> None:
        """Create `log_time_constant`, (size,)."""
        start = torch.empty(size)
        if self.learned:
            self.log_time_constant = nn.Parameter(start)
        else:
            self.register_buffer("log_time_constant", start)

    def reset_time_constants(self) -> None:
        """Return to those that were given, or to a spread over multiples of a step."""
        if self.tau is None:
            self._spread(step_length(self.dt))
        else:
            with torch.no_grad():
                tau = torch.as_tensor(self.tau, dtype=torch.float64)
                self.log_time_constant.copy_(tau.log().expand_as(self.log_time_constant))

    def initialise(self, data: SequenceData) -> None:
        """Spread the time constants over multiples of the median gap that irregular steps have."""
        gap = median_gap(data)
        if self.tau is None and gap is not None:
            self._spread(gap)

    def _spread(self, unit: float) -> None:
        powers = torch.linspace(0, 1, len(self.log_time_constant), dtype=torch.float64)
        with torch.no_grad():
            self.log_time_constant.copy_((unit * self.fastest * (self.slowest / self.fastest) ** powers).log())

    @property
    def time_constant(self) -> Tensor:
        """tau as it is now, one for each number that fades: in seconds with `dt` or times, otherwise in steps."""
        return self.log_time_constant.exp().detach()


def check_times(owner: str, value: float | Sequence[float] | None, size: int) -> float | list[float] | None:
    """Return time constants as a number or a list of them.

    Raises:
        ValueError: one is not positive and finite, or they are neither one nor `size`.
    """
    if value is None:
        return None
    given = as_plain(value)
    times = given if isinstance(given, list | tuple) else [given]
    wrong = times is given and len(times) != size
    if wrong or not all(is_number(time) and 0 < time < math.inf for time in times):
        raise ValueError(f"{owner}: tau must be a positive number or {size} of them, one per unit; found {value!r}")
    return [float(time) for time in times] if times is given else float(given)


def check_time_scale(owner: str, value: float | None) -> float | None:
    """Return `value`.

    Raises:
        ValueError: it is neither None nor a positive number.
    """
    if value is None:
        return None
    if not is_number(value) or not 0 < value < math.inf:
        raise ValueError(f"{owner}: time_scale must be a positive number of seconds, or None; found {value!r}")
    return float(value)
