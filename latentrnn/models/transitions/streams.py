"""Several recurrent streams side by side, each with a transition and a drive of its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from latentrnn.models.features.feature import Feature, listed
from latentrnn.models.features.units import UNITS
from latentrnn.models.module_dict import taken_by_torch
from latentrnn.models.transitions.transition import Transition, broadcast_batch
from latentrnn.support.arguments import check_names


class Streams(Transition):
    """h_t = [h^1_t, ..., h^K_t],  h^k_t = transition_k(h^k_{t-1}, a^k_t): streams that do not see each other.

    They meet in the readouts: `CrossAttention` lets one ask the other's past, and any other readout sees all of h_t.
    States and outputs lie side by side, in the order of `streams`; gates are recorded as "audio.update".

    What drives a stream, a^k_t: its own `inputs`, and whatever else drives the model (`LatentRNN(inputs=...)`, heads
    that feed back, innovations: their noise is shared), which goes to the streams in `common`. A stream that nothing
    drives gets a constant. A start that is drawn (`InitialState`) is the start of all streams together.

    Args:
        streams: name to transition, of any kind and size; the names are without dots.
        inputs: stream to what drives that stream alone: covariates (names, or features), one or a list.
        common: streams that get what is no stream's own, such as innovations; all by default.

    Raises:
        ValueError: no stream, a name that cannot be one, `inputs` or `common` of a stream that is not there, or a
            stream mixed by a latent's switch that is not in `common`.
        TypeError: a stream that is not a `Transition`.

    Example:
        >>> import latentrnn as lr
        >>> two = lr.Streams({"audio": lr.GRU(16), "text": lr.LSTM(8)}, {"audio": "mfcc", "text": "word"})
        >>> two.hidden_size, two.state_size, two.parts["text"]
        (24, 32, slice(16, 24, None))

    References:
        Zadeh, Liang, Mazumder, Poria, Cambria, Morency. Memory fusion network for multi-view sequential learning.
        2018.
        Poria, Cambria, Hazarika, Majumder, Zadeh, Morency. Context-dependent sentiment analysis in user-generated
        videos. 2017.
    """

    def __init__(
        self,
        streams: Mapping[str, Transition],
        inputs: Mapping[str, str | Feature | Sequence[str | Feature]] | None = None,
        *,
        common: str | Sequence[str] | None = None,
        **shared: Any,
    ) -> None:
        super().__init__(**shared)
        _check_streams(streams)
        if inputs is not None and not isinstance(inputs, Mapping):
            raise TypeError(f"Streams: inputs must be covariates by name of stream; found {inputs!r}")
        self.inputs = {k: listed("Streams", f"inputs[{k!r}]", items) for k, items in (inputs or {}).items()}
        self.common = None if common is None else check_names("Streams", "common", common)
        for argument, names in (("inputs", self.inputs), ("common", self.common or ())):
            for name in names:
                if name not in streams:
                    raise ValueError(f"Streams: {argument} names unknown stream {name!r}; there are {list(streams)}")
        self.cells = nn.ModuleDict({name: stream.fresh() for name, stream in streams.items()})
        self.state_size = sum(stream.state_size for stream in streams.values())
        self.hidden_size = sum(stream.hidden_size for stream in streams.values())
        self.timed = any(stream.timed for stream in streams.values())
        self.is_network = any(stream.is_network for stream in streams.values())
        self.input_units = _least({stream.input_units for stream in streams.values()})
        self.given_weights = _switch_size(streams, self.common)

    def arguments(self) -> dict[str, Any]:
        given = {name: value for name, value in (("priors", self.priors), ("fixed", self.fixed)) if value}
        return {"streams": dict(self.cells.items()), "inputs": self.inputs, "common": self.common, **given}

    @property
    def parts(self) -> dict[str, slice]:
        found: dict[str, slice] = {}
        start = 0
        for name, cell in self._cells():
            found[name] = slice(start, start + cell.hidden_size)
            found |= {f"{name}.{k}": slice(start + s.start, start + s.stop) for k, s in cell.parts.items()}
            start += cell.hidden_size
        return found

    @property
    def by_rows(self) -> bool:
        return super().by_rows and all(cell.by_rows for _, cell in self._cells())

    @property
    def own_inputs(self) -> list[str | Feature]:
        return [item for items in self._own().values() for item in items]

    def _cells(self) -> Iterator[tuple[str, Transition]]:
        yield from self.cells.items()  # type: ignore[misc]

    def _own(self) -> dict[str, list[str | Feature]]:
        """Return what each stream has for itself; streams inside a stream bring their own."""
        return {name: [*cell.own_inputs, *self.inputs.get(name, ())] for name, cell in self._cells()}

    def build(self, input_size: int) -> None:
        sizes = list(self.own_sizes)
        clock = [slice(0, 1)] if self.timed else []
        common = slice(int(self.timed) + sum(sizes), input_size)
        start = int(self.timed)
        self._shares: dict[str, tuple[list[slice], bool]] = {}  # channels, and whether there is a constant instead
        for (name, cell), items in zip(self._cells(), self._own().values(), strict=True):
            own, sizes = sizes[: len(items)], sizes[len(items) :]
            shares = [slice(start, start + sum(own))]
            start += sum(own)
            if self.common is None or name in self.common:
                shares.append(common)
            shares = [share for share in shares if share.stop > share.start]
            size = sum(share.stop - share.start for share in shares)
            cell.dt, cell.own_sizes = self.dt, own[: len(cell.own_inputs)]
            self._shares[name] = [*(clock if cell.timed else []), *shares], size == 0
            cell.build(max(size, 1) + int(cell.timed))

    def _share(self, name: str, inputs: Tensor) -> Tensor:
        """Return what drives one stream, (..., size), of what drives all."""
        slices, constant = self._shares[name]
        parts = [inputs[..., each] for each in slices]
        if constant:
            parts.append(inputs.new_ones(*inputs.shape[:-1], 1))
        return parts[0] if len(parts) == 1 else torch.cat(parts, -1)

    def _states(self, state: Tensor) -> Iterator[tuple[str, Transition, Tensor]]:
        parts = state.split([cell.state_size for _, cell in self._cells()], -1)
        for (name, cell), part in zip(self._cells(), parts, strict=True):
            yield name, cell, part

    def output(self, state: Tensor) -> Tensor:
        return torch.cat([cell.output(part) for _, cell, part in self._states(state)], -1)

    def named_states(self, state: Tensor) -> dict[str, Tensor]:
        return {
            f"{name}.{part}": value
            for name, cell, own in self._states(state)
            for part, value in cell.named_states(own).items()
        }

    def inner_cells(self) -> dict[str, Transition]:
        return {f"{name}.{k}".rstrip("."): c for name, cell in self._cells() for k, c in cell.inner_cells().items()}

    def step(self, state: Tensor, inputs: Tensor) -> Tensor:
        new = []
        for name, cell, part in self._states(state):
            with self.inner_gates(cell, f"{name}."):
                new.append(cell.step(part, self._share(name, inputs)))
        return torch.cat(new, -1)

    def scan(self, inputs: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        inputs, state = broadcast_batch(inputs, state)
        outputs, last = [], []
        for name, cell, part in self._states(state):
            with self.inner_gates(cell, f"{name}."):
                found = cell.scan(self._share(name, inputs), part)
            outputs.append(found[0])
            last.append(found[1])
        return torch.cat(outputs, -1), torch.cat(last, -1)


def _check_streams(streams: Any) -> None:
    if not isinstance(streams, Mapping) or not streams:
        raise ValueError(f"Streams: expected at least one named transition; found {streams!r}")
    for name, stream in streams.items():
        if not isinstance(name, str) or not name or "." in name or taken_by_torch(name):
            raise ValueError(f"Streams: {name!r} cannot name a stream (no dots, no name of a torch module's own)")
        if not isinstance(stream, Transition):
            raise TypeError(f"Streams: {name!r} must be a Transition; found {type(stream).__name__}")


def _switch_size(streams: Mapping[str, Transition], common: Sequence[str] | None) -> int:
    """Return how many weights of a switch the streams are given, zero without one."""
    switched = {name: stream.given_weights for name, stream in streams.items() if stream.given_weights}
    if len(set(switched.values())) > 1 or (common is not None and not set(switched) <= set(common)):
        raise ValueError(f"Streams: a switch drives {list(switched)}, which must be in `common` and of one size")
    return max(switched.values(), default=0)


def _least(wanted: set[str]) -> str:
    """Return the units that suit all streams: what is changed least."""
    return next(units for units in UNITS if units in wanted)
