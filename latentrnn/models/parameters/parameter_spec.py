"""What a component says of its parameters: names of science for tensors that are kept on the real line."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from pyro.distributions import constraints as pyro_constraints
from torch import Tensor
from torch.distributions import Distribution, constraints

from latentrnn.data import DataSpec
from latentrnn.support.arguments import check_number

TIME, RATE = "seconds or steps", "per second or step"  # seconds where the data have a clock
PER_GAP = "per step, or per second at irregular times"
TIMES = (TIME, RATE, "steps", "radians per step")  # units of what says nothing of the size of any input


def _itself(part: Any, value: Tensor) -> Tensor:
    return value


@dataclass(frozen=True)
class ParameterSpec:
    """One parameter of a component, by the name under which it is known, fixed, or given a prior.

    A component lists its parameters in the class attribute `declared`; a tensor that no entry speaks of is a parameter
    under its own name, with any real values. A tensor may go by several names (a time constant, a persistence).

    Args:
        raw: path of the tensor within the component.
        value: `(component, raw tensor) -> parameter`, written for any leading axes.
        tensor: its inverse.
        support: of the parameter, a constraint of `torch.distributions.constraints`.
        unit: in words, "" where it has none: "of the data", "seconds or steps", "per second or step". Tables of a model
            say of the last two which it is.
        dims: what its axes stand for, in order.
        follows: names of other parameters of the component that its tensor depends on, too.
        around: where a `NetworkPrior` is centred, for what is neither a weight nor a bias of a network: one for a gain.

    Example:
        >>> import torch, latentrnn as lr
        >>> spec = lr.ParameterSpec.positive("log_rate", unit="per second")
        >>> float(spec.tensor(None, spec.value(None, torch.tensor(2.0))))
        2.0
    """

    raw: str
    value: Callable[[Any, Tensor], Tensor] = _itself
    tensor: Callable[[Any, Tensor], Tensor] = _itself
    support: Any = constraints.real
    unit: str = ""
    dims: tuple[str, ...] = ()
    follows: tuple[str, ...] = ()
    around: float | None = None

    @classmethod
    def positive(cls, raw: str, *, least: float = 0.0, unit: str = "", dims: tuple[str, ...] = ()) -> ParameterSpec:
        """Return the spec of a number above `least`, kept as the logarithm of what it exceeds that by."""
        least = check_number("ParameterSpec", "least", least)
        support = constraints.positive if not least else constraints.greater_than(least)
        return cls(
            raw,
            value=lambda _, kept: least + kept.exp(),
            tensor=lambda _, value: (value - least).log(),
            support=support,
            unit=unit,
            dims=dims,
        )

    @classmethod
    def unit_interval(cls, raw: str, *, unit: str = "", dims: tuple[str, ...] = ()) -> ParameterSpec:
        """Return the spec of a number between zero and one, kept as its log-odds."""
        return cls(
            raw,
            value=lambda _, kept: kept.sigmoid(),
            tensor=lambda _, value: value.logit(),
            support=constraints.unit_interval,
            unit=unit,
            dims=dims,
        )

    @classmethod
    def simplex(cls, raw: str, *, unit: str = "", dims: tuple[str, ...] = ()) -> ParameterSpec:
        """Return the spec of probabilities along the last axis, kept as logits."""
        return cls(
            raw,
            value=lambda _, kept: kept.softmax(-1),
            tensor=lambda _, value: value.clamp_min(torch.finfo(value.dtype).tiny).log(),  # slopes at zero are finite
            support=constraints.simplex,
            unit=unit,
            dims=dims,
        )

    def __repr__(self) -> str:
        unit = f", unit={self.unit!r}" if self.unit else ""
        return f"ParameterSpec({self.raw!r}, {in_words(self.support)}{unit})"

    def unit_on(self, clock: DataSpec) -> str:
        """Return the unit on the clock of some data: seconds where they have a `dt` or times, else steps."""
        seconds = clock.dt is not None or clock.irregular
        known = {
            TIME: "seconds" if seconds else "steps",
            RATE: "per second" if seconds else "per step",
            PER_GAP: "per second" if clock.irregular else "per step",
        }
        return known.get(self.unit, self.unit)

    @property
    def event_dim(self) -> int:
        """How many of its last axes one value of the support takes."""
        return int(self.support.event_dim)


def within(prior: Distribution, support: Any) -> bool:
    """Return whether all that a prior can draw lies in a support, as far as their bounds and kinds tell."""
    given: Any = prior.support
    while isinstance(given, constraints.independent):
        given = given.base_constraint
    if support.event_dim:
        return type(given) is type(support) or (given.event_dim <= 1 and support is constraints.real_vector)
    given = _ENTRIES.get(type(given), given)  # vectors of numbers that are known together: in order, or summing to one
    if given.event_dim:
        return False
    low, high = bounds(given)
    least, most = bounds(support)
    return bool((low >= least).all()) and bool((high <= most).all())


# what the entries of a vector are that is in some support
_ENTRIES: dict[type, Any] = {
    type(pyro_constraints.ordered_vector): constraints.real,
    type(pyro_constraints.positive_ordered_vector): constraints.positive,
    type(constraints.simplex): constraints.unit_interval,
}


def bounds(support: Any) -> tuple[Tensor, Tensor]:
    """Return the ends between which numbers of a support lie."""
    low = getattr(support, "lower_bound", -math.inf)
    high = getattr(support, "upper_bound", math.inf)
    return torch.as_tensor(low), torch.as_tensor(high)


def in_words(support: Any) -> str:
    """Return a support as one reads it, e.g. "positive", "between 0 and 1"."""
    if support is constraints.simplex:
        return "simplex"
    if support is constraints.corr_cholesky:
        return "Cholesky factor of correlations"
    if isinstance(support, type(pyro_constraints.ordered_vector)):
        return "in increasing order"
    if support.event_dim:
        return str(support).lower()
    low, high = (float(end) if end.numel() == 1 else math.nan for end in bounds(support))
    if (low, high) == (-math.inf, math.inf):
        return "real"
    if high == math.inf:
        return "positive" if low == 0 else f"above {low:g}"
    return f"below {high:g}" if low == -math.inf else f"between {low:g} and {high:g}"
