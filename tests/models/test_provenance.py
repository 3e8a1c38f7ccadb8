"""What Pyro finds of a model's structure, for `pyro.render_model`: every edge, whatever loop a transition has."""

from __future__ import annotations

from typing import Any

import pyro.distributions as dist
import pytest
import torch
from pyro.infer.inspect import get_dependencies, get_model_relations

import latentrnn as lr
from tests.registry import OBSERVATIONS, TRANSITIONS, Combination, each_against_defaults, make_data, make_model

FAMILIES = {"markov": lambda: lr.Markov(3), "combiner": lr.Combiner, "flow": lambda: lr.Flow(lr.Markov(3))}


def parents(model: Any, data: lr.SequenceData) -> dict[str, set[str]]:
    return {site: set(found) for site, found in get_model_relations(model, (data,))["sample_sample"].items()}


@pytest.mark.parametrize("combination", each_against_defaults(), ids=", ".join)
def test_everything_drawn_leads_to_what_is_observed(combination: Combination) -> None:
    data = make_data(OBSERVATIONS[combination[2]])
    model, _ = make_model(*combination, data)
    found = parents(model, data)
    latents = {site.name for site in model.latent_sites()}
    for head in model.observations:
        behind = set(found[head])
        while more := {further for site in behind for further in found[site]} - behind:
            behind |= more
        assert latents <= behind, head


@pytest.mark.parametrize("name", [name for name in TRANSITIONS if "given" not in name])
def test_initial_state_and_innovations_are_parents_of_their_own(name: str) -> None:
    data = make_data(OBSERVATIONS["poisson"])
    model, _ = make_model(name, "innovations with initial", "poisson", data)
    (head,) = model.observations
    assert parents(model, data)[head] >= {"innovations", "initial"}


def test_parameters_with_priors_are_parents() -> None:
    counts = torch.poisson(torch.ones(3, 5, 2), generator=torch.Generator().manual_seed(0))
    data = lr.SequenceData.from_arrays({"y": counts})
    heads = {"y": lr.Poisson(priors={"baseline": dist.Normal(0.0, 1.0)})}
    transition = lr.VanillaRNN(3, priors={"weights": lr.NetworkPrior()})
    model = lr.LatentRNN(data.spec, transition=transition, latent=lr.InitialState(2), observations=heads)
    found = get_dependencies(model, (data,))["prior_dependencies"]["y"]
    weights = set(model.network_weights())
    assert weights
    assert weights | {"initial", "y.readout.baseline"} <= set(found)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_guide_shows_what_its_steps_stand_on(family: str) -> None:
    data = make_data(OBSERVATIONS["poisson"])
    _, guide = make_model("gru", "markov normal", "poisson", data, family=FAMILIES[family]())
    assert parents(guide, data)["states"] == {"initial"}
