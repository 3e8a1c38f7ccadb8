"""What Pyro can do with a model works with ours, and the one thing that would silently fail is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import MCMC, NUTS, SVI, Predictive, Trace_ELBO
from pyro.infer.autoguide import AutoDelta, AutoGuide, AutoNormal

import latentrnn as lr
from tests.registry import LATENTS, OBSERVATIONS, TRANSITIONS, latent_for, make_data, make_model

every_latent = pytest.mark.parametrize("latent", LATENTS)


def sample_sites(trace: poutine.Trace) -> list[str]:
    return [name for name, site in trace.nodes.items() if site["type"] == "sample"]


# -- tracing -------------------------------------------------------------------------------------------------------


@every_latent
@pytest.mark.parametrize("observation", ["poisson history into readout", "several"])
def test_sites_do_not_depend_on_the_number_of_steps(latent: str, observation: str) -> None:
    found = []
    for steps in (2, 40):
        data = make_data(OBSERVATIONS[observation], (steps, steps))
        model, guide = make_model("gru", latent, observation, data)
        for program in (model, poutine.uncondition(model), guide):
            found.append(sample_sites(poutine.trace(program).get_trace(data)))
    assert found[:3] == found[3:]


@every_latent
def test_condition(latent: str) -> None:
    data = make_data(OBSERVATIONS["poisson"])
    model, _ = make_model("gru", latent, "poisson", data)
    other = {"y": torch.full_like(data.observations["y"], 2.0)}
    conditioned = poutine.trace(poutine.condition(poutine.uncondition(model), data=other)).get_trace(data)
    assert conditioned.nodes["y"]["is_observed"]
    replayed = poutine.trace(poutine.replay(model, trace=latents_of(conditioned))).get_trace(
        data.with_observations(other)
    )
    torch.testing.assert_close(conditioned.log_prob_sum(), replayed.log_prob_sum())
    for site in model.latent_sites():
        given = {site.name: conditioned.nodes[site.name]["value"]}
        trace = poutine.trace(poutine.condition(model, data=given)).get_trace(data)
        assert trace.nodes[site.name]["value"] is given[site.name]


def latents_of(trace: poutine.Trace) -> poutine.Trace:
    free = trace.copy()
    for name in [name for name, site in free.nodes.items() if site["type"] == "sample" and site["is_observed"]]:
        free.remove_node(name)
    return free


# -- Predictive ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("parallel", [False, True])
@pytest.mark.parametrize(
    "observation", ["poisson", "poisson history into readout", "gaussian priors", "gaussian population", "several"]
)
@every_latent
def test_predictive(latent: str, observation: str, parallel: bool) -> None:
    data = make_data(OBSERVATIONS[observation])
    model, guide = make_model("gru", latent, observation, data)
    replicates = Predictive(poutine.uncondition(model), guide=guide, num_samples=7, parallel=parallel)(data)
    for name, values in data.observations.items():
        assert replicates[name].shape == (7, *values.shape)
        assert torch.isfinite(replicates[name]).all()
        assert len({tuple(draw.flatten().tolist()) for draw in replicates[name]}) > 1
    for site in model.latent_sites():
        assert replicates[site.name].shape[0] == 7
        assert replicates[site.name].shape[-1] == site.dim


@pytest.mark.parametrize("observation", ["categorical history", "gaussian history", "poisson history"])
@pytest.mark.parametrize("transition", TRANSITIONS)
def test_predictive_with_feedback_into_the_transition(transition: str, observation: str) -> None:
    data = make_data(OBSERVATIONS[observation])
    latent = latent_for(transition, observation, "innovations with initial")
    model, guide = make_model(transition, latent, observation, data)
    free = Predictive(poutine.uncondition(model), guide=guide, num_samples=5, parallel=True)(data)
    assert free["y"].shape == (5, *data.observations["y"].shape)
    model.observations["y"].check("y", free["y"], torch.ones_like(free["y"], dtype=torch.bool))


# -- ELBOs ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "observation", ["poisson", "gaussian priors", "gaussian population", "poisson history into readout"]
)
@every_latent
def test_vectorised_particles_estimate_the_same_elbo(latent: str, observation: str) -> None:
    data = make_data(OBSERVATIONS[observation], (4, 2))
    model, guide = make_model("gru", latent, observation, data)
    with torch.no_grad():
        one = torch.tensor([Trace_ELBO().loss(model, guide, data) for _ in range(60)], dtype=torch.float64)
        elbo = Trace_ELBO(num_particles=10, vectorize_particles=True, max_plate_nesting=1)
        many = torch.tensor([elbo.loss(model, guide, data) for _ in range(10)], dtype=torch.float64)
    error = (one.var() / len(one) + many.var() / len(many)).sqrt()
    # wide, because ten draws do not know their own spread well; where nothing is random the two are one number
    assert abs(float(one.mean() - many.mean())) <= 10 * float(error) + 1e-9


@pytest.mark.parametrize("global_family", ["normal", "multivariate"])
@every_latent
def test_trace_elbo_finds_the_parameters_and_leaves_the_store_empty(latent: str, global_family: str) -> None:
    data = make_data(OBSERVATIONS["gaussian priors"])
    model, guide = make_model("gru", latent, "gaussian priors", data, global_family=global_family)
    loss = Trace_ELBO()(model, guide)
    found = {id(parameter) for parameter in loss.parameters()}
    assert found == {id(p) for module in (model, guide) for p in module.parameters()}
    optimiser = torch.optim.Adam(loss.parameters(), lr=0.01)
    before = [parameter.detach().clone() for parameter in loss.parameters()]
    loss(data).backward()
    optimiser.step()
    assert all(not torch.equal(old, new) for old, new in zip(before, loss.parameters(), strict=True))
    assert not dict(pyro.get_param_store())


def test_sub_sampled_plates_are_weighted_alike() -> None:
    """A model's own scale: the log-likelihood of a batch counts total / batch times, the parameters once."""
    data = make_data(OBSERVATIONS["gaussian priors"], (4, 4, 4, 4))
    model, guide = make_model("gru", "deterministic", "gaussian priors", data)
    batch = data.batch(torch.tensor([2]))
    trace = poutine.trace(poutine.replay(model, trace=poutine.trace(guide).get_trace(batch))).get_trace(batch)
    assert trace.nodes["y"]["scale"] == 4.0
    assert trace.nodes["y.readout.weight"]["scale"] == 1.0


