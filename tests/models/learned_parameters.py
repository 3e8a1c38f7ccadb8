"""Parameters planted from their priors and learned again by guides: how often the intervals hold them."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import constraints

import latentrnn as lr
from latentrnn.models.component import Component
from latentrnn.models.parameters.parameter_spec import ParameterSpec
from latentrnn.support.recorded import recorded
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
STEPS, RATE, DRAWS = 150, 0.05, 64  # at which longer fits of as many draws bring no width any more


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


def around(part: Component, spec: ParameterSpec, value: Tensor) -> dist.Distribution:
    """A prior of a part's parameter, of the parameter's shape that is about as wide as what was drawn at random."""
    if spec.support is constraints.simplex:
        return dist.Dirichlet(1.0 + 10.0 * value)
    if spec.support is constraints.real:
        # a linear recurrence has no bound: with 0.3 for every entry a fifth and more of them explode, and a fit ends in
        # another mode than that of the planted value; by fan-in a row's sum is as wide as one entry
        unbounded = isinstance(part, lr.Linear | lr.SwitchingLinear)
        return dist.Normal(value, 0.3 / value.shape[-1] ** 0.5 if unbounded else 0.3)
    if spec.support is constraints.unit_interval:
        return dist.Beta(1.0 + 10.0 * value, 1.0 + 10.0 * (1.0 - value))
    if spec.support is constraints.positive:
        return dist.LogNormal(value.log(), 0.3)
    return prior_on(spec, value.shape)


def stream(case: Case, seed: int, use: int) -> int:
    """A seed of its own for every case and use: simulations of different cases have no random numbers in common.

    With the same numbers in all of them, all planted values lie equally far out in their priors,
    and the cases' intervals miss together: pooled, they are no binomial trials.
    """
    return int(np.random.SeedSequence([zlib.crc32(case.name.encode()), seed, use]).generate_state(1)[0])


def planted(case: Case, seed: int) -> tuple[lr.LatentRNN, lr.SequenceData, str, Tensor]:
    """A model, data drawn from it, and the site with the value that it had.

    What is known, and what is drawn from the prior, have random numbers of their own.
    """
    torch.manual_seed(stream(case, seed, 0))
    data = make_data(OBSERVATIONS[case.parts[2]], LENGTHS)
    plain = lr.LatentRNN(data.spec, **described(case.parts)).double()
    for name, head in plain.observations.items():
        head.initialise(data.observations[name], data.masks[name])
    shake(plain)
    for parameter in plain.transition.parameters():
        parameter.detach().mul_(0.5)  # bounded states, whatever the transition
    part = next(m for m in plain.modules() if isinstance(m, Component) and repr(m) == case.component)
    spec = part.parameter_specs()[case.parameter]
    priors = {case.component: {case.parameter: around(part, spec, value_of(part, spec))}}
    parts = {name: with_priors(each, priors) for name, each in described(case.parts).items()}
    model = lr.LatentRNN(data.spec, **parts).double()
    model.load_state_dict(plain.state_dict())
    drawn = model.prior_predictive(data, 1, seed=stream(case, seed, 1), device="cpu")
    observations = {
        name: torch.where(data.masks[name], drawn[name][0], data.observations[name]).to(data.dtype) for name in drawn
    }
    (site,) = list(drawn.parameters)[:1]
    return model, data.with_observations(observations), site, drawn.parameters[site][0]


def learned(
    model: lr.LatentRNN, data: lr.SequenceData, family: str, seed: int, *, steps: int = STEPS, draws: int = DRAWS
) -> lr.Guide:
    """A guide of the parameter alone, by its own gradient steps.

    Args:
        model, data: as of `planted`.
        family: of `lr.Guide(global_family=...)`.
        seed: of the draws.
        steps: of Adam, whose rate falls along a line.
        draws: of the guide, for each step. They hardly cost anything beside each other.
    """
    guide = lr.Guide(model, global_family=family).double()
    guide.initialise(model, data)
    numbers = list(guide.parameters())
    random = torch.Generator().manual_seed(seed)
    size = sum(shape.numel() for shape in guide.parameter_sites.shapes.values())  # type: ignore[union-attr]

    def gradients(noise: Tensor, *_: Tensor) -> tuple[Tensor, ...]:
        with given_noise(noise), torch.enable_grad(), pyro.validation_enabled(False):
            return torch.autograd.grad(-lr.elbo_terms(model, guide, data, num_particles=draws).elbo(), numbers)

    def drawn() -> Tensor:
        return torch.randn(draws * size, generator=random, dtype=data.dtype)

    step_of = repeated(gradients, drawn(), *numbers)
    optimizer = torch.optim.Adam(numbers, lr=RATE)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = RATE * (1 - step / steps) + 1e-3
        with torch.no_grad():
            found = step_of(drawn(), *numbers)
        for number, gradient in zip(numbers, found, strict=True):
            number.grad = gradient
        optimizer.step()
    return guide


@contextmanager
def given_noise(noise: Tensor) -> Iterator[None]:
    """Let standard normal draws of torch's distributions be the next ones of `noise`, flat."""
    used = 0

    def taken(shape: torch.Size, **_: Any) -> Tensor:
        nonlocal used
        used += shape.numel()
        return noise[used - shape.numel() : used].reshape(shape)

    names = (f"torch.distributions.{name}._standard_normal" for name in ("normal", "multivariate_normal"))
    with ExitStack() as stack:
        for name in names:
            stack.enter_context(patch(name, taken))
        yield


def repeated(function: Callable[..., Any], *examples: Tensor) -> Callable[..., Any]:
    """The function as the operations that it makes, without the Python around them, where that gives the same."""
    try:
        found: Callable[..., Any] = recorded(function, *examples)
    except (NotImplementedError, RuntimeError):
        return function
    others = [examples[0].flip(0), *examples[1:]]
    with torch.no_grad():
        pairs = zip(found(*others), function(*others), strict=True)
        same = all(torch.allclose(a, b, rtol=1e-9, atol=1e-9) for a, b in pairs)
    return found if same else function


def entry_of(draws: Tensor, value: Tensor, seed: int) -> tuple[Tensor, float]:
    """Draws of one entry that is not given by the others, another for each seed, and its planted value."""
    flat = draws.double().flatten(1)
    free = (flat.std(0) > 0).nonzero().flatten()
    entry = int(free[seed % len(free)])
    return flat[:, entry], float(value.flatten()[entry])


def holds(draws: Tensor, value: float, level: float = 0.9) -> bool:
    """Whether the interval between quantiles of draws, (draw,), holds a value."""
    tails = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64)
    low, high = torch.quantile(draws, tails).tolist()
    return bool(low <= value <= high)


def covered(case: Case, families: Sequence[str], seed: int, level: float = 0.9) -> list[bool]:
    """Whether the interval of one entry holds what was planted, by each family from the same data."""
    model, data, site, value = planted(case, seed)
    found = []
    for family in families:
        guide = learned(model, data, family, stream(case, seed, 2))
        draws = lr.Posterior(model, guide, data, device="cpu").parameters(2000)[site]
        found.append(holds(*entry_of(draws, value, seed), level))
    return found
