"""The learned map from the previous state and the present input to the present state."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import Tensor

from latentrnn.data import SequenceData
from latentrnn.models.component import Component
from latentrnn.models.features.feature import Feature
from latentrnn.models.scans import unrolled_scan
from latentrnn.support.arguments import check_size as check_size  # where it was, and where users' own parts find it

GateHandler = Callable[[str, Tensor], Tensor]


class Recording(NamedTuple):
    """A run of a transition with its gates.

    Attributes:
        outputs: h_{1:T}, (..., time, hidden_size).
        state: the last state, (..., state_size).
        gates: name to (..., time, size); layers lie side by side, the first layer first.
    """

    outputs: Tensor
    state: Tensor
    gates: dict[str, Tensor]


class Transition(Component):
    """h_t = transition(s_{t-1}, a_t).

    The state `s` is one tensor `(..., state_size)` (for an LSTM both hidden and cell state, for stacked layers all
    of them); `output` picks the part that readouts see. A new transition sets `state_size` and `hidden_size` in its
    `__init__`, makes its parameters in `build`, and writes `step`; `scan` and `record` come for free. What `step`
    passes through `self.gate("name", value)` is recorded by name and can be clamped. What one row becomes must not
    depend on which others come along, nor on random numbers, or `by_rows` must say that it does.

    Where the class says `timed = True`, the first channel of a_t is the time since the step before, in seconds (in
    steps where the data have no clock): `dt` throughout, or, with irregular times, zero at a sequence's first step.
    Where `given_weights` is not zero, so many last channels of a_t are the weights of the latent's switch.

    A fit can take units of the covariates from its training data, so that weights need not be as small as a covariate
    is large. Where the class says `input_units = "standard"` they come centred and divided by their spread, with
    "scaled" divided by their size (for a class in which a bias cannot make up for the centre), and with "data", the
    default, as they are: for equations that know what is meant.

    A transition that is put together from others (`Streams`) names what drives them in `own_inputs` and where each
    lies in h_t in `parts`.
    """

    state_size: int
    hidden_size: int
    input_units = "data"  # what covariates are divided by before they come in: see `Feature.take_units`
    timed = False  # whether a_t begins with the time since the last step
    given_weights = 0  # last channels of a_t that must be the weights of a latent's switch
    contents: Sequence[str] = ("candidate",)  # recorded gates that are what is let in, and not how much of it
    has_draws = False  # whether it stands for many draws of its parameters, whose axis is in front of the plate's
    dt: float | None = None  # seconds per step, None for unit or irregular steps; known before `build`
    own_sizes: Sequence[int] = ()  # channels of each of `own_inputs`, which come first (after the time); as `dt`
    input_shares: Mapping[str, int] = MappingProxyType(
        {}
    )  # what a_t is put together from within a model, with channels, in order
    _handler: GateHandler | None = None

    @abstractmethod
    def build(self, input_size: int) -> None:
        """Create the parameters for inputs of `input_size` channels."""

    def initialise(self, data: SequenceData) -> None:
        """Take what start there is to take from the training data; `fit` calls it after `reset_parameters`."""

    @abstractmethod
    def step(self, state: Tensor, inputs: Tensor) -> Tensor:
        """Return the next state.

        Args:
            state: s_{t-1}, (..., state_size).
            inputs: a_t, (..., input_size), with the same leading axes.

        Returns:
            s_t, (..., state_size).
        """

    def output(self, state: Tensor) -> Tensor:
        """Return h_t, (..., hidden_size), of a state (..., state_size)."""
        return state

    def named_states(self, state: Tensor) -> dict[str, Tensor]:
        """Return the parts of a state by name, (..., size) each: "hidden", h_t, and "state", all if that is more.

        Args:
            state: (..., state_size).
        """
        hidden = {"hidden": self.output(state)}
        return hidden if self.state_size == self.hidden_size else {**hidden, "state": state}

    def inner_cells(self) -> dict[str, Transition]:
        """Return the transitions whose gates are recorded, by the prefix of their names: "" for this one's own."""
        return {"": self}

    def kept_share(self, gates: Mapping[str, Tensor]) -> Tensor | None:
        """Return which share of the state a step keeps, (..., size), given its gates by name; None where none says so.

        Args:
            gates: as recorded, (..., size); of stacked layers, those of one.
        """
        return None

    @property
    def by_rows(self) -> bool:
        """Whether a step of some rows is that of all: it draws no random numbers, and nobody listens to its gates."""
        return self._handler is None

    @property
    def unrolls(self) -> bool:
        """Whether every step is the same operations, so that `scan` may record one and repeat it (see `along_time`)."""
        return self.by_rows

    @property
    def parts(self) -> dict[str, slice]:
        """The channels of h_t that have a name of their own: where each stream lies."""
        return {}

    @property
    def own_inputs(self) -> list[str | Feature]:
        """Covariates and features that the transition itself names, besides what `LatentRNN(inputs=...)` lists."""
        return []

    def scan(self, inputs: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Apply `step` along time.

        Args:
            inputs: a_{1:T}, (..., time, input_size).
            state: s_0, (..., state_size); its leading axes broadcast against those of `inputs`.

        Returns:
            h_{1:T}, (..., time, hidden_size), and the last state, (..., state_size).
        """
        return self.along_time(self.step, inputs, state)

    def along_time(
        self, step: Callable[[Tensor, Tensor], Tensor], inputs: Tensor, state: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Apply a step along time, by operations that are recorded once where that will do (see `unrolled_scan`).

        Args:
            step: of a state (..., state_size) and of a tensor (..., size) to the next state.
            inputs: what it is given at each step, (..., time, size).
            state: s_0, (..., state_size); its leading axes broadcast against those of `inputs`.

        Returns:
            As of `scan`.
        """
        inputs, state = broadcast_batch(inputs, state)
        if self.unrolls and (states := unrolled_scan(self, step, inputs, state)) is not None:
            return self.output(states), states[..., -1, :]
        outputs = []
        # unbind once: the backward of inputs[..., t, :] would write a whole zero tensor at every step
        for a_t in inputs.unbind(-2):
            state = step(state, a_t)
            outputs.append(self.output(state))
        return torch.stack(outputs, -2), state

    def record(self, inputs: Tensor, state: Tensor) -> Recording:
        """Apply `step` along time, as `scan` does, and note every gate.

        Args:
            inputs: a_{1:T}, (..., time, input_size).
            state: s_0, (..., state_size); its leading axes broadcast against those of `inputs`.

        Within a model the inputs are `model.transition_inputs(data)` and, after them, whatever else comes in: the
        encoded past of heads that feed back, and innovations (`posterior.latents()` has them).

        Returns:
            Outputs, last state and gates.

        Raises:
            ValueError: inputs of another number of channels, naming what the model puts together; another state.
        """
        self._check_recorded(inputs, state)
        steps: dict[str, list[Tensor]] = {}
        inputs, state = broadcast_batch(inputs, state)
        outputs = []
        for a_t in inputs.unbind(-2):
            noted: dict[str, list[Tensor]] = {}
            with self.gates_through(_noting(noted, self._handler)):
                state = self.step(state, a_t)
            outputs.append(self.output(state))
            for name, layers in noted.items():
                steps.setdefault(name, []).append(torch.cat(layers, -1))
        gates = {name: torch.stack(values, -2) for name, values in steps.items()}
        return Recording(torch.stack(outputs, -2), state, gates)

    def _check_recorded(self, inputs: Tensor, state: Tensor) -> None:
        if state.shape[-1] != self.state_size:
            raise ValueError(
                f"record: expected a state of (..., {self.state_size}) for {self!r}; found {tuple(state.shape)}"
            )
        size = sum(self.input_shares.values())
        if self.input_shares and inputs.shape[-1] != size:
            parts = ", ".join(f"{count} of {name}" for name, count in self.input_shares.items())
            raise ValueError(
                f"record: expected inputs of (..., time, {size}), whose channels are {parts}, in this order; found "
                f"{tuple(inputs.shape)}. model.transition_inputs(data) has what comes from covariates alone"
            )

    def gate(self, name: str, value: Tensor) -> Tensor:
        """Name a gate within `step`: return `value`, or what a handler puts in its place.

        Args:
            name: what it is called in `Recording.gates`.
            value: (..., size).
        """
        return value if self._handler is None else self._handler(name, value)

    @contextmanager
    def gates_through(self, handler: GateHandler) -> Iterator[None]:
        """Send every gate of every step through `handler(name, value) -> value` within the block.

        Example:
            >>> import torch, latentrnn as lr
            >>> cell = lr.GRU(2)
            >>> cell.build(1)
            >>> closed = lambda name, value: 0 * value if name == "update" else value
            >>> with cell.gates_through(closed):
            ...     cell.scan(torch.ones(3, 1), torch.tensor([0.5, -0.5]))[1]
            tensor([ 0.5000, -0.5000], grad_fn=<...>)
        """
        before, self._handler = self._handler, handler
        try:
            yield
        finally:
            self._handler = before

    @contextmanager
    def inner_gates(self, inner: Transition, prefix: str = "") -> Iterator[None]:
        """Let the gates of a transition within this one be this one's, under a prefix, within the block."""
        if self._handler is None:
            yield
            return
        with inner.gates_through(lambda name, value: self.gate(prefix + name, value)):
            yield


def _noting(noted: dict[str, list[Tensor]], inner: GateHandler | None) -> GateHandler:
    def note(name: str, value: Tensor) -> Tensor:
        value = value if inner is None else inner(name, value)
        noted.setdefault(name, []).append(value)
        return value

    return note


def broadcast_batch(inputs: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """Expand the leading axes of inputs (..., time, channel) and state (..., size) to their common shape."""
    batch = torch.broadcast_shapes(inputs.shape[:-2], state.shape[:-1])
    return inputs.expand(*batch, *inputs.shape[-2:]), state.expand(*batch, state.shape[-1])


def concatenate_channels(*parts: Tensor) -> Tensor:
    """Concatenate along channels, the leading axes broadcast."""
    if all(part.shape[:-1] == parts[0].shape[:-1] for part in parts):  # broadcasting is slow to find needless
        return torch.cat(parts, -1)
    batch = torch.broadcast_shapes(*(part.shape[:-1] for part in parts))
    return torch.cat([part.expand(*batch, part.shape[-1]) for part in parts], -1)
