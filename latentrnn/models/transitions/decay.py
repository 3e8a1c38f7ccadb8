"""A state that fades between observations, around any transition."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from latentrnn.models.features.feature import Feature
from latentrnn.models.transitions.continuous_time import Fading, check_times
from latentrnn.models.transitions.transition import Transition
from latentrnn.support.arguments import check_flag


class Decay(Fading):
    """s_t = transition(r_t * s_{t-1}, a_t), r_t = exp(-gap_t / tau): what was known fades with the time that passes.

    For irregular steps, with any transition: `GRU`, `LSTM` (hidden and cell state fade), `Linear`, `Streams`. Before
    each step every number of the state goes towards zero, the state that knows nothing, by its own time constant; at a
    sequence's first step no time has passed. On a regular clock the gap is `dt` throughout. `Gap` tells the transition
    the time too, where it should do more than fade. Recorded: "decay" r_t, besides what the transition records.

    Args:
        transition: the transition that follows the fading.
        tau: time constants in seconds (steps where the data have no clock), one number or one for each number of the
            state; None spreads them evenly in log time from 10 to 100 steps (median gaps of the training data).
        learned: whether tau is learned, from there, or fixed.

    Raises:
        ValueError: time constants that are not positive or not one for each number of the state.
        TypeError: something that is not a `Transition`.

    Example:
        >>> import latentrnn as lr
        >>> lr.Decay(lr.LSTM(8)).state_size
        16

    References:
        Che, Purushotham, Cho, Sontag, Liu. Recurrent neural networks for multivariate time series with missing values.
        2018.
        Mozer, Kazakov, Lindsey. Discrete event, continuous time RNNs. 2017.
    """

    fastest, slowest = 10.0, 100.0

    def __init__(
        self,
        transition: Transition,
        tau: float | Sequence[float] | None = None,
        *,
        learned: bool = True,
        **shared: Any,
    ) -> None:
        super().__init__(**shared)
        if not isinstance(transition, Transition):
            raise TypeError(f"Decay: transition must be a Transition; found {type(transition).__name__}")
        self.transition = transition.fresh()
        self.state_size, self.hidden_size = transition.state_size, transition.hidden_size
        self.given_weights, self.input_units = transition.given_weights, transition.input_units
        self.is_network = transition.is_network
        self.tau, self.learned = check_times("Decay", tau, self.state_size), check_flag("Decay", "learned", learned)

    def build(self, input_size: int) -> None:
        inner = self.transition
        inner.dt, inner.own_sizes = self.dt, self.own_sizes
        inner.build(input_size - 1 + int(inner.timed))
        self.build_time_constants(self.state_size)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Return to the starting time constants; the transition resets itself."""
        self.reset_time_constants()

    @property
    def by_rows(self) -> bool:
        return super().by_rows and self.transition.by_rows

    @property
    def unrolls(self) -> bool:
        return super().unrolls and self.transition.unrolls

    @property
    def parts(self) -> dict[str, slice]:
        return self.transition.parts

    @property
    def own_inputs(self) -> list[str | Feature]:
        return self.transition.own_inputs

    def output(self, state: Tensor) -> Tensor:
        return self.transition.output(state)

    def named_states(self, state: Tensor) -> dict[str, Tensor]:
        return self.transition.named_states(state)

    def kept_share(self, gates: Mapping[str, Tensor]) -> Tensor | None:
        faded = self.named_states(gates["decay"])
        if "hidden" not in faded:  # of several layers, which have no share in common
            return None
        inner = self.transition.kept_share(gates)
        return faded["hidden"] if inner is None else faded.get("cell", faded["hidden"]) * inner

    def step(self, state: Tensor, inputs: Tensor) -> Tensor:
        decay = self.gate("decay", torch.exp(-inputs[..., :1] / self.log_time_constant.exp()))
        with self.inner_gates(self.transition):
            return self.transition.step(decay * state, inputs if self.transition.timed else inputs[..., 1:])
