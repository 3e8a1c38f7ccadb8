"""The guide: the model's sites, its plate, its shapes; the prior in padding; supports of parameters."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine

import latentrnn as lr
from tests.registry import LATENTS, OBSERVATIONS, make_data, make_model

every_latent = pytest.mark.parametrize("latent", LATENTS)


@every_latent
def test_padding_is_the_standard_normal_of_the_model(latent: str) -> None:
    data = make_data(OBSERVATIONS["poisson"])
    model, guide = make_model("gru", latent, "poisson", data, family=lr.MeanField())
    trace = poutine.trace(guide).get_trace(data)
    for site in model.latent_sites():
        if not site.along_time:
            continue
        base = trace.nodes[site.name]["fn"].base_dist
        assert not base.loc[~data.valid].any()
        assert (base.scale[~data.valid] == 1.0).all()
        assert (base.scale[data.valid] != 1.0).all()


@every_latent
def test_states_that_are_drawn_hang_together_by_default(latent: str) -> None:
    """Independent factors under a state with dynamics, or under rare large inputs, lose what hangs together."""
    data = make_data(OBSERVATIONS["poisson"])
    model, guide = make_model("gru", latent, "poisson", data)
    drawn = latent.startswith(("markov normal", "recurrent normal"))
    rare = latent.startswith("innovations student t")
    assert type(guide.local) is (lr.Markov if drawn else lr.DrivenMarkov if rare else lr.MeanField)
    assert type(lr.Guide(model, encoder=lr.RNNEncoder(2), family=lr.MeanField()).local) is lr.MeanField
    assert type(lr.Guide.from_config(guide.config(), model).local) is type(guide.local)
    old = {name: value for name, value in guide.config().items() if name != "family"}
    assert type(lr.Guide.from_config(old, model).local) is lr.MeanField  # what files of the first release mean


@every_latent
@pytest.mark.parametrize("global_family", ["normal", "multivariate"])
def test_a_guide_has_no_part_of_its_model(latent: str, global_family: str) -> None:
    data = make_data(OBSERVATIONS["gaussian priors"])
    model, guide = make_model("gru", latent, "gaussian priors", data, global_family=global_family)
    assert not {id(p) for p in model.parameters()} & {id(p) for p in guide.parameters()}
    assert not any(isinstance(part, lr.LatentRNN) for part in guide.modules())


@pytest.mark.parametrize("global_family", ["normal", "multivariate"])
@pytest.mark.parametrize(
    ("prior", "inside"),
    [
        (dist.Normal(1.0, 2.0), lambda value: torch.ones_like(value, dtype=torch.bool)),
        (dist.HalfNormal(1.0), lambda value: value > 0),
        (dist.LogNormal(0.0, 1.0), lambda value: value > 0),
        (dist.Uniform(-1.0, 3.0), lambda value: (value > -1) & (value < 3)),
        (dist.StudentT(3.0, 0.0, 1.0), lambda value: torch.isfinite(value)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_parameters_stay_in_their_support(prior: dist.Distribution, inside, global_family: str) -> None:
    data = make_data(OBSERVATIONS["poisson gain"])
    gain = lr.StimulusGain("stimulus", priors={"beta": prior})
    model = lr.LatentRNN(
        data.spec,
        transition=lr.GRU(3),
        latent=lr.Deterministic(),
        observations={"y": lr.Poisson(gain=gain, priors={"baseline": dist.Normal(0.0, 1.0)})},
    ).double()
    guide = lr.Guide(model, global_family=global_family).double()
    with pyro.plate("draws", 50, dim=-2):
        trace = poutine.trace(guide).get_trace(data)
    beta = trace.nodes["y.gain.beta"]["value"]
    assert beta.shape == (50, 1, 2, 2)
    assert inside(beta).all()
    lr.elbo_terms(model, guide, data, num_particles=3).elbo().backward()
    assert all(torch.isfinite(p.grad).all() and p.grad.any() for p in guide.parameters())


@pytest.mark.parametrize("global_family", ["normal", "multivariate"])
def test_the_guide_starts_where_the_model_does(global_family: str) -> None:
    data = make_data(OBSERVATIONS["gaussian priors"])
    model, _ = make_model("gru", "deterministic", "gaussian priors", data)
    guide = lr.Guide(model, global_family=global_family).double()
    model.initialise(data)
    guide.initialise(model, data)
    with pyro.plate("draws", 4000, dim=-2):
        trace = poutine.trace(guide).get_trace(data)
    units = model.parameter_units()
    for name, (_, start) in model.parameter_sites().items():
        draws = (trace.nodes[name]["value"].squeeze(1) - start) / units[name]
        assert draws.mean(0).abs().max() < 6 * 0.05 / 4000**0.5
        assert (draws.std(0) - 0.05).abs().max() < 0.005


def test_global_families_agree_where_they_are_the_same_distribution() -> None:
    """At the start both are the same product of Normals, so both have the same ELBO for the same values."""
    data = make_data(OBSERVATIONS["gaussian priors"])
    model, _ = make_model("gru", "deterministic", "gaussian priors", data)
    elbos = []
    for family in ("normal", "multivariate"):
        guide = lr.Guide(model, global_family=family).double()
        guide.initialise(model, data)
        torch.manual_seed(0)
        with torch.no_grad():
            terms = [lr.elbo_terms(model, guide, data, num_particles=500, analytic_kl=False) for _ in range(4)]
        elbos.append(torch.stack([term.elbo() for term in terms]))
    error = (elbos[0].var() + elbos[1].var()).sqrt() / 2
    assert abs(float(elbos[0].mean() - elbos[1].mean())) < 10 * float(error)


def test_a_guide_for_another_model_is_refused_by_fit() -> None:
    data = make_data(OBSERVATIONS["poisson"])
    model, _ = make_model("gru", "innovations", "poisson", data)
    _, guide = make_model("gru", "markov normal", "poisson", data)
    with pytest.raises(ValueError, match="made for another model: its latent sites differ"):
        lr.fit(model, guide, data, reporting=lr.Reporting(progress=False))


def test_repr() -> None:
    data = make_data(OBSERVATIONS["poisson"])
    _, guide = make_model("gru", "markov normal", "poisson", data)
    assert repr(guide).startswith("Guide(sites=['initial', 'states'], encoder=RNNEncoder(hidden_size=3")
