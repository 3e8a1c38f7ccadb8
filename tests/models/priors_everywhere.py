"""Any combination of parts with a prior on every parameter of every component."""

from __future__ import annotations

from typing import Any

import pyro.distributions as dist
import torch
from pyro import poutine
from torch import Tensor
from torch.distributions import constraints

import latentrnn as lr
from latentrnn.models.component import Component
from latentrnn.models.parameters.parameter_spec import ParameterSpec
from tests.registry import (
    LATENTS,
    OBSERVATIONS,
    TRANSITIONS,
    Combination,
    Fixed,
    fixed_latents,
    make_data,
    shake,
)


def prior_on(spec: ParameterSpec, shape: torch.Size) -> dist.Distribution:
    """A prior of one entry (of one row, for probabilities) over the whole of a parameter's support."""
    if spec.support is constraints.simplex:
        return dist.Dirichlet(2.0 * torch.ones(shape[-1]))
    if spec.support is constraints.corr_cholesky:
        return dist.LKJCholesky(shape[-1], 2.0)
    if spec.support is constraints.real:
        return dist.Normal(0.0, 0.5)
    if spec.support is constraints.unit_interval:
        return dist.Beta(3.0, 3.0)
    least = float(spec.support.lower_bound)
    return dist.LogNormal(0.0, 0.4) if least < 1e-3 else dist.Uniform(least, least + 9.0)


def names(model: lr.LatentRNN) -> dict[str, dict[str, dist.Distribution]]:
    """Priors on all parameters of all components, by what describes the component; one name for each tensor."""
    found: dict[str, dict[str, dist.Distribution]] = {}
    for part in model.modules():
        if isinstance(part, Component) and part.parameter_specs():
            by_tensor = {spec.raw: (name, spec) for name, spec in part.parameter_specs().items()}
            own = {name: prior_on(spec, value_of(part, spec).shape) for name, spec in by_tensor.values()}
            found.setdefault(repr(part), {}).update(own)
    return found


def value_of(part: Component, spec: ParameterSpec) -> Tensor:
    tensor: Any = part
    for name in spec.raw.split("."):
        tensor = getattr(tensor, name)
    return spec.value(part, tensor).detach()


def with_priors(part: Any, priors: dict[str, dict[str, dist.Distribution]]) -> Any:
    """The description of a component with priors on all parameters of it and of those within it."""
    if isinstance(part, list | tuple):
        return type(part)(with_priors(each, priors) for each in part)
    if isinstance(part, dict):
        return {name: with_priors(each, priors) for name, each in part.items()}
    if not isinstance(part, Component) or isinstance(part, lr.Population):
        return part
    given = {name: with_priors(each, priors) for name, each in part.arguments().items()}
    own = dict(priors.get(repr(part), {}))
    if isinstance(part, lr.Observation) and given["readout"] is None and part.reads is None:
        own |= priors.get(repr(part.readout), {})
    own |= part.own_priors()
    if isinstance(part, lr.Observation) and isinstance(part.pooling, lr.AttentionPooling):
        given["pooling"] = with_priors(part.pooling, priors)
    try:
        return type(part)(**given | ({"priors": own} if own else {}))
    except TypeError:
        return type(part)(**given)  # a part that takes no priors


def built(parts: Combination, dtype: torch.dtype = torch.float64) -> tuple[lr.LatentRNN, lr.SequenceData]:
    """A model with priors on all of its parameters."""
    data = make_data(OBSERVATIONS[parts[2]], dtype=dtype)
    described = {
        "transition": TRANSITIONS[parts[0]](),
        "latent": LATENTS[parts[1]](),
        "observations": OBSERVATIONS[parts[2]].observations(),
        "inputs": OBSERVATIONS[parts[2]].inputs(),
    }
    plain = lr.LatentRNN(data.spec, **described)
    priors = names(plain)
    model = lr.LatentRNN(data.spec, **{name: with_priors(part, priors) for name, part in described.items()}).to(dtype)
    shake(model)
    return model, data


def density_of_all(model: lr.LatentRNN, data: lr.SequenceData, values: dict[str, Tensor]) -> float:
    with Fixed(values), torch.no_grad():
        nodes = poutine.trace(model).get_trace(data).nodes
        names = [*model.observations, *(site.name for site in model.latent_sites())]
        return sum(float(nodes[name]["fn"].log_prob(nodes[name]["value"]).sum()) for name in names)


def sites_that_do_nothing(model: lr.LatentRNN, data: lr.SequenceData) -> list[str]:
    """The parameters that are sites, but whose values make no difference to any density of data or latents."""
    values = fixed_latents(model, data)
    before = density_of_all(model, data, values)
    found = []
    for name, (prior, _) in model.parameter_sites().items():
        if name.split(".")[0] in model.populations:
            continue  # its members' prior, not the data's density
        moved = density_of_all(model, data, values | {name: prior.sample().to(values[name])})
        if moved == before:
            found.append(name)
    return found
