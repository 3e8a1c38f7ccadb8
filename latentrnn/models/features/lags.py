"""Windows of a covariate around the present step."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from latentrnn.data import DataSpec, SequenceData
from latentrnn.models.features.feature import Feature, Identity, inside
from latentrnn.support.arguments import LARGEST_SIZE, check_integer, check_size, check_text


class Lags(Feature):
    """A covariate with its own past, and its future if asked: [s_{t+future}, ..., s_t, ..., s_{t-steps+1}].

    Zero (standardised) before the start and past the end. A window with a future must be buffered online: its latency
    is `future` steps, which `LatentRNN.latency` reports in seconds.

    Args:
        covariate: the covariate's name.
        steps: number of steps in the window up to the present one, which is included.
        future: number of steps after the present one.

    Raises:
        ValueError: fewer than one step, or a negative future.
    """

    def __init__(self, covariate: str, steps: int, *, future: int = 0) -> None:
        super().__init__()
        self.covariate = check_text("Lags", "covariate", covariate)
        self.steps = check_size("Lags", "steps", steps)
        self.future = self.lookahead = check_integer("Lags", "future", future, most=LARGEST_SIZE)
        self.memory = self.steps - 1

    def build(self, owner: str, spec: DataSpec) -> None:
        self.read = Identity(self.covariate)
        self.read.build(owner, spec)
        self.size = self.read.size * (self.steps + self.future)

    def channel_units(self) -> tuple[Tensor, Tensor]:
        return self._of_each_lag(*self.read.channel_units())

    def given_units(self) -> tuple[Tensor, Tensor]:
        return self._of_each_lag(*self.read.given_units())

    def _of_each_lag(self, location: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        return location.repeat(self.steps + self.future), scale.repeat(self.steps + self.future)

    def forward(self, data: SequenceData) -> Tensor:
        values = self.read(data)
        if self.future:
            values = F.pad(inside(values, data), (0, 0, 0, self.future))
        return lagged(values, self.steps + self.future)[..., self.future :, :]


def lagged(values: Tensor, steps: int) -> Tensor:
    """Return [x_t, ..., x_{t-steps+1}], (..., time, channel * steps), lag by lag, from (..., time, channel)."""
    if steps == 1:
        return values
    return F.pad(values, (0, 0, steps - 1, 0)).unfold(-2, steps, 1).flip(-1).mT.flatten(-2)
