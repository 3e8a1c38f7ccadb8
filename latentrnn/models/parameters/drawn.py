"""Parts of a model with draws, or other values, in the place of their parameters."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn

from latentrnn.models.component import tensor_at
from latentrnn.models.features import CovariateReader, Feature
from latentrnn.models.feedback import History
from latentrnn.models.pooling import Pooling
from latentrnn.models.readouts import Readout
from latentrnn.models.scans import vmap_over_members
from latentrnn.models.transitions import Transition
from latentrnn.support.private_symbols import children, replace_child, replace_tensor

Part = TypeVar("Part", bound=nn.Module)

# What parts do with tensors, by method: how many of its last axes are one sequence's, of every argument and result.
# None stands for what is no tensor, or has no draws of its own.
Events = dict[str, tuple[tuple[Any, ...], Any]]
_SURROUNDINGS = (2, 2, 1, 2)
EVENTS: Mapping[type, Events] = {
    Transition: {"step": ((1, 1), 1), "scan": ((2, 1), (2, 1)), "output": ((1,), 1), "record": ((2, 1), (2, 1, 2))},
    Feature: {"forward": ((None,), 2)},
    CovariateReader: {"forward": ((None,), 2)},
    History: {"forward": ((2,), 2), "at": ((2,), 1), "to_predictor": ((2,), 2)},
    Pooling: {"forward": ((2, None), 1)},
    Readout: {"forward": ((2, _SURROUNDINGS), 2), "surroundings": ((None,), _SURROUNDINGS)},
}


def with_values(part: Part, values: Mapping[str, Tensor]) -> Part:
    """Return a part that has these tensors in the place of its own, by path, and shares all else with it.

    Args:
        part: a component, or a module that holds some.
        values: (*shape) of the tensor in whose place they are, or draws of it, (*sample, 1, *shape), where the axis in
            front of the shape is that of the plate.
    """
    if not values:
        return part
    if isinstance(part, tuple(EVENTS)) and not getattr(part, "broadcasts", False):
        values = {path: _one_draw(value, tensor_at(part, path).dim()) for path, value in values.items()}
        if any(value.dim() > tensor_at(part, path).dim() for path, value in values.items()):
            return cast(Part, OverDraws(part, values))
    found = copy.copy(part)
    inner: dict[str, dict[str, Tensor]] = {}
    for path, value in values.items():
        first, _, rest = path.partition(".")
        if rest:
            inner.setdefault(first, {})[rest] = value
        else:
            replace_tensor(found, path, value)
    for name, within in inner.items():
        child = children(part)[name]
        assert child is not None
        replace_child(found, name, with_values(child, within))
    return found


class OverDraws(nn.Module):
    """A part under many draws of its parameters: what it is asked for is evaluated for each of them by `vmap`.

    Args:
        part: a transition, feature, history, pooling or readout.
        values: draws by path of their tensor, (*sample, 1, *shape), all on the same axis of the sample.

    Raises:
        ValueError: draws on several axes.
    """

    has_draws = True

    def __init__(self, part: nn.Module, values: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.part, self.paths = part, list(values)
        self._own = {path: tensor_at(part, path).dim() for path in values}
        found = [_axis(value, self._own[path]) for path, value in values.items()]
        axes = {axis for axis in found if axis is not None}
        if len(axes) > 1:
            raise ValueError(f"{part!r}: draws of its parameters lie on different axes")
        (self._axis,) = axes  # counted from the plate's
        for number, value in enumerate(values.values()):
            self.register_buffer(f"draws_{number}", value)
        self._events: Events = next(events for kind, events in EVENTS.items() if isinstance(part, kind))

    def __getattr__(self, name: str) -> Any:
        if name in self.__dict__.get("_events", ()):
            return lambda *arguments: self._mapped(name, *arguments)
        if name in (paths := self.__dict__.get("paths", ())):
            return getattr(self, f"draws_{paths.index(name)}")
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("part"), name)

    def of_draw(self, number: int) -> nn.Module:
        """Return the part with one draw of its parameters, which takes what the part itself takes."""
        found = (self._draws(place) for place in range(len(self.paths)))
        one = [value if axis is None else value[number] for value, axis in found]
        return with_values(self.part, dict(zip(self.paths, one, strict=True)))

    def forward(self, *arguments: Any) -> Any:
        return self._mapped("forward", *arguments)

    def __repr__(self) -> str:
        return f"OverDraws({self.part!r})"

    def _mapped(self, method: str, *arguments: Any) -> Any:
        events_in, events_out = self._events[method]
        given = list(_leaves(arguments, events_in[: len(arguments)]))
        pairs = [self._with_axis(value, value.dim() - event - 2 - self._axis) for value, event in given]
        tensors, dims = [tensor for tensor, _ in pairs], [axis for _, axis in pairs]
        draws, draw_dims = zip(*map(self._draws, range(len(self.paths))), strict=True)
        structure: list[Any] = []

        def one(draws: tuple[Tensor, ...], tensors: list[Tensor]) -> list[Tensor]:
            filled = _refilled(arguments, events_in[: len(arguments)], iter(tensors))
            found = getattr(with_values(self.part, dict(zip(self.paths, draws, strict=True))), method)(*filled)
            structure[:] = [found]
            return [value for value, _ in _leaves(found, events_out)]

        with vmap_over_members():
            found = torch.vmap(one, in_dims=(draw_dims, dims), randomness="different")(draws, tensors)
        events = [event for _, event in _leaves(structure[0], events_out)]
        placed = [self._placed(value, event) for value, event in zip(found, events, strict=True)]
        return _refilled(structure[0], events_out, iter(placed))

    def _draws(self, number: int) -> tuple[Tensor, int | None]:
        """Return the draws of a tensor, one axis in front of its shape, and that axis; None for a single draw."""
        value, own = getattr(self, f"draws_{number}"), self._own[self.paths[number]]
        shape = value.shape[value.dim() - own :]
        return (value, None) if value.dim() == own else (value.reshape(-1, *shape), 0)

    @staticmethod
    def _with_axis(value: Tensor, axis: int) -> tuple[Tensor, int | None]:
        """Return a tensor and its axis of draws, None where it has none or only room for one."""
        if axis < 0:
            return value, None
        return (value.squeeze(axis), None) if value.shape[axis] == 1 else (value, axis)

    def _placed(self, found: Tensor, event: int) -> Tensor:
        """Return a result with its first axis, that of the draws, where it belongs in front of the plate's."""
        inner = found.dim() - event - 2  # axes in front of the plate's
        if inner >= self._axis:
            return found.movedim(0, inner - self._axis)
        return found.reshape(found.shape[0], *[1] * (self._axis - inner), *found.shape[1:])


