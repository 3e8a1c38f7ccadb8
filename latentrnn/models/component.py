"""The base of every part a model is composed of: hyper-parameters in, parameters at `build`."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor, nn

from latentrnn.models.parameters.distributions import (
    check_distribution,
    distribution_arguments,
    distribution_name,
    named_distribution,
    without_event,
)
from latentrnn.models.parameters.parameter_spec import ParameterSpec
from latentrnn.support.arguments import as_plain
from latentrnn.support.deprecations import former_methods
from latentrnn.support.shown import shown

_PACKAGE = __name__.partition(".")[0]
_REGISTRY: dict[str, type[Component]] = {}  # what a file may call for, by saved name


class InOwnUnits:
    """A prior that is meant in the units of a component, whatever those of the data are."""


class Component(nn.Module):
    """A part of a model or guide, described completely by the arguments of its `__init__`.

    A subclass stores every argument of its `__init__` under the argument's own name, and creates its
    parameters in `build(...)`, which the model (or guide) calls once with the sizes that it needs. So all
    parameters exist before the first forward pass, and `repr` and JSON form follow from the arguments.

    A class of your own may have any name, that of one of the package's too: it stands for itself alone. In a file it is
    named by its module, "my_module:Poisson", and it must have been imported (or defined) before the file is loaded; of
    a class that was defined twice, as when a notebook's cell runs again, the newest counts.

    Every number of a component is learned as a point, unless it is known or has a prior. It goes by the name that the
    class says in `declared`, with its unit and support, or else by that of its tensor; `model.parameters_table()` lists
    all of them. A class whose `__init__` takes `**shared` and hands it on takes these two arguments:

    Args:
        priors: a prior by name of parameter: a distribution of the parameter's support, of one entry, for all alike,
            or of the parameter's shape; or a `Population`. The parameter becomes a Pyro site.
        fixed: known values by name of parameter, of its shape or one for all entries: these are never learned.

    Example:
        >>> import latentrnn as lr
        >>> lr.GRU(64)
        GRU(hidden_size=64)
        >>> lr.Linear(8).config()
        {'class': 'Linear', 'arguments': {'hidden_size': 8}}
    """

    declared: ClassVar[Mapping[str, ParameterSpec]] = MappingProxyType({})  # of its own class, by name
    writes_priors = False  # whether files hold its priors where it has none, as those of earlier versions do
    network_weights: ClassVar[tuple[str, ...]] = ()  # own tensors that decay, besides those of torch's layers
    is_network = True  # whether weights within it may decay; False where its numbers mean something by themselves
    priors: Any = None  # those that it was given, by parameter
    fixed: Any = None  # known values, by parameter
    _sampled: Mapping[str, Any] = MappingProxyType({})  # priors of its own parameters, once built
    _of_several: Mapping[str, Mapping[str, Any]] = MappingProxyType({})  # those that several share, once built, by name
    _settled: tuple[str, ...] = ()  # paths of its own tensors that are learned no longer
    added_later: tuple[str, ...] = ()  # buffers that fits saved by earlier versions lack: they keep what `build` gave
    arguments_added_later: ClassVar[Mapping[str, Any]] = MappingProxyType({})  # what their absence from a file means

    def __init__(self, *, priors: Mapping[str, Any] | None = None, fixed: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        owner = type(self).__name__
        for argument, given in (("priors", priors), ("fixed values", fixed)):
            if given is not None and not isinstance(given, Mapping):
                raise _no_dict(self, argument, given)
        for name, prior in (priors or {}).items():
            if not isinstance(prior, Component):
                check_distribution(owner, f"priors[{name!r}]", prior)
        if both := sorted(set(priors or {}) & set(fixed or {})):
            raise ValueError(f"{owner}: {both} cannot be fixed and have a prior at once")
        if priors or fixed or self.writes_priors:
            self.priors = dict(priors or {})
            self.fixed = {name: known_value(owner, name, value) for name, value in (fixed or {}).items()}

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        former_methods(cls)
        name = saved_name(cls)
        if name == cls.__name__ and name in _REGISTRY and _REGISTRY[name].__module__ != cls.__module__:
            raise TypeError(f"{name}: the package has a component of that name, in {_REGISTRY[name].__module__}")
        _REGISTRY[name] = cls

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *rest: Any) -> None:
        for name in self.added_later:
            state_dict.setdefault(prefix + name, self.get_buffer(name))
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def arguments(self) -> dict[str, Any]:
        """Return the arguments of `__init__` that would make this component again, unbuilt."""
        found = {name: getattr(self, name) for name in self._signature()}
        without = {"fixed"} if self.writes_priors else {"priors", "fixed"}
        return {name: value for name, value in found.items() if value or name not in without}

    @classmethod
    def _signature(cls) -> dict[str, inspect.Parameter]:
        """Return the parameters of `__init__`; `**shared` stands for those of the class above."""
        found: dict[str, inspect.Parameter] = {}
        for base in cls.__mro__:
            if base is nn.Module:
                break  # a part without arguments needs no `__init__`
            if "__init__" not in vars(base):
                continue
            parameters = inspect.signature(vars(base)["__init__"]).parameters
            found |= {k: p for k, p in list(parameters.items())[1:] if p.kind is not p.VAR_KEYWORD and k not in found}
            if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
                return found
        return found

    def config(self) -> dict[str, Any]:
        """Return the JSON form: `{"class": name, "arguments": {...}}`, nested components included."""
        return {"class": saved_name(type(self)), "arguments": {k: _encode(v) for k, v in self.arguments().items()}}

    def fresh(self) -> Self:
        """Return an unbuilt copy of the same class, so that one description can serve several models.

        Components among its arguments are made afresh too; distributions and the like, which nothing changes, are
        shared.
        """
        return type(self)(**{name: _afresh(value) for name, value in self.arguments().items()})

    @classmethod
    def _from_arguments(cls, arguments: dict[str, Any]) -> Self:
        """Return the component that a file describes by these arguments, which are not to be trusted."""
        known = cls._signature()
        absent = {name: value for name, value in cls.arguments_added_later.items() if name in known}
        return cls(**{**absent, **arguments})

    def __repr__(self) -> str:
        defaults = {k: p.default for k, p in self._signature().items()}
        shown = {k: v for k, v in self.arguments().items() if not _same(v, defaults[k])}
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in shown.items())})"

    def add_parameter(self, name: str, value: Tensor, priors: Mapping[str, Any] | None = None) -> None:
        """Register `value` as a parameter, or, where `priors` names it, as the starting point of a Pyro site.

        Raises:
            TypeError: `priors` are not priors by name.
        """
        if priors is not None and not isinstance(priors, Mapping):
            raise TypeError(
                f"{type(self).__name__}: priors must be a dict of priors by parameter; found {shown(priors)}"
            )
        if priors and name in priors:
            self.register_buffer(name, value)
            self._sampled = {**self._sampled, name: priors[name]}
        else:
            self.register_parameter(name, nn.Parameter(value))

    def own_priors(self) -> dict[str, Any]:
        """Return the priors on this component's own parameters, by name, in the order in which they were given."""
        given = self.priors or {}
        if not isinstance(given, Mapping):
            raise TypeError(
                f"{type(self).__name__}: priors must be a dict of priors by parameter; found {shown(given)}"
            )
        found: dict[str, Any] = {}
        for name, prior in given.items():
            found |= self._of_several.get(name, {name: prior})
        return {**found, **{name: prior for name, prior in self._sampled.items() if name not in found}}

    def spread_prior(self, name: str, priors: Mapping[str, Any]) -> None:
        """Put a prior that was given by the name of several parameters on each of them.

        Args:
            name: by which it was given.
            priors: of the parameters, by name.
        """
        self._of_several = {**self._of_several, name: dict(priors)}

    def own_fixed(self) -> dict[str, Any]:
        """Return the known values of this component's own parameters, by name."""
        return dict(self.fixed or {})

    def settled(self) -> dict[str, Any]:
        """Return priors and known values of this component and those within it, by path of parameter.

        Those that are meant in the component's own units are left out.
        """
        found: dict[str, Any] = {}
        for path, part in self.named_modules():
            if isinstance(part, Component):
                priors = {name: prior for name, prior in part.own_priors().items() if not isinstance(prior, InOwnUnits)}
                given = priors | part.own_fixed()
                found |= {f"{path}.{name}" if path else name: value for name, value in given.items()}
        return found

    def parameter_specs(self) -> dict[str, ParameterSpec]:
        """Return the specs of this component's own parameters by name, once built; parts within it have theirs."""
        own = own_tensors(self)
        classes = [vars(kind).get("declared", {}) for kind in reversed(type(self).__mro__)]
        found = {name: spec for declared in classes for name, spec in declared.items() if spec.raw in own}
        spoken_for = {spec.raw for spec in found.values()} | own.keys() - self._parameter_paths(own)
        return found | {path: ParameterSpec(path) for path in own if path not in spoken_for}

    def parameter_spec(self, name: str) -> ParameterSpec:
        """Return the spec of one of them."""
        for kind in type(self).__mro__:
            if name in (declared := vars(kind).get("declared", {})):
                return declared[name]
        return ParameterSpec(name)

    def _parameter_paths(self, own: Mapping[str, Tensor]) -> set[str]:
        """Return which of the own tensors are parameters: learned, sampled, or known."""
        # by where they are kept: a plain tensor may stand in for a learned one, as in `torch.func.functional_call`
        learned = {path for path, _ in self.named_parameters(remove_duplicate=False)} & own.keys()
        return learned | set(self._sampled) | set(self._settled)

    def settle(self, path: str) -> None:
        """Make a learned tensor a buffer: a draw stands in for it from now on, or it is known."""
        holder, _, name = path.rpartition(".")
        module = self.get_submodule(holder)
        tensor = getattr(module, name)
        if isinstance(tensor, nn.Parameter):
            delattr(module, name)
            module.register_buffer(name, tensor.detach())
        self._settled = (*self._settled, path)


