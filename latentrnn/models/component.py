"""The base of every part a model is composed of: hyper-parameters in, parameters at `build`."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, Self, cast

import pyro.distributions as dist
import torch
from torch import Tensor, nn

_REGISTRY: dict[str, type[Component]] = {}


class Component(nn.Module):
    """A part of a model or guide, described completely by the arguments of its `__init__`.

    A subclass stores every argument of its `__init__` under the argument's own name, and creates its
    parameters in `build(...)`, which the model (or guide) calls once with the sizes that it needs. So all
    parameters exist before the first forward pass, and `repr` and JSON form follow from the arguments.

    Example:
        >>> import latentrnn as lr
        >>> lr.GRU(64)
        GRU(hidden_size=64)
        >>> lr.Linear(8).config()
        {'class': 'Linear', 'arguments': {'hidden_size': 8}}
    """

    interpretable: tuple[str, ...] = ()  # parameters that may carry a prior and so become Pyro sites

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        _REGISTRY[cls.__name__] = cls

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
        return {"class": type(self).__name__, "arguments": {k: _encode(v) for k, v in self.arguments().items()}}

    def fresh(self) -> Self:
        """Return an unbuilt copy, so that one description can serve several models."""
        return cast(Self, from_config(self.config()))

    def __repr__(self) -> str:
        defaults = {k: p.default for k, p in self._signature().items()}
        shown = {k: v for k, v in self.arguments().items() if not _same(v, defaults[k])}
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in shown.items())})"

    def add_parameter(self, name: str, value: Tensor, priors: Mapping[str, Any] | None = None) -> None:
        """Register `value` as a parameter, or, where `priors` names it, as the starting point of a Pyro site.

        What has a prior is sampled by the model, so it is a buffer here: its value only starts the guide.
        """
        if priors and name in priors:
            self.register_buffer(name, value)
        else:
            self.register_parameter(name, nn.Parameter(value))

    def prior_sites(self) -> dict[str, Any]:
        """Return the priors of this component and its sub-components, keyed by parameter path."""
        sites: dict[str, Any] = {}
        for path, module in self.named_modules():
            if not isinstance(module, Component):
                continue
            own = {name for name, _ in module.named_buffers(recurse=False)}
            for name, prior in (getattr(module, "priors", None) or {}).items():
                if name in own:  # an observation passes its readout's priors on
                    sites[f"{path}.{name}" if path else name] = prior
        return sites


def from_config(config: dict[str, Any]) -> Any:
    """Return the unbuilt component that a JSON form describes.

    Raises:
        ValueError: the class is unknown (a class of the user's own must be imported first).
    """
    name = config["class"]
    if name not in _REGISTRY:
        raise ValueError(
            f"unknown component class {name!r}; if it is your own, import the module that defines it first. "
            f"Known: {sorted(_REGISTRY)}"
        )
    return _REGISTRY[name](**{k: _decode(v) for k, v in config["arguments"].items()})


def distribution_arguments(prior: dist.Distribution) -> dict[str, Tensor]:
    """Return the arguments that would make a scalar distribution again."""
    # vars() tells probs from logits; transformed families (LogNormal) keep theirs in the base distribution
    names = [k for k in prior.arg_constraints if k in vars(prior)] or list(prior.arg_constraints)
    return {k: torch.as_tensor(getattr(prior, k)) for k in names}


def _encode(value: Any) -> Any:
    if isinstance(value, Component):
        return value.config()
    if isinstance(value, torch.distributions.Distribution):
        arguments = {k: v.tolist() for k, v in distribution_arguments(value).items()}
        return {"distribution": type(value).__name__, "arguments": arguments}
    if isinstance(value, dict):
        return {k: _encode(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_encode(v) for v in value]
    return value


def _decode(value: Any) -> Any:
    if isinstance(value, dict) and value.keys() == {"class", "arguments"}:  # any other keys are a user's own names
        return from_config(value)
    if isinstance(value, dict) and value.keys() == {"distribution", "arguments"}:
        return getattr(dist, value["distribution"])(**{k: torch.tensor(v) for k, v in value["arguments"].items()})
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
    return bool(value == default)
