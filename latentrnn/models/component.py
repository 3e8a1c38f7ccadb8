"""The base of every part a model is composed of: hyper-parameters in, parameters at `build`."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor, nn

from latentrnn.models.scalar_distributions import distribution_arguments, distribution_name, named_distribution
from latentrnn.support.deprecations import former_methods
from latentrnn.support.shown import shown

_PACKAGE = __name__.partition(".")[0]
_REGISTRY: dict[str, type[Component]] = {}  # what a file may call for, by saved name


class Component(nn.Module):
    """A part of a model or guide, described completely by the arguments of its `__init__`.

    A subclass stores every argument of its `__init__` under the argument's own name, and creates its
    parameters in `build(...)`, which the model (or guide) calls once with the sizes that it needs. So all
    parameters exist before the first forward pass, and `repr` and JSON form follow from the arguments.

    A class of your own may have any name, that of one of the package's too: it stands for itself alone. In a file it is
    named by its module, "my_module:Poisson", and it must have been imported (or defined) before the file is loaded; of
    a class that was defined twice, as when a notebook's cell runs again, the newest counts.

    Example:
        >>> import latentrnn as lr
        >>> lr.GRU(64)
        GRU(hidden_size=64)
        >>> lr.Linear(8).config()
        {'class': 'Linear', 'arguments': {'hidden_size': 8}}
    """

    interpretable: tuple[str, ...] = ()  # parameters that may carry a prior and so become Pyro sites
    priors: Any = None  # those that it was given, by parameter
    # whether it is evaluated apart from the head that it is in, where no draws are in its parameters' place
    apart = False
    _sampled: Mapping[str, Any] = MappingProxyType({})  # priors of its own parameters, once built
    added_later: tuple[str, ...] = ()  # buffers that fits saved by earlier versions lack: they keep what `build` gave
    arguments_added_later: ClassVar[Mapping[str, Any]] = MappingProxyType({})  # what their absence from a file means

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
        return {name: getattr(self, name) for name in self._signature()}

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

        What has a prior is sampled by the model, so it is a buffer here: its value only starts the guide. So far that
        is done for what belongs to a head (its readout, its gain); a model refuses priors anywhere else.

        Raises:
            TypeError: `priors` are not priors by name.
        """
        if priors is not None and not isinstance(priors, Mapping):
            raise TypeError(f"{type(self).__name__}: priors must be priors by parameter name; found {shown(priors)}")
        if priors and name in priors:
            self.register_buffer(name, value)
            self._sampled = {**self._sampled, name: priors[name]}
        else:
            self.register_parameter(name, nn.Parameter(value))

    def given_priors(self) -> dict[str, Any]:
        """Return the priors that this component was given, by name of parameter, honoured or not."""
        given = self.priors or {}
        if not isinstance(given, Mapping):
            raise TypeError(f"{type(self).__name__}: priors must be priors by parameter name; found {shown(given)}")
        # in the order in which they were given, which is that of the sites, and so of a guide's weights in files
        return {**given, **{name: prior for name, prior in self._sampled.items() if name not in given}}

    def prior_sites(self) -> dict[str, Any]:
        """Return the priors of this component and its sub-components, keyed by parameter path."""
        sites: dict[str, Any] = {}
        for path, module in self.named_modules():
            if not isinstance(module, Component):
                continue
            own = {name for name, _ in module.named_buffers(recurse=False)}
            for name, prior in module.given_priors().items():
                if name in own:  # an observation passes its readout's priors on
                    sites[f"{path}.{name}" if path else name] = prior
        return sites


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
        arguments = {k: v.tolist() for k, v in distribution_arguments(value).items()}
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