def _no_dict(component: Component, what: str, found: Any) -> TypeError:
    owner = type(component).__name__
    return TypeError(f"{owner}: {what} must be a dict of {what} by parameter; found {shown(found)}")


def known_value(owner: str, name: str, value: Any) -> Any:
    """Return a known value as a number, or nested lists of them; the name of a covariate as it is.

    Raises:
        TypeError: it is neither.
        ValueError: a number is not finite.
    """
    if isinstance(value, str):
        return value
    try:
        numbers = np.asarray(as_plain(value), dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{owner}: fixed[{name!r}] must be a number or an array; found {shown(value)}") from error
    if not np.isfinite(numbers).all():
        raise ValueError(f"{owner}: fixed[{name!r}] must be finite; found {shown(value)}")
    return numbers.tolist()


def floating_type(module: nn.Module, otherwise: torch.dtype) -> torch.dtype:
    """Return the floating type that a module computes in: of its weights, or of known ones where nothing is learned."""
    tensors = (*module.parameters(), *module.buffers())
    return next((tensor.dtype for tensor in tensors if tensor.is_floating_point()), otherwise)


def tensor_at(component: nn.Module, path: str) -> Tensor:
    """Return a tensor of a component or of a module within it."""
    found: Any = component
    for name in path.split("."):
        found = getattr(found, name)
    return found


def own_tensors(component: Component) -> dict[str, Tensor]:
    """Return the tensors of a component by path, those of components within it left out."""
    found: dict[str, Tensor] = {}
    pending: list[tuple[str, nn.Module]] = [("", component)]
    while pending:
        prefix, module = pending.pop(0)
        tensors = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
        found |= {prefix + name: tensor for name, tensor in tensors}
        inner = [(f"{prefix}{name}.", child) for name, child in module.named_children()]
        pending += [(path, child) for path, child in inner if not isinstance(child, Component)]
    return found


def overrides_after(kind: type, method: str, trait: str) -> bool:
    """Return whether a class has a method from a class, or a mixin, in front of the one that declares its trait.

    So a trait that follows from a method is right for whoever overrides the method alone, and is what a class says
    where it says it itself.
    """
    for each in kind.__mro__:
        if trait in vars(each):
            return False
        if method in vars(each):
            return True
    return False


def saved_name(kind: type[Component]) -> str:
    """Return what a class is called in files: the package's own by name, any other by module and name."""
    own = kind.__module__.partition(".")[0] == _PACKAGE
    return kind.__name__ if own else f"{kind.__module__}:{kind.__qualname__}"


def with_modules(config: Any, homes: Mapping[str, str]) -> Any:
    """Return a JSON form whose classes were named without their modules, as older files are, with them.

    Args:
        config: of a component, or anything that holds some.
        homes: class name to module, of every class that is not the package's own.

    Raises:
        ValueError: a module has several classes of the name.
    """
    if isinstance(config, list):
        return [with_modules(item, homes) for item in config]
    if not isinstance(config, dict):
        return config
    config = {key: with_modules(value, homes) for key, value in config.items()}
    if config.keys() == {"class", "arguments"} and config["class"] in homes:
        name = config["class"]
        meant = [k for k, c in _REGISTRY.items() if (c.__module__, c.__name__) == (homes[name], name)]
        if len(meant) > 1:
            raise ValueError(f"component class {name!r} could be any of {sorted(meant)}")
        config["class"] = meant[0] if meant else f"{homes[name]}:{name}"
    return config


def from_config(config: Any, kind: type[Component] | None = None) -> Any:
    """Return the unbuilt component that a JSON form describes.

    Args:
        config: what `Component.config` returned.
        kind: the class of which it must be, e.g. `Transition`; None for any.

    Raises:
        ValueError: the class is unknown (a class of the user's own must be imported first), ambiguous, not meant to be
            used by itself, or of another kind; or this is not the form of a component.
    """
    if not isinstance(config, dict) or config.keys() != {"class", "arguments"}:
        raise ValueError(f"expected the form of a component, a class and its arguments; found {shown(config)}")
    name, arguments = config["class"], config["arguments"]
    if not isinstance(name, str) or not isinstance(arguments, dict):
        raise ValueError(f"expected the name of a class and its arguments by name; found {shown(config)}")
    found = registered(name)
    if kind is not None and not issubclass(found, kind):
        raise ValueError(f"expected the class of a {kind.__name__}; found {name!r}")
    return found._from_arguments({k: _decode(v) for k, v in arguments.items()})


def registered(name: str) -> type[Component]:
    """Return the class that a file calls by this name; nothing is imported.

    A script's own classes are in the module `__main__` while it runs, and in one of the script's name when another
    imports it, so that the one stands for the other. Older files hold names without a module.

    Raises:
        ValueError: there is no such class, or there are several.
    """
    found = _REGISTRY.get(name)
    if found is not None:
        if saved_name(found) == found.__name__ and _unfinished(found):
            raise ValueError(f"component class {name!r} is a base for others, which no model is made of")
        return found
    module, colon, local = name.rpartition(":")
    own = [kind for kind in _REGISTRY.values() if saved_name(kind) != kind.__name__]
    if colon:
        meant = [kind for kind in own if kind.__qualname__ == local and "__main__" in (module, kind.__module__)]
    else:
        meant = [kind for kind in own if kind.__name__ == name]
    if len(meant) > 1:
        homes = sorted(saved_name(kind) for kind in meant)
        raise ValueError(
            f"component class {shown(name)} could be any of {homes}; import (define) the one that is meant"
        )
    if not meant:
        remedy = f"import {module}, which defines it," if colon else "if it is your own, import what defines it"
        raise ValueError(f"unknown component class {shown(name)}; {remedy} first. Known: {sorted(_REGISTRY)}")
    return meant[0]


def _unfinished(kind: type[Component]) -> bool:
    return any(getattr(getattr(kind, name, None), "__isabstractmethod__", False) for name in dir(kind))


def _afresh(value: Any) -> Any:
    if isinstance(value, Component):
        return value.fresh()
    if isinstance(value, dict):
        return {k: _afresh(v) for k, v in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_afresh(v) for v in value)
    return value


def _encode(value: Any) -> Any:
    if isinstance(value, Component):
        return value.config()
    if isinstance(value, torch.distributions.Distribution):
        value = without_event(value)
        arguments = {k: v.tolist() if isinstance(v, Tensor) else v for k, v in distribution_arguments(value).items()}
        return {"distribution": distribution_name(value), "arguments": arguments}
    if isinstance(value, dict):
        return {k: _encode(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_encode(v) for v in value]
    return value


def _decode(value: Any) -> Any:
    if isinstance(value, dict) and value.keys() == {"class", "arguments"}:  # any other keys are a user's own names
        return from_config(value)
    if isinstance(value, dict) and value.keys() == {"distribution", "arguments"}:
        return named_distribution(value["distribution"], value["arguments"])
    if isinstance(value, dict):
        return {k: _decode(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_decode(v) for v in value]
    return value


def _same(value: Any, default: Any) -> bool:
    if isinstance(value, Component | torch.distributions.Distribution):
        return value is default
    if isinstance(value, dict | list | tuple) and not value and not default:
        return True
    same = value == default
    return isinstance(same, bool | np.bool_) and bool(same)  # of an array it is one too
