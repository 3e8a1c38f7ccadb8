"""Distributions as names and numbers: those that a saved fit may call for, and no others."""

from __future__ import annotations

import inspect
import sys
from functools import cache
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import biject_to

from latentrnn.models.parameters.ordered import OrderedNormal
from latentrnn.support.arguments import is_number

# by class, so that no file can name anything else that `pyro.distributions` happens to hold
_CLASSES: tuple[type, ...] = (
    dist.AffineBeta, dist.AsymmetricLaplace, dist.Beta, dist.Cauchy, dist.Chi2, dist.Dirichlet, dist.Exponential,
    dist.FisherSnedecor, dist.Gamma, dist.Gumbel, dist.HalfCauchy, dist.HalfNormal, dist.InverseGamma,
    dist.Kumaraswamy, dist.LKJCholesky, dist.Laplace, dist.LogNormal, dist.MultivariateNormal, dist.Normal,
    OrderedNormal, dist.Pareto, dist.SoftLaplace, dist.Stable, dist.StudentT, dist.Uniform, dist.VonMises, dist.Weibull,
)  # fmt: skip
LARGEST_SIZE = 4096
KNOWN: dict[str, type] = {kind.__name__: kind for kind in _CLASSES}
_SIZES = {dist.LKJCholesky: ("dim",)}  # arguments that are whole numbers
# those that torch has by instance, since they depend on each other, or under the names of a distribution within
_ARGUMENTS: dict[Any, tuple[str, ...]] = {
    dist.Uniform: ("low", "high"),
    dist.AffineBeta: ("concentration1", "concentration0", "loc", "scale"),
}


def distribution_arguments(distribution: torch.distributions.Distribution) -> dict[str, Any]:
    """Return the arguments that would make a distribution again."""
    kind: Any = pyro_class(distribution)
    if kind in _ARGUMENTS:
        return {k: torch.as_tensor(getattr(distribution, k)) for k in _ARGUMENTS[kind]}
    sizes = {k: int(getattr(distribution, k)) for k in _SIZES.get(kind, ())}
    constraints = distribution.arg_constraints
    # vars() tells probs from logits; transformed families (LogNormal) keep theirs in the base distribution
    names = [k for k in constraints if k in vars(distribution)] or list(constraints)
    return sizes | {k: torch.as_tensor(getattr(distribution, k)) for k in names}


def described(distribution: torch.distributions.Distribution) -> str:
    """Return a distribution as it would be written, its arguments rounded: "Normal(loc=0, scale=1)"."""
    plain = without_event(distribution)
    arguments = {k: v.tolist() if isinstance(v, Tensor) else v for k, v in distribution_arguments(plain).items()}
    return f"{type(plain).__name__}({', '.join(f'{name}={_rounded(value)}' for name, value in arguments.items())})"


def _rounded(value: Any) -> str:
    return f"[{', '.join(map(_rounded, value))}]" if isinstance(value, list) else f"{value:.4g}"


def without_event(prior: torch.distributions.Distribution) -> torch.distributions.Distribution:
    """Return a distribution of which no axis was declared one of its event, as `to_event` does."""
    while isinstance(prior, torch.distributions.Independent):
        prior = prior.base_dist
    return prior


def expanded(prior: torch.distributions.Distribution, like: Tensor) -> dist.Distribution:
    """Return a distribution over tensors like `like`, in its type and on its device, all entries in the event."""
    prior = without_event(prior)
    arguments = {k: v.to(like) if isinstance(v, Tensor) else v for k, v in distribution_arguments(prior).items()}
    if not prior.event_shape:  # at once, not by a distribution of one entry
        alike = {k: v.expand(like.shape) for k, v in arguments.items()}
        kind = pyro_class(prior)
        found: dist.Distribution = kind(**alike, validate_args=False) if _takes_validate_args(kind) else kind(**alike)
        return found.to_event(like.dim())
    entries = pyro_class(prior)(**arguments)
    batch = like.shape[: like.dim() - len(entries.event_shape)]
    return entries.expand(batch).to_event(len(batch))


