"""Scalar distributions as names and numbers: those that a saved fit may call for, and no others."""

from __future__ import annotations

import sys
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor

from latentrnn.support.arguments import is_number

# by class, so that no file can name anything else that `pyro.distributions` happens to hold
_CLASSES: tuple[type, ...] = (
    dist.AsymmetricLaplace, dist.Beta, dist.Cauchy, dist.Chi2, dist.Exponential, dist.FisherSnedecor, dist.Gamma,
    dist.Gumbel, dist.HalfCauchy, dist.HalfNormal, dist.InverseGamma, dist.Kumaraswamy, dist.Laplace, dist.LogNormal,
    dist.Normal, dist.Pareto, dist.SoftLaplace, dist.Stable, dist.StudentT, dist.Uniform, dist.VonMises, dist.Weibull,
)  # fmt: skip
KNOWN: dict[str, type] = {kind.__name__: kind for kind in _CLASSES}


def distribution_arguments(distribution: torch.distributions.Distribution) -> dict[str, Tensor]:
    """Return the arguments that would make a scalar distribution again."""
    constraints = distribution.arg_constraints
    # vars() tells probs from logits; transformed families (LogNormal) keep theirs in the base distribution
    names = [k for k in constraints if k in vars(distribution)] or list(constraints)
    return {k: torch.as_tensor(getattr(distribution, k)) for k in names}


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
    # the bounds of a Uniform depend on each other, so that torch has them by instance
    known = ("low", "high") if kind is dist.Uniform else tuple(kind.arg_constraints)
    if not isinstance(arguments, dict) or not arguments.keys() <= set(known):
        raise ValueError(f"distribution {name}: expected arguments among {list(known)}")
    for argument, value in arguments.items():
        if not is_number(value) or not abs(value) <= sys.float_info.max:
            raise ValueError(f"distribution {name}: {argument} must be a finite number; found {value!r}")
    try:
        return kind(**{k: torch.tensor(float(v), device="cpu") for k, v in arguments.items()}, validate_args=True)
    except (TypeError, ValueError) as error:
        raise ValueError(f"distribution {name}: {str(error).splitlines()[0]}") from error


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
