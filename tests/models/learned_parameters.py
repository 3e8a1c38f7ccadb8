"""Parameters planted from their priors and learned again by guides: how often the intervals hold them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import constraints

import latentrnn as lr
from latentrnn.models.component import Component
from latentrnn.models.parameters.parameter_spec import ParameterSpec
from tests.models.priors_everywhere import prior_on, value_of, with_priors
from tests.registry import (
    LATENTS,
    OBSERVATIONS,
    TRANSITIONS,
    Combination,
    default_transition,
    fits_together,
    latent_for,
    make_data,
    shake,
)

LENGTHS = (12, 9, 15, 10)
EXACT = ("deterministic", "discrete", "linear gaussian")  # latents that leave nothing else to infer
STEPS, RATE = 150, 0.08


@dataclass(frozen=True)
class Case:
    """One parameter of one component: the model in which it alone is unknown.

    Attributes:
        name: of the component and the parameter.
        parts: names of the registry.
        component: how the component is written.
        parameter: its name.
    """

    name: str
    parts: Combination
    component: str
    parameter: str


def combinations() -> list[Combination]:
    """Every transition, every head and every latent that is summed out, with parts that leave nothing to chance."""
    found = [(name, latent_for(name, "gaussian", "deterministic"), "gaussian") for name in TRANSITIONS]
    found = [parts for parts in found if parts[1] in EXACT]
    found += [(default_transition(name), "deterministic", name) for name in OBSERVATIONS]
    found += [("linear", name, "gaussian") for name in EXACT if name in LATENTS]
    return [parts for parts in dict.fromkeys(found) if fits_together(*parts)]


def described(parts: Combination) -> dict[str, Any]:
    heads = OBSERVATIONS[parts[2]]
    return {
        "transition": TRANSITIONS[parts[0]](),
        "latent": LATENTS[parts[1]](),
        "observations": heads.observations(),
        "inputs": heads.inputs(),
    }


def cases() -> Iterator[Case]:
    """One parameter of every kind of component, one of a support of its own where it has one."""
    seen: set[str] = set()
    for parts in combinations():
        data = make_data(OBSERVATIONS[parts[2]], LENGTHS)
        plain = lr.LatentRNN(data.spec, **described(parts))
        for part in plain.modules():
            if not isinstance(part, Component) or not part.parameter_specs() or part.own_priors() or part.own_fixed():
                continue
            if type(part).__name__ == "NoReadout":  # whose baseline is another head's
                continue
            specs = part.parameter_specs()
            name = next((n for n, spec in specs.items() if spec.support is not constraints.real), next(iter(specs)))
            label = f"{type(part).__name__}.{name}"
            if label not in seen:
                seen.add(label)
                yield Case(label, parts, repr(part), name)


def around(spec: ParameterSpec, value: Tensor) -> dist.Distribution:
    """A prior of the parameter's shape that is about as wide as what was drawn at random."""
    if spec.support is constraints.simplex:
        return dist.Dirichlet(1.0 + 10.0 * value)
    if spec.support is constraints.real:
        return dist.Normal(value, 0.3)
    if spec.support is constraints.unit_interval:
        return dist.Beta(1.0 + 10.0 * value, 1.0 + 10.0 * (1.0 - value))
    if spec.support is constraints.positive:
        return dist.LogNormal(value.log(), 0.3)
    return prior_on(spec, value.shape)


def planted(case: Case, seed: int) -> tuple[lr.LatentRNN, lr.SequenceData, str, Tensor]:
    """A model, data drawn from it, and the site with the value that it had."""
    torch.manual_seed(seed)
    data = make_data(OBSERVATIONS[case.parts[2]], LENGTHS)
    plain = lr.LatentRNN(data.spec, **described(case.parts)).double()
    for name, head in plain.observations.items():
        head.initialise(data.observations[name], data.masks[name])
    shake(plain)
    for parameter in plain.transition.parameters():
        parameter.detach().mul_(0.5)  # bounded states, whatever the transition
    part = next(m for m in plain.modules() if isinstance(m, Component) and repr(m) == case.component)
    spec = part.parameter_specs()[case.parameter]
    priors = {case.component: {case.parameter: around(spec, value_of(part, spec))}}
    parts = {name: with_priors(each, priors) for name, each in described(case.parts).items()}
    model = lr.LatentRNN(data.spec, **parts).double()
    model.load_state_dict(plain.state_dict())
    drawn = model.prior_predictive(data, 1, seed=seed, device="cpu")
    observations = {
        name: torch.where(data.masks[name], drawn[name][0], data.observations[name]).to(data.dtype) for name in drawn
    }
    (site,) = list(drawn.parameters)[:1]
    return model, data.with_observations(observations), site, drawn.parameters[site][0]


def learned(model: lr.LatentRNN, data: lr.SequenceData, family: str, seed: int) -> lr.Guide:
    """A guide of the parameter alone, by its own gradient steps."""
    torch.manual_seed(seed)
    guide = lr.Guide(model, global_family=family).double()
    guide.initialise(model, data)
    optimizer = torch.optim.Adam(guide.parameters(), lr=RATE)
    for step in range(STEPS):
        for group in optimizer.param_groups:
            group["lr"] = RATE * (1 - step / STEPS) + 1e-3
        optimizer.zero_grad()
        (-lr.elbo_terms(model, guide, data, num_particles=4).elbo()).backward()
        optimizer.step()
    return guide


def covered(case: Case, family: str, seed: int, level: float = 0.9) -> bool:
    """Whether the interval of one entry holds what was planted; the entry changes with the seed."""
    model, data, site, value = planted(case, seed)
    guide = learned(model, data, family, seed)
    draws = lr.Posterior(model, guide, data, device="cpu").parameters(400)[site]
    tail = (1 - level) / 2
    low, high = torch.quantile(draws.double(), torch.tensor([tail, 1 - tail], dtype=torch.float64), dim=0)
    spread = draws.double().std(0)
    free = (spread > 0).flatten().nonzero().flatten()
    entry = free[seed % len(free)]
    return bool(low.flatten()[entry] <= value.flatten()[entry] <= high.flatten()[entry])
