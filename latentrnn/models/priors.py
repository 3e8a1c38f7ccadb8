"""Priors of parameters: fixed, or learned from all the parameters that share them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.distributions import biject_to

from latentrnn.models.component import Component
from latentrnn.models.scalar_distributions import distribution_arguments, pyro_class
from latentrnn.models.sites import parameter_site

LEAST_SPREAD = 0.05  # where the members start alike, their scale starts here, in their own units


class Population(Component):
    """A prior with learned location and scale, shared by every parameter that names the same population.

        m ~ location,  s ~ scale,  theta_i ~ Normal(m, s^2) for every entry i of every member

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
# populations by name, with head and path of every member
Populations: TypeAlias = dict[str, tuple[Population, list[tuple[str, str]]]]


def populations(heads: Mapping[str, Component]) -> Populations:
    """Return the populations that a model's heads name, each with head and path of all its members.

    Raises:
        ValueError: one name for two different populations, or for a population and a head.
    """
    found: Populations = {}
    for head, observation in heads.items():
        for path, prior in observation.prior_sites().items():
            if not isinstance(prior, Population):
                continue
            population, members = found.setdefault(prior.name, (prior, []))
            if population.config() != prior.config():
                raise ValueError(
                    f"observations[{head!r}]: expected Population {prior.name!r} as described for {members[0][0]!r}, "
                    f"{population!r}; found {prior!r}"
                )
            members.append((head, path))
    for name in found:
        if name in heads:
            raise ValueError(f"Population: {name!r} is the name of a head; choose another")
    return found


def check_priors(owner: str, priors: dict[str, Prior] | None, allowed: tuple[str, ...]) -> dict[str, Prior]:
    """Return the priors as a dict.

    Raises:
        ValueError: a prior on something that `allowed` does not list.
        TypeError: a prior that is neither a scalar distribution nor a `Population`.
    """
    if priors is not None and not isinstance(priors, Mapping):
        raise TypeError(f"{owner}: priors must be a dict of priors by parameter; found {priors!r}")
    priors = dict(priors or {})
    for name, prior in priors.items():
        if name not in allowed:
            raise ValueError(f"{owner}: no prior can be put on {name!r}; expected one of {list(allowed)}")
        _check_prior(owner, name, prior)
    return priors


def refuse_ignored_priors(owner: str, part: nn.Module, *, readout: Component | None = None) -> None:
    """Raise where a component was given a prior that would be neither sampled nor trained.

    Draws stand in for the parameters of a head while its distribution is evaluated, and nowhere else so far: those of
    its readout, its gain, its link and its own are honoured; those of what is evaluated apart from it (features,
    pooling, the filters of its history), and of everything that is no part of a head, are not.

    Args:
        owner: whose part it is, e.g. "observations['spikes']".
        part: the component, or a module that holds some, built.
        readout: of a head, to which the head passes priors on; None where the part is no head.

    Raises:
        ValueError: naming the component, the parameter, and what can have priors.
        TypeError: a prior that is neither a scalar distribution nor a `Population`.
    """
    apart: list[str] = []
    for path, module in part.named_modules():
        if not isinstance(module, Component):
            continue
        if module.apart:
            apart.append(f"{path}.")
        within = readout is not None and not f"{path}.".startswith(tuple(apart))
        own = {name for name, _ in module.named_buffers(recurse=False)}
        if module is part and readout is not None:
            own |= readout.prior_sites().keys()
        for name, prior in module.given_priors().items():
            if within and name in own:
                _check_prior(owner, name, prior)
                continue
            what = "it is not sampled there" if name in own else "there is no parameter of that name to sample"
            raise ValueError(
                f"{owner}: {type(module).__name__} was given a prior on {name!r}, which would be ignored: "
                f"{what}. Priors can be put on parameters of a head's readout, gain or link (LinearReadout: 'weight', "
                "'baseline'; FactorReadout: 'loading', 'baseline'; StimulusGain: 'beta'); leave this one out to learn "
                "a point estimate"
            )


def expanded_prior(prior: Prior, like: Tensor, shared: Mapping[str, Mapping[str, Tensor]]) -> dist.Distribution:
    """Return a prior as a distribution over tensors like `like`, all entries in the event.

    Args:
        prior: a scalar distribution, or a population.
        like: a tensor of the parameter's shape.
        shared: location and scale of every population, (*sample, 1) or scalars.
    """
    if isinstance(prior, Population):
        location, scale = (shared[prior.name][part] for part in ("location", "scale"))
        location, scale = (value.reshape(*value.shape, *[1] * like.dim()) for value in (location, scale))
        entries = dist.Normal(location, scale, validate_args=False)
        return entries.expand(entries.batch_shape[: location.dim() - like.dim()] + like.shape).to_event(like.dim())
    arguments = {k: v.to(like) for k, v in distribution_arguments(prior).items()}
    return pyro_class(prior)(**arguments).expand(like.shape).to_event(like.dim())


def _check_prior(owner: str, name: str, prior: object) -> None:
    if not isinstance(prior, Population):
        _check_scalar(owner, f"priors[{name!r}]", prior)


def _check_scalar(owner: str, name: str, prior: object) -> None:
    if not isinstance(prior, torch.distributions.Distribution):
        raise TypeError(f"{owner}: {name} must be a distribution; found {type(prior).__name__}")
    if prior.batch_shape + prior.event_shape != torch.Size():
        raise ValueError(
            f"{owner}: {name} must be a scalar distribution, shared by the entries of the parameter; "
            f"found shape {tuple(prior.batch_shape + prior.event_shape)}"
        )
    try:
        biject_to(prior.support)
        pyro_class(prior)(**distribution_arguments(prior))
        if isinstance(prior, dist.Delta):
            raise TypeError("a point has no density")
    except (AttributeError, NotImplementedError, TypeError, ValueError) as error:
        raise TypeError(
            f"{owner}: {name} must be a distribution over a continuous quantity that its own arguments describe, such "
            f"as Normal or Gamma; found {prior!r}"
        ) from error
