"""The parameters of heads that have priors, as Pyro sites in the units of the data."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from latentrnn.models.observations import Observation
from latentrnn.models.priors import Populations, expanded_prior
from latentrnn.models.rollout import Head
from latentrnn.models.sites import parameter_site


def parameter_sites(
    heads: Mapping[str, Observation], populations: Populations
) -> dict[str, tuple[dist.Distribution, Tensor]]:
    """Return prior and starting value of every site, by its name."""
    found, shared = {}, {}
    for name, (population, members) in populations.items():
        starts, units = zip(*((_start(heads, *of), _unit(heads, *of)) for of in members), strict=True)
        shared[name] = population.start(starts, torch.cat([unit.flatten() for unit in units]).mean())
        for part, prior in population.priors_of(shared[name]["location"]).items():
            found[parameter_site(name, part)] = (prior, shared[name][part])
    for name, head in heads.items():
        for path, prior in head.prior_sites().items():
            start = _start(heads, name, path)
            found[parameter_site(name, path)] = (expanded_prior(prior, start, shared), start)
    return found


def parameter_units(heads: Mapping[str, Observation], populations: Populations) -> dict[str, Tensor]:
    """Return how large every site is by the units of its data, by site name."""
    found: dict[str, Tensor] = {}
    for name, (_, members) in populations.items():
        unit = torch.cat([_unit(heads, *of).flatten() for of in members]).mean()
        found |= {parameter_site(name, part): unit for part in ("location", "scale")}
    for name, head in heads.items():
        found |= {parameter_site(name, path): _unit(heads, name, path) for path in head.prior_sites()}
    return found


def sample_parameters(heads: Mapping[str, Observation], populations: Populations) -> dict[str, Head]:
    """Sample every site (Pyro statements), and return the heads with the draws in the place of their parameters."""
    shared = {name: population.sample(_start(heads, *of[0])) for name, (population, of) in populations.items()}
    found: dict[str, Head] = {}
    for name, head in heads.items():
        values = {}
        for path, prior in head.prior_sites().items():
            start = _start(heads, name, path)
            value = pyro.sample(parameter_site(name, path), expanded_prior(prior, start, shared))
            # pyro's Predictive(parallel=True) drops the axis of the plate where a guide has no local latents
            value = value.unsqueeze(1) if value.dim() == start.dim() + 1 else value
            values[path] = head.to_units(path, value)
        found[name] = partial(_call_with, head, values) if values else head
    return found


def _call_with(head: Observation, values: dict[str, Tensor], *inputs: Any) -> dist.Distribution:
    return torch.func.functional_call(head, values, inputs)


def _start(heads: Mapping[str, Observation], name: str, path: str) -> Tensor:
    return heads[name].from_units(path, heads[name].get_buffer(path))


def _unit(heads: Mapping[str, Observation], name: str, path: str) -> Tensor:
    return heads[name].unit_of(path, heads[name].get_buffer(path))