# -- NUTS ----------------------------------------------------------------------------------------------------------


def run_nuts(model: lr.LatentRNN, data: lr.SequenceData) -> dict[str, torch.Tensor]:
    kernel = NUTS(model, step_size=0.02, adapt_step_size=False, max_tree_depth=3)
    chain = MCMC(kernel, num_samples=4, warmup_steps=3, disable_progbar=True)
    chain.run(data)
    return chain.get_samples()


@every_latent
def test_nuts(latent: str) -> None:
    data = make_data(OBSERVATIONS["gaussian priors"], (3, 2))
    model, _ = make_model("linear", latent, "gaussian priors", data)
    samples = run_nuts(model, data)
    expected = {site.name: (2, 3, site.dim) if site.along_time else (2, site.dim) for site in model.latent_sites()}
    expected |= {name: tuple(start.shape) for name, (_, start) in model.parameter_sites().items()}
    assert {name: tuple(value.shape[1:]) for name, value in samples.items()} == expected
    assert all(len(value) == 4 and torch.isfinite(value).all() for value in samples.values())
    assert any((value[0] != value[-1]).any() for value in samples.values())


def test_nuts_takes_constrained_priors() -> None:
    data = make_data(OBSERVATIONS["poisson gain"], (3, 2))
    gain = lr.StimulusGain("stimulus", priors={"beta": dist.HalfNormal(1.0)})
    model = lr.LatentRNN(
        data.spec, transition=lr.GRU(2), latent=lr.Deterministic(), observations={"y": lr.Poisson(gain=gain)}
    ).double()
    assert (run_nuts(model, data)["y.gain.beta"] > 0).all()


# -- what is refused -----------------------------------------------------------------------------------------------


@every_latent
def test_svi_with_the_param_store_is_refused(latent: str) -> None:
    data = make_data(OBSERVATIONS["poisson"])
    model, guide = make_model("gru", latent, "poisson", data)
    svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.01}), Trace_ELBO())
    with pytest.raises(RuntimeError, match=r"Guide keeps its parameters in the module.*Use latentrnn\.fit"):
        svi.step(data)

    def empty(data: lr.SequenceData) -> None:
        """A guide of the user's own, which the model must not rely on to refuse."""

    model, _ = make_model("gru", "deterministic", "poisson", data)
    with pytest.raises(RuntimeError, match=r"LatentRNN keeps its parameters in the module.*Use latentrnn\.fit"):
        SVI(model, empty, pyro.optim.Adam({"lr": 0.01}), Trace_ELBO()).step(data)
    assert not dict(pyro.get_param_store())


@pytest.mark.parametrize("autoguide", [AutoNormal, AutoDelta])
def test_svi_with_an_autoguide_is_refused(autoguide: type[AutoGuide]) -> None:
    """The autoguide's own parameters are in the store, the model's are not: it would stay as it is, without a word."""
    data = make_data(OBSERVATIONS["gaussian priors"])
    model, _ = make_model("gru", "innovations", "gaussian priors", data)
    guide = autoguide(model)
    guide(data)  # it makes its parameters at its first call
    with pytest.raises(RuntimeError, match=r"^LatentRNN keeps its parameters.*whatever the guide.*latentrnn\.fit"):
        SVI(model, guide, pyro.optim.Adam({"lr": 0.01}), Trace_ELBO()).step(data)
    # with nothing to train in the model, the guide is all there is
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.01}), Trace_ELBO())
    before = [p.detach().clone() for p in guide.parameters()]
    svi.step(data)
    assert before
    assert any((p != q).any() for p, q in zip(guide.parameters(), before, strict=True))
    pyro.clear_param_store()


def test_svi_trains_what_a_program_registers_itself() -> None:
    data = make_data(OBSERVATIONS["poisson"])
    model, guide = make_model("gru", "innovations", "poisson", data)

    def registered(module: torch.nn.Module, name: str) -> Callable[[lr.SequenceData], Any]:
        def program(batch: lr.SequenceData) -> Any:
            pyro.module(name, module)
            return module(batch)

        return program

    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    programs = registered(model, "model"), registered(guide, "guide")
    pyro.clear_param_store()
    SVI(*programs, pyro.optim.Adam({"lr": 0.01}), Trace_ELBO()).step(data)
    assert all((p != before[name]).any() for name, p in model.named_parameters())
    pyro.clear_param_store()
    half = registered(model, "model"), guide  # the guide would stay as it is
    with pytest.raises(RuntimeError, match=r"^Guide keeps its parameters"):
        SVI(*half, pyro.optim.Adam({"lr": 0.01}), Trace_ELBO()).step(data)
    pyro.clear_param_store()


def test_svi_is_refused_in_every_order() -> None:
    data = make_data(OBSERVATIONS["poisson"])
    model, guide = make_model("gru", "innovations", "poisson", data)
    for first, name in ((model, "LatentRNN"), (guide, "Guide")):
        with (
            pytest.raises(RuntimeError, match=rf"^{name} keeps its parameters.*pyro\.infer\.SVI.*latentrnn\.fit"),
            poutine.trace(param_only=True),
        ):
            first(data)
