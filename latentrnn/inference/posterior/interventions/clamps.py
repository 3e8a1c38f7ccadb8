"""Values that gates are held at: what their axes mean, at which steps and for which units they count."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from latentrnn.data import SequenceData
from latentrnn.inference.posterior.interventions.places import Steps, checked_steps, checked_units, steps_of
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
        value = numbers_of("Clamp", self.value)
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


def numbers_of(owner: str, value: Any) -> Tensor:
    """Return numbers as a tensor without gradient, Python's in double precision.

    Raises:
        TypeError: neither numbers nor a function, or complex ones.
    """
    try:
        # by NumPy, which keeps Python's numbers in double precision
        found = value if isinstance(value, Tensor) else torch.as_tensor(np.asarray(value))
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(f"{owner}: expected numbers or a function; found {type(value).__name__}") from None
    if found.is_complex():
        raise TypeError(f"{owner}: expected real numbers; found {found.dtype}")
    return found.detach()


def _plain(owner: str, value: Any, data: SequenceData) -> Clamp:
    found = numbers_of(owner, value)
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
