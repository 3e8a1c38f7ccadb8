"""Quantities: functions of a model, their entries, and on which scale these are about Normal."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.distributions import constraints
from torch.overrides import TorchFunctionMode

from latentrnn.data import DataSpec
from latentrnn.inference.sampling.uncertainty.weights import Weights, declared_parameters, entry_names
from latentrnn.models.parameters.parameter_spec import bounds
from latentrnn.models.state_space import LatentRNN
from latentrnn.support.arguments import check_choice
from latentrnn.support.shown import shown

OWNER = "uncertainty"
QUANTITY = "quantity"  # the name of one that has none
AUTO = "auto"
BOUNDS = {"identity": (-torch.inf, torch.inf), "log": (0.0, torch.inf), "logit": (0.0, 1.0)}
SMALL = 1e-5  # steps of weights, in their units, by which derivatives are checked
AGREEMENT = 1e-3  # of derivatives, relative
LEAVING = tuple(getattr(torch.Tensor, name) for name in ("numpy", "__array__", "tolist", "item", "__float__"))


class Layout(NamedTuple):
    """What a quantity is made of.

    Attributes:
        shapes: by name of part.
        single: whether it is one tensor, and not several by name.
    """

    shapes: dict[str, torch.Size]
    single: bool

    @property
    def entries(self) -> list[str]:
        """Name of every entry, in order."""
        return [name for owner, shape in self.shapes.items() for name in entry_names(owner, shape)]

    def given(self, flat: Tensor) -> Any:
        """Return a vector (..., entry) in the form in which the quantity came."""
        parts = flat.split([shape.numel() for shape in self.shapes.values()], -1)
        leading = flat.shape[:-1]
        found = {k: part.reshape(leading + shape) for (k, shape), part in zip(self.shapes.items(), parts, strict=True)}
        return found[next(iter(found))] if self.single else found


class Entries(NamedTuple):
    """Where a quantity's entries may lie, and their units.

    Attributes:
        low, high: ends of the support, (entry,).
        units: in words, "" where there is none.
    """

    low: Tensor
    high: Tensor
    units: tuple[str, ...]


class Quantity:
    """A function of a model that returns a tensor, or several by name; or the names of parameters.

    Args:
        given: the function, one name of `parameters_table`, or several.

    Raises:
        TypeError: anything else.
    """

    def __init__(self, given: Any) -> None:
        self.sites: list[str] | None = None
        self.single = True
        if isinstance(given, str):
            self.sites = [given]
        elif isinstance(given, Sequence) and given and all(isinstance(name, str) for name in given):
            self.sites, self.single = list(given), False
        elif not callable(given) or isinstance(given, torch.nn.Module):
            raise TypeError(
                f"{OWNER}: quantity must be a function of the model, such as lambda model: "
                f"model.transition.time_constant, or names of parameters_table(); found {shown(given)}"
            )
        self.function: Callable[[LatentRNN], Any] = given if self.sites is None else self._named

    def _named(self, model: LatentRNN) -> Any:
        known = {parameter.site: parameter for parameter in declared_parameters(model)}
        assert self.sites is not None
        for site in self.sites:
            if site not in known:
                raise ValueError(
                    f"{OWNER}: quantity names {site!r}, which is no parameter of the model; it has {list(known)}"
                )
        return {site: known[site].value() for site in self.sites}

    def at(self, weights: Weights, flat: Tensor, *, plain: bool = False) -> tuple[Tensor, Layout]:
        """Return every entry, (entry,), at a vector of weights.

        Args:
            weights: what the vector stands for.
            flat: the vector.
            plain: whether numbers and arrays will do, which no derivative is asked of.

        Raises:
            TypeError: the function returned something else than tensors.
            ValueError: nothing, or values that are no finite numbers.
        """
        with _attached():
            return self._read(weights.evaluate(self.function, flat), plain)

    def _read(self, found: Any, plain: bool) -> tuple[Tensor, Layout]:
        single = not isinstance(found, Mapping) or (self.sites is not None and self.single)
        parts = found if isinstance(found, Mapping) else {QUANTITY: found}
        tensors: dict[str, Tensor] = {}
        for name, value in parts.items():
            if not isinstance(name, str):
                raise TypeError(f"{OWNER}: quantity must return tensors by name; found the name {shown(name)}")
            if plain and not isinstance(value, Tensor):
                with suppress(TypeError, ValueError):
                    value = torch.as_tensor(np.asarray(value, dtype=np.float64))
            if not isinstance(value, Tensor) or value.is_complex() or value.dtype == torch.bool:
                what = "" if plain else ", computed in torch from the model's weights throughout"
                raise TypeError(
                    f"{OWNER}: quantity must return a tensor, or a dict of tensors{what}; found {shown(value)}"
                )
            tensors[name] = value.double()
        if not sum(value.numel() for value in tensors.values()):
            raise ValueError(f"{OWNER}: quantity must have at least one entry; found {shown(found)}")
        layout = Layout({name: value.shape for name, value in tensors.items()}, single)
        flat = torch.cat([value.reshape(-1) for value in tensors.values()])
        bad = (~flat.isfinite()).nonzero().flatten().tolist()
        if bad:
            raise ValueError(
                f"{OWNER}: quantity must be finite at the fitted weights; found {float(flat[bad[0]])} in "
                f"{layout.entries[bad[0]]!r}"
            )
        return flat, layout


def check_derivative(
    quantity: Quantity, weights: Weights, point: Tensor, jacobian: Tensor, scale: Tensor, generator: torch.Generator
) -> None:
    """Compare derivatives with differences, along a random direction.

    Raises:
        ValueError: they are not the same, or nothing depends on the weights.
    """
    signs = 2.0 * torch.randint(0, 2, point.shape, generator=generator) - 1.0
    # a weight that hardly matters has a huge unit, over which the quantity may be anything
    direction = torch.minimum(scale, 0.1 + point.abs()) * signs.to(point)
    with torch.no_grad():
        after, before = (quantity.at(weights, point + sign * SMALL * direction)[0] for sign in (1, -1))
        values, layout = quantity.at(weights, point)
    found, expected = (after - before) / (2 * SMALL), jacobian @ direction
    # what differences cannot tell from rounding is not held against the derivative
    rounding = 1e-11 * values.abs() / SMALL
    wrong = (found - expected).abs() > AGREEMENT * torch.maximum(found.abs(), expected.abs()) + rounding
    if bool(wrong.any()):
        i = int(wrong.nonzero()[0])
        raise ValueError(
            f"{OWNER}: quantity {layout.entries[i]!r} changes with the weights by {float(found[i]):.4g} where its "
            f"derivative says {float(expected[i]):.4g}: something in it leaves torch's graph (no_grad, float(), "
            ".item(), .numpy(), a method of a posterior) or jumps; compute it from the model's parameters in torch, or "
            'use how="bootstrap"'
        )
    if not bool(jacobian.any()):
        raise ValueError(f"{OWNER}: quantity depends on nothing that was learned")


def declared_entries(weights: Weights, at: Tensor, values: Tensor, jacobian: Tensor, clock: DataSpec) -> Entries:
    """Return supports and units of entries that are parameters of the model: the same value, and the same derivative.

    Args:
        weights: what the vector stands for.
        at: a vector that derivatives can be asked of, (size,).
        values: (entry,).
        jacobian: d values / d at, (entry, size).
        clock: of the data, on which times are in seconds or in steps.
    """
    low, high = torch.full_like(values, -torch.inf), torch.full_like(values, torch.inf)
    units = [""] * len(values)
    known = weights.evaluate(
        lambda model: [(each.spec, each.value().double().reshape(-1)) for each in declared_parameters(model)], at
    )
    for spec, own in known:
        ends = bounds(spec.support)
        if spec.support is constraints.simplex:  # of probabilities each is one
            ends = torch.zeros(()), torch.ones(())
        if not spec.unit and all(end.isinf().all() for end in ends):
            continue
        for entry, place in torch.isclose(values[:, None].detach(), own.detach(), rtol=1e-12, atol=0.0).nonzero():
            if not _same_derivative(own[place], at, jacobian[entry]):
                continue
            least, most = (end.to(values).expand(own.shape)[place] if end.numel() > 1 else end for end in ends)
            low[entry], high[entry] = least, most
            units[int(entry)] = spec.unit_on(clock)
    return Entries(low, high, tuple(units))


def _same_derivative(value: Tensor, at: Tensor, row: Tensor) -> bool:
    if not value.requires_grad:
        return not bool(row.any())
    (own,) = torch.autograd.grad(value, at, retain_graph=True, materialize_grads=True)
    return torch.allclose(own, row, rtol=1e-9, atol=1e-12 * float(row.abs().max()))


def with_transform(entries: Entries, transform: Any, layout: Layout, values: Tensor) -> Entries:
    """Return where entries may lie by what was asked for.

    Raises:
        ValueError: an unknown transform, one of a part that there is not, or a value outside of it.
        TypeError: neither a word nor a dict of them.
    """
    if isinstance(transform, Mapping):
        if unknown := [name for name in transform if name not in layout.shapes]:
            raise ValueError(f"{OWNER}: transform names {unknown[0]!r}; the quantity has {list(layout.shapes)}")
        asked = [transform.get(name, AUTO) for name, shape in layout.shapes.items() for _ in range(shape.numel())]
    else:
        asked = [transform] * len(values)
    low, high = entries.low.clone(), entries.high.clone()
    for i, each in enumerate(asked):
        if check_choice(OWNER, "transform", each, (AUTO, *BOUNDS)) != AUTO:
            low[i], high[i] = BOUNDS[each]
    outside = (~((values > low) & (values < high))).nonzero().flatten().tolist()
    for i in [i for i in outside if asked[i] == AUTO]:  # at the very end of a support there is no scale but its own
        low[i], high[i] = BOUNDS["identity"]
    for i in [i for i in outside if asked[i] != AUTO]:
        raise ValueError(
            f"{OWNER}: {layout.entries[i]!r} is {float(values[i]):.6g}, outside of ({float(low[i]):g}, "
            f"{float(high[i]):g}), the values that transform={asked[i]!r} takes; give transform='identity'"
        )
    return Entries(low, high, entries.units)


class _Attached(TorchFunctionMode):
    """Within it, what detaches a tensor leaves it as it is.

    Properties that show parameters to people, such as `LeakyIntegrator.time_constant`, detach them: a derivative would
    be zero, and with it an uncertainty.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (torch.Tensor.detach, torch.detach, torch.Tensor.data.__get__):  # type: ignore[attr-defined]
            return args[0]
        if func in LEAVING:  # which torch refuses of what has a gradient, or warns of
            args = (args[0].detach(), *args[1:])
        return func(*args, **(kwargs or {}))


@contextmanager
def _attached() -> Iterator[None]:
    with _Attached():
        yield
