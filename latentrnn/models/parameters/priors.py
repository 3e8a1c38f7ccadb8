"""Priors of parameters: fixed, or learned from all the parameters that share them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.distributions import biject_to, constraints

from latentrnn.models.component import Component
from latentrnn.models.parameters.distributions import check_distribution, expanded
from latentrnn.models.sites import parameter_site

LEAST_SPREAD = 0.05  # where the members start alike, their scale starts here, in their own units


class Population(Component):
    """A prior with learned location and scale, shared by every parameter that names the same population.

        m ~ location,  s ~ scale,  theta_i ~ Normal(m, s^2) for every entry i of every member

    Of parameters that must be positive it is the logarithm that is Normal, of those between zero and one the log-odds.

    Given in the place of a distribution, `lr.Poisson(priors={"baseline": lr.Population("baselines")})`. Declared by
    `per_session`, the heads of all sessions are members of one population, so that sessions are partially pooled: a
    session with few data leans on the others, one with many speaks for itself. m and s are the sites
    `baselines.location` and `baselines.scale`, with posteriors like every parameter that has a prior.

    Args:
        name: of the population.
        location: prior of m, a scalar distribution; Normal(0, 1) by default.
        scale: prior of s, a scalar distribution over positive numbers; HalfNormal(1) by default.

    Raises:
        ValueError: a name that is no identifier, or a scale that may be negative.
        TypeError: a prior that is not a scalar distribution.

    References:
        Gelman, Hill. Data analysis using regression and multilevel/hierarchical models. 2007.

    Example:
        >>> import latentrnn as lr
        >>> lr.Poisson(priors={"baseline": lr.Population("baselines")})
        Poisson(priors={'baseline': Population(name='baselines')})
    """

    location: dist.Distribution | None
    scale: dist.Distribution | None

    def __init__(
        self, name: str, *, location: dist.Distribution | None = None, scale: dist.Distribution | None = None
    ) -> None:
        super().__init__()
        if not isinstance(name, str) or not name.isidentifier():
            raise ValueError(f"Population: expected a name of letters, digits and underscores; found {name!r}")
        for argument, prior in (("location", location), ("scale", scale)):
            if prior is not None:
                _check_scalar("Population", argument, prior)
        if scale is not None and biject_to(scale.support)(torch.tensor(-20.0)) < 0:
            raise ValueError(f"Population: scale needs a prior over positive numbers; found {scale!r}")
        self.name, self.location, self.scale = name, location, scale

    def priors_of(self, like: Tensor) -> dict[str, dist.Distribution]:
        """Return the priors of location and scale, in the type and on the device of `like`."""
        location = dist.Normal(0.0, 1.0) if self.location is None else self.location
        scale = dist.HalfNormal(1.0) if self.scale is None else self.scale
        nothing = like.new_zeros(())
        return {"location": expanded_prior(location, nothing, {}), "scale": expanded_prior(scale, nothing, {})}

    def sample(self, like: Tensor) -> dict[str, Tensor]:
        """Sample location and scale (Pyro statements)."""
        priors = self.priors_of(like).items()
        drawn = {part: pyro.sample(parameter_site(self.name, part), prior) for part, prior in priors}
        # pyro's Predictive(parallel=True) drops the axis of the plate where a guide has no local latents
        return {part: value.unsqueeze(1) if value.dim() == 1 else value for part, value in drawn.items()}

    def start(self, members: Sequence[Tensor], unit: Tensor) -> dict[str, Tensor]:
        """Return location and scale of the members' starting values; `unit` is how large the data's units make them."""
        entries = torch.cat([member.flatten() for member in members])
        return {"location": entries.mean(), "scale": torch.maximum(entries.std(correction=0), LEAST_SPREAD * unit)}


Prior: TypeAlias = torch.distributions.Distribution | Population  # what may be put on a parameter


def refuse_ignored_priors(owner: str, part: nn.Module) -> None:
    """Raise where a component that is no part of the generative program was given priors or known values.

    Args:
        owner: whose part it is, e.g. "Guide: encoder".
        part: the component, or a module that holds some, built.

    Raises:
        ValueError: naming the component and what it was given.
    """
    for module in part.modules():
        if isinstance(module, Component) and (given := [*module.own_priors(), *module.own_fixed()]):
            raise ValueError(
                f"{owner}: {type(module).__name__} was given a prior or a known value of {given[0]!r}, which would be "
                "ignored: it is no part of the generative program; leave this one out"
            )


def expanded_prior(
    prior: Prior, like: Tensor, shared: Mapping[str, Mapping[str, Tensor]], support: Any = constraints.real
) -> dist.Distribution:
    """Return a prior as a distribution over tensors like `like`, all entries in the event.

    Args:
        prior: a distribution of one entry, or of the parameter's shape, or a population.
        like: a tensor of the parameter's shape.
        shared: location and scale of every population, (*sample, 1) or scalars.
        support: of the parameter, for a population.
    """
    if isinstance(prior, Population):
        location, scale = (shared[prior.name][part] for part in ("location", "scale"))
        location, scale = (value.reshape(*value.shape, *[1] * like.dim()) for value in (location, scale))
        entries = dist.Normal(location, scale, validate_args=False)
        entries = entries.expand(entries.batch_shape[: location.dim() - like.dim()] + like.shape)
        if support is not constraints.real:
            entries = dist.TransformedDistribution(entries, [biject_to(support)])
        return entries.to_event(like.dim())
    return expanded(prior, like)


def _check_scalar(owner: str, name: str, prior: object) -> None:
    check_distribution(owner, name, prior)
    assert isinstance(prior, torch.distributions.Distribution)
    if prior.batch_shape + prior.event_shape != torch.Size():
        raise ValueError(
            f"{owner}: {name} must be a scalar distribution, shared by the entries of the parameter; "
            f"found shape {tuple(prior.batch_shape + prior.event_shape)}"
        )