def _one_draw(value: Tensor, own: int) -> Tensor:
    """Return a single draw, whose leading axes are all of length one, without them."""
    leading = value.dim() - own
    return value.reshape(value.shape[leading:]) if math.prod(value.shape[:leading]) == 1 else value


def _axis(value: Tensor, own: int) -> int | None:
    """Return how many axes lie between that of many draws and that of the plate; None for a single draw."""
    leading = value.shape[: value.dim() - own][:-1]
    many = [position for position, size in enumerate(reversed(leading)) if size > 1]
    if len(many) > 1:
        raise ValueError(f"draws of shape {tuple(value.shape)} lie on several axes; expected one")
    return many[0] if many else None


def _leaves(value: Any, event: Any) -> Iterator[tuple[Tensor, int]]:
    """Yield the tensors of nested tuples and dicts, each with the axes of its event."""
    if event is None or value is None:
        return
    if isinstance(value, Tensor):
        yield value, event
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _leaves(inner, event)
    else:
        for inner, own in zip(value, event, strict=True):
            yield from _leaves(inner, own)


def _refilled(value: Any, event: Any, tensors: Iterator[Tensor]) -> Any:
    """Return nested tuples and dicts with other tensors in the place of their own."""
    if event is None or value is None:
        return value
    if isinstance(value, Tensor):
        return next(tensors)
    if isinstance(value, dict):
        return {name: _refilled(inner, event, tensors) for name, inner in value.items()}
    parts = [_refilled(inner, own, tensors) for inner, own in zip(value, event, strict=True)]
    return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
