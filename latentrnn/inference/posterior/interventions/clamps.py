"""Gates held at values of one's own, from a step on."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from latentrnn.data import SequenceData
from latentrnn.inference.posterior.interventions.places import Silent, Steps, checked_steps, checked_units, steps_of
from latentrnn.models.transitions import Transition
from latentrnn.support.arguments import check_names

DIMS = ("sample", "sequence", "time", "unit")
PLAIN = {0: (), 1: ("unit",), 2: ("time", "unit"), 3: DIMS[1:], 4: DIMS}


class GatePlace(NamedTuple):
    """Where a gate is when a function is asked for its value.

    Attributes:
        step: base step of the recording, counted from zero.
        gate: its name within the transition, e.g. "forget".
        layer: counted from zero, the first is nearest to the input.
        stream: name of the stream that it belongs to (`Streams`), with dots where streams lie in streams; None without.
    """

    step: int
    gate: str
    layer: int
    stream: str | None


@dataclass(frozen=True, eq=False)
class Clamp:
    """Values that a gate is held at: what their axes mean, and where they are held.

    Args:
        value: numbers, of which a trace has one at every base step of the recording, and those from `from_step` on
            count; or a function of the gate's value, as in `Posterior.counterfactual`.
        dims: which of "sample", "sequence", "time" and "unit" each axis is, in any order; along the others the value
            is the same. None for one number, or a function.
        at: base steps at which it is held: one, a slice, or a list; None for all. Elsewhere the gate is free.
        units: units that are held, along which "unit" then runs; None for all. The others are free.

    Raises:
        ValueError: dims that are unknown, twice there, or not one per axis; steps or units that are no places.
        TypeError: no numbers, or dims that are no names.

    Example:
        >>> import torch, latentrnn as lr
        >>> lr.Clamp(torch.zeros(12, 3), dims=("time", "unit"))
        Clamp(time=12, unit=3)
        >>> lr.Clamp(1.0, at=slice(3, 6), units=[0])
        Clamp(1.0, at=slice(3, 6, None), units=[0])
    """

    value: Any
    dims: Sequence[str] | None = None
    at: Steps = None
    units: Sequence[int] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "at", checked_steps("Clamp", self.at))
        object.__setattr__(self, "units", checked_units("Clamp", self.units))
        if callable(self.value):
            if self.dims is not None:
                raise ValueError(f"Clamp: a function says itself what its axes are; found dims={self.dims!r}")
            return
        dims = () if self.dims is None else tuple(check_names("Clamp", "dims", self.dims))
        value = _numbers("Clamp", self.value)
        if len(set(dims)) < len(dims) or not set(dims) <= set(DIMS) or len(dims) != value.dim():
            raise ValueError(
                f"Clamp: dims must name each axis of the value, {tuple(value.shape)}, by one of {DIMS}; found {dims!r}"
            )
        object.__setattr__(self, "value", value)
        object.__setattr__(self, "dims", dims)

    def __repr__(self) -> str:
        if callable(self.value):
            shown = getattr(self.value, "__name__", "function")
        elif self.dims:
            shown = ", ".join(f"{name}={size}" for name, size in zip(self.dims, self.value.shape, strict=True))
        else:
            shown = f"{float(self.value)}"
        where = "".join(f", {name}={it!r}" for name, it in (("at", self.at), ("units", self.units)) if it is not None)
        return f"Clamp({shown}{where})"


class Held(NamedTuple):
    """One clamp of a gate, checked against the data.

    Attributes:
        value: numbers, (sample, sequence, time, unit), of size one where they are the same; or a function.
        steps: at which base steps it is held, (time,) of bool.
        units: which units are held; None for all.
    """

    value: Any
    steps: Tensor
    units: list[int] | None

    def of(self, samples: slice | None = None, sequences: slice | None = None) -> Held:
        """Return the same for some of the draws, or sequences."""
        value = self.value
        for axis, some in enumerate((samples, sequences)):
            if some is not None and isinstance(value, Tensor) and value.shape[axis] > 1:
                value = value.narrow(axis, some.start, some.stop - some.start)
        return self._replace(value=value)


Hold = float | Tensor | Clamp | Callable[[Tensor], Tensor] | Callable[[Tensor, GatePlace], Tensor]
Clamps = Mapping[str, Sequence[Held]]


def checked_clamps(
    clamp: Mapping[str, Hold | Sequence[Clamp]] | None, data: SequenceData, num_samples: int, from_step: int
) -> dict[str, list[Held]]:
    """Return what each gate is held at; where several clamps of a gate meet, the last counts.

    Raises:
        ValueError: a shape that does not go with the data, one that could be meant in two ways, a number that is
            not finite where it counts, or steps that the data do not have.
        TypeError: neither numbers nor a function.
    """
    if clamp is not None and not isinstance(clamp, Mapping):
        raise TypeError(f"counterfactual: clamp must be a dict of gate to value; found {type(clamp).__name__}")
    found: dict[str, list[Held]] = {}
    for gate, value in (clamp or {}).items():
        owner = f"counterfactual: clamp[{gate!r}]"
        several = isinstance(value, Sequence) and len(value) > 0 and all(isinstance(each, Clamp) for each in value)
        found[gate] = [
            _held(owner, each, data, num_samples, from_step)
            for each in (value if several else [value])  # type: ignore[union-attr]
        ]
    return found


def _held(owner: str, value: Any, data: SequenceData, num_samples: int, from_step: int) -> Held:
    if not isinstance(value, Clamp):
        value = Clamp(value) if callable(value) else _plain(owner, value, data)
    steps = steps_of(owner, value.at, data.num_steps) & (torch.arange(data.num_steps) >= from_step)
    if callable(value.value):
        return Held(value.value, steps, value.units)
    spread = _spread(owner, value, data, num_samples)
    counts = steps.to(data.device) & data.valid
    if not bool((spread.to(data.device).isfinite() | ~counts[None, ..., None]).all()):
        raise ValueError(f"{owner}: expected numbers from step {from_step} on; found NaN or infinity")
    return Held(spread, steps, value.units)


def _numbers(owner: str, value: Any) -> Tensor:
    try:
        # by NumPy, which keeps Python's numbers in double precision
        found = value if isinstance(value, Tensor) else torch.as_tensor(np.asarray(value))
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(f"{owner}: expected numbers or a function; found {type(value).__name__}") from None
    if found.is_complex():
        raise TypeError(f"{owner}: expected real numbers; found {found.dtype}")
    return found.detach()


def _plain(owner: str, value: Any, data: SequenceData) -> Clamp:
    found = _numbers(owner, value)
    if found.dim() not in PLAIN:
        raise ValueError(f"{owner}: expected one number or axes {DIMS}; found {tuple(found.shape)}")
    if found.dim() == 2 and len(data) == data.num_steps:
        raise ValueError(
            f"{owner}: {tuple(found.shape)} could be one value per step or per sequence, of which there are as many; "
            'say which: Clamp(value, dims=("time", "unit")) or Clamp(value, dims=("sequence", "unit"))'
        )
    return Clamp(found, PLAIN[found.dim()])


def _spread(owner: str, held: Clamp, data: SequenceData, num_samples: int) -> Tensor:
    """Return the value with all four axes, (sample, sequence, time, unit), of size one where it is the same."""
    assert held.dims is not None
    sizes = {"sample": num_samples, "sequence": len(data), "time": data.num_steps}
    if held.units is not None:
        sizes["unit"] = len(held.units)
    for name, size in zip(held.dims, held.value.shape, strict=True):
        if size != sizes.get(name, size):
            expected = tuple(sizes.get(each, "unit") for each in held.dims)
            raise ValueError(
                f"{owner}: expected ({', '.join(held.dims)}) {expected}; found {tuple(held.value.shape)}. Without "
                'Clamp(value, dims=...) axes are (unit,), (time, unit), (sequence, time, unit) or with "sample" first'
            )
    present = [name for name in DIMS if name in held.dims]
    value: Tensor = held.value.permute([held.dims.index(name) for name in present])
    for axis, name in enumerate(DIMS):
        if name not in held.dims:
            value = value.unsqueeze(axis)
    return value


class Clamped(Transition):
    """A transition whose gates are held from a step on; it counts the steps that it is asked for one by one.

    From that step on every step is asked for once, for all draws and sequences, whatever the latent: where the
    same rollout is gone through again (`rewind`), what functions returned is remembered.

    Args:
        cell: the transition, built.
        clamps: of `checked_clamps`.
        from_step: the first step with the gates held.
        shape: numbers of draws and of sequences.
        silent: of `silenced`; None for no unit.
    """

    def __init__(
        self, cell: Transition, clamps: Clamps, from_step: int, shape: torch.Size, silent: Silent | None = None
    ) -> None:
        super().__init__()
        self.cell, self.clamps, self.from_step, self.shape, self.silent = cell, clamps, from_step, shape, silent
        self.state_size, self.hidden_size, self.timed, self.dt = cell.state_size, cell.hidden_size, cell.timed, cell.dt
        self._known = False
        self._next = 0
        self._passed: dict[str, int] = {}  # how many layers of a gate this step has gone through
        self._returned: dict[tuple[int, str, int, int], Tensor] = {}

    def build(self, input_size: int) -> None:
        """Nothing: the cell is built."""

    @property
    def parts(self) -> dict[str, slice]:
        return self.cell.parts

    @property
    def by_rows(self) -> bool:
        return False

    def rewind(self) -> None:
        """Take the next single step as the first."""
        self._next = 0

    def output(self, state: Tensor) -> Tensor:
        return self.cell.output(state)

    def step(self, state: Tensor, inputs: Tensor) -> Tensor:
        t, self._next = self._next, self._next + 1
        if t < self.from_step:
            return self.cell.step(state, inputs)
        state, inputs = (part.expand(*self.shape, part.shape[-1]) for part in (state, inputs))
        self._check_sizes(state, inputs)
        with self._held(t):
            return self.silence(t, self.cell.step(state, inputs))

    def silence(self, t: int, state: Tensor) -> Tensor:
        """Return a state (..., state_size) after step t without the units that are lesioned there."""
        if self.silent is None or not bool(self.silent.steps[t]):
            return state
        return state * self.silent.kept.to(state)

    def scan(self, inputs: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        state = state.expand(*self.shape, state.shape[-1])
        inputs = inputs.expand(*self.shape, *inputs.shape[-2:])
        outputs = []
        if self.from_step:
            free, state = self.cell.scan(inputs[..., : self.from_step, :], state)
            outputs.append(free)
        self._next = self.from_step
        for a_t in inputs[..., self.from_step :, :].unbind(-2):
            state = self.step(state, a_t)
            outputs.append(self.output(state).unsqueeze(-2))
        return torch.cat(outputs, -2), state

    @contextmanager
    def _held(self, t: int) -> Iterator[None]:
        self._passed = {}
        with self.cell.gates_through(lambda name, value: self._held_value(t, name, value)):
            yield

    def _held_value(self, t: int, name: str, value: Tensor) -> Tensor:
        layer = self._passed.get(name, 0)
        self._passed[name] = layer + 1
        key = next((key for key in (_of_layer(name, layer), name) if key in self.clamps), None)
        for number, held in enumerate(() if key is None else self.clamps[key]):
            if bool(held.steps[t]):
                value = self._one_held(t, name, layer, f"{key}", number, value)
        return value

    def _one_held(self, t: int, name: str, layer: int, key: str, number: int, value: Tensor) -> Tensor:
        held = self.clamps[key][number]
        value = value.expand(*self.shape, value.shape[-1])
        if isinstance(held.value, Tensor):
            new = held.value[:, :, t if held.value.shape[2] > 1 else 0].to(value)
        else:
            if (t, name, layer, number) not in self._returned:
                stream, _, gate = name.rpartition(".")
                place = GatePlace(t, gate, layer, stream or None)
                given = value if held.units is None else value[..., held.units]
                self._returned[t, name, layer, number] = self._value_of(key, held.value, given, place)
            new = self._returned[t, name, layer, number]
        if held.units is None:
            return new.expand(value.shape)
        value = value.clone()
        value[..., held.units] = new.expand(*self.shape, len(held.units))
        return value

    def _value_of(self, key: str, function: Callable[..., Any], value: Tensor, place: GatePlace) -> Tensor:
        returned = function(value, place) if _takes_place(function) else function(value)
        found = _numbers(f"counterfactual: clamp[{key!r}]", returned).to(value)
        if found.shape not in ((), value.shape[-1:], value.shape):
            raise ValueError(
                f"counterfactual: clamp[{key!r}] must return one number, (unit,) {tuple(value.shape[-1:])} or (sample, "
                f"sequence, unit) {tuple(value.shape)}; found {tuple(found.shape)} at step {place.step}"
            )
        return found.expand(value.shape)

    def _check_sizes(self, state: Tensor, inputs: Tensor) -> None:
        """Check once, on a step of one row, that every clamp is of a gate that is there, and has its size."""
        if self._known:
            return
        self._known = True
        sizes: dict[str, list[int]] = {}

        def note(name: str, value: Tensor) -> Tensor:
            sizes.setdefault(name, []).append(value.shape[-1])
            return value

        with torch.no_grad(), self.cell.gates_through(note):
            self.cell.step(state[:1, :1], inputs[:1, :1])
        layers = {_of_layer(name, k): [size] for name, found in sizes.items() for k, size in enumerate(found)}
        for key, several in self.clamps.items():
            units = sizes.get(key, layers.get(key))
            if units is None:
                stacked = sorted(key for key in layers if len(sizes[_without_layer(key)]) > 1)
                further = f", and of single layers {stacked}" if stacked else ""
                raise ValueError(f"counterfactual: {self.cell!r} has no gate {key!r}; it has {sorted(sizes)}{further}")
            for held in several:
                _check_units(key, held, units)


def _check_units(key: str, held: Held, units: list[int]) -> None:
    if held.units is not None:
        if max(held.units) >= min(units):
            raise ValueError(f"counterfactual: clamp[{key!r}]: expected units below {min(units)}; found {held.units}")
    elif isinstance(held.value, Tensor) and held.value.shape[-1] != 1 and {held.value.shape[-1]} != set(units):
        raise ValueError(
            f"counterfactual: clamp[{key!r}]: expected {units[0]} units along the last axis (unit,), (time, "
            f"unit), ...; found {held.value.shape[-1]}"
        )


def _of_layer(name: str, layer: int) -> str:
    """Return the name of a gate of one layer: "layer0.forget", "audio.layer0.forget"."""
    stream, dot, gate = name.rpartition(".")
    return f"{stream}{dot}layer{layer}.{gate}"


def _without_layer(key: str) -> str:
    first, _, gate = key.rpartition(".")
    stream, dot, _ = first.rpartition(".")
    return f"{stream}{dot}{gate}"


def _takes_place(function: Callable[..., Any]) -> bool:
    """Return whether a function must be given a second argument."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # of C
        return False
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(each.kind in positional and each.default is inspect.Parameter.empty for each in parameters) > 1