@cache
def _takes_validate_args(kind: type) -> bool:
    """Whether a class can be told not to check its arguments; one of a user's own need not."""
    parameters = inspect.signature(kind.__init__).parameters  # type: ignore[misc]
    return "validate_args" in parameters or any(each.kind is each.VAR_KEYWORD for each in parameters.values())


def check_distribution(owner: str, name: str, prior: object) -> None:
    """Raise unless `prior` is a distribution over a continuous quantity that its own arguments describe.

    Raises:
        TypeError: naming what was given it.
    """
    if not isinstance(prior, torch.distributions.Distribution):
        raise TypeError(f"{owner}: {name} must be a distribution; found {type(prior).__name__}")
    plain = without_event(prior)
    try:
        biject_to(plain.support)
        pyro_class(plain)(**distribution_arguments(plain))
        if isinstance(plain, dist.Delta):
            raise TypeError("a point has no density")
    except (AttributeError, NotImplementedError, TypeError, ValueError) as error:
        raise TypeError(
            f"{owner}: {name} must be a distribution over a continuous quantity that its own arguments describe, such "
            f"as Normal or Gamma; found {prior!r}"
        ) from error


def pyro_class(distribution: torch.distributions.Distribution) -> Any:
    """Return the class of a distribution, Pyro's own where it is one of torch's."""
    kind = type(distribution)
    return KNOWN.get(kind.__name__, kind) if kind.__module__.startswith("torch.distributions.") else kind


def distribution_name(distribution: torch.distributions.Distribution) -> str:
    """Return the name of a distribution that a file may call for, or "module:name" of one that no file may."""
    kind: type = pyro_class(distribution)
    return kind.__name__ if KNOWN.get(kind.__name__) is kind else f"{kind.__module__}:{kind.__qualname__}"


def named_distribution(name: Any, arguments: Any) -> dist.Distribution:
    """Return a scalar distribution from a name and its arguments, numbers by name.

    Raises:
        ValueError: a distribution that is not in the list, or arguments that are not its own.
    """
    if not isinstance(name, str) or name not in KNOWN:
        raise ValueError(f"distribution: expected one of {sorted(KNOWN)}; found {str(name)[:80]!r}")
    kind: Any = KNOWN[name]
    sizes = _SIZES.get(kind, ())
    known = _ARGUMENTS.get(kind) or (*sizes, *kind.arg_constraints)
    if not isinstance(arguments, dict) or not arguments.keys() <= set(known):
        raise ValueError(f"distribution {name}: expected arguments among {list(known)}")
    for argument, value in arguments.items():
        if argument in sizes and not (type(value) is int and 0 < value <= LARGEST_SIZE):
            raise ValueError(f"distribution {name}: {argument} must be a whole number; found {value!r}")
        if not _are_finite(value):
            raise ValueError(f"distribution {name}: {argument} must be a finite number; found {value!r}")
    try:
        given = {k: v if k in sizes else torch.tensor(v, dtype=torch.float64).float() for k, v in arguments.items()}
        return kind(**given, validate_args=True)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"distribution {name}: {str(error).splitlines()[0]}") from error


def _are_finite(value: Any) -> bool:
    """Return whether a number, or each of nested lists of them, is finite."""
    if isinstance(value, list):
        return bool(value) and all(map(_are_finite, value))
    return is_number(value) and abs(value) <= sys.float_info.max


def refuse_unknown_distributions(config: Any) -> None:
    """Raise where a JSON form holds a distribution that `named_distribution` would refuse.

    Raises:
        ValueError: naming the distribution.
    """
    if isinstance(config, list):
        for item in config:
            refuse_unknown_distributions(item)
    if not isinstance(config, dict):
        return
    if config.keys() == {"distribution", "arguments"}:
        named_distribution(config["distribution"], config["arguments"])
    for item in config.values():
        refuse_unknown_distributions(item)
