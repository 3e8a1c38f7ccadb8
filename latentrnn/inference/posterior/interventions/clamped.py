"""A transition whose gates are held at values of one's own, from a step on."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from latentrnn.inference.posterior.interventions.clamps import Clamps, GatePlace, Held, numbers_of
from latentrnn.inference.posterior.interventions.places import Silent
from latentrnn.models.transitions import Transition


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
        found = numbers_of(f"counterfactual: clamp[{key!r}]", returned).to(value)
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
