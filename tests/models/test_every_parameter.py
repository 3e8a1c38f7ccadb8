"""Every declared parameter of every component: known, learned or inferred, by one word, with densities that agree."""

from __future__ import annotations

import pytest
import torch
from pyro import poutine
from torch import Tensor

import latentrnn as lr
from tests.models.priors_everywhere import built, sites_that_do_nothing
from tests.registry import Combination, Fixed, each_against_defaults, fixed_latents

DRAWS = 3


def draws(model: lr.LatentRNN) -> dict[str, Tensor]:
    """Draws of all parameters from their priors, (draw, 1, *shape)."""
    torch.manual_seed(0)
    return {
        name: prior.sample(torch.Size((DRAWS, 1))).to(torch.float64)
        for name, (prior, _) in model.parameter_sites().items()
    }


def log_densities(model: lr.LatentRNN, data: lr.SequenceData, values: dict[str, Tensor]) -> dict[str, Tensor]:
    """log-density of every site, (*sample, sequence) of those in the plate."""
    with Fixed(values), torch.no_grad():
        nodes = poutine.trace(model).get_trace(data).nodes
    names = [*model.observations, *(site.name for site in model.latent_sites())]
    return {name: nodes[name]["fn"].log_prob(nodes[name]["value"]) for name in names}


def assert_one_of(together: dict[str, Tensor], number: int, alone: dict[str, Tensor]) -> None:
    """Of the densities under many draws those under one are what they are under it alone."""
    for site, expected in alone.items():
        found = together[site].expand(DRAWS, expected.shape[-1])[number]
        torch.testing.assert_close({site: found}, {site: expected.expand_as(found)}, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("parts", each_against_defaults(), ids="-".join)
def test_every_parameter_has_a_prior_that_counts_and_draws_that_agree(parts: Combination) -> None:
    torch.manual_seed(0)
    model, data = built(parts)
    assert [name for name, _ in model.named_parameters()] == []
    assert sites_that_do_nothing(model, data) == []

    values, many = fixed_latents(model, data), draws(model)
    together = log_densities(model, data, values | many)
    for number in range(DRAWS):
        one = {name: value[number, 0] for name, value in many.items()}
        assert_one_of(together, number, log_densities(model, data, values | one))
    # states, heads and their parameters have different leading axes where draws of one meet single values of others
    for name, drawn in many.items():
        together = log_densities(model, data, values | {name: drawn})
        assert_one_of(together, -1, log_densities(model, data, values | {name: drawn[-1, 0]}))

    guide = lr.Guide(model, encoder=lr.RNNEncoder(3, mask_input=True)).to(data.dtype)
    lr.elbo_terms(model, guide, data).elbo().backward()
    assert guide.parameter_sites is not None
    for name, parameter in guide.parameter_sites.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.any(), name
