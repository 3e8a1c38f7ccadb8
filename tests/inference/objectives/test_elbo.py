"""Our ELBO against Pyro's for the same random numbers, and exact divergences against sampled and dense ones."""

from __future__ import annotations

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import Trace_ELBO
from torch.distributions import Independent, MultivariateNormal, Normal, kl_divergence

import latentrnn as lr
from latentrnn.inference import elbo_terms
from latentrnn.inference.objectives.terms import has_closed_form, log_weights, paired_traces
from tests.oracles import ar1_covariance

# what is computed is held to oracles that count steps, whatever time lies between them
pytestmark = pytest.mark.filterwarnings("ignore:LatentRNN. the data have irregular times")
LATENTS = {
    "deterministic": lr.Deterministic(),
    "initial state": lr.InitialState(2),
    "white": lr.Innovations(2),
    "white, initial": lr.Innovations(2, initial=3),
    "ar1": lr.Innovations(2, prior="ar1"),
    "ar1, initial": lr.Innovations(2, initial=3, prior="ar1"),
    "markov": lr.MarkovNormal(),
    "markov, scale of the state": lr.MarkovNormal(scale="state"),
}
PRIORS = {"baseline": dist.Normal(0.0, 1.0), "weight": dist.Laplace(0.0, 0.5)}
GAIN_PRIORS = {"beta": dist.LogNormal(-1.0, 0.7)}


def ragged(*, times: bool = False) -> lr.SequenceData:
    rng = np.random.default_rng(0)
    lengths = [8, 5, 1, 6]
    spikes = [rng.poisson(1.0, (n, 3)).astype(float) for n in lengths]
    spikes[0][2, 1] = np.nan
    voltage = [np.where(rng.random((n, 2)) < 0.2, np.nan, rng.normal(size=(n, 2))) for n in lengths]
    return lr.SequenceData.from_arrays(
        {"spikes": spikes, "voltage": voltage},
        {"stimulus": [rng.normal(size=(n, 1)) for n in lengths], "context": [rng.normal(size=(n, 2)) for n in lengths]},
        times=[np.cumsum(rng.uniform(0.3, 3.0, n)) for n in lengths] if times else None,
        dtype=torch.float64,
    )


def make(latent: str, family: str | None, *, times: bool = False) -> tuple[lr.LatentRNN, lr.Guide, lr.SequenceData]:
    """Model and guide with random weights; `family` of the guide over parameters with priors, None for no priors."""
    data = ragged(times=times)
    gain = lr.StimulusGain("stimulus", priors=GAIN_PRIORS if family else None)
    model = lr.LatentRNN(
        data.spec,
        transition=lr.GRU(4),
        latent=LATENTS[latent],
        observations={
            "spikes": lr.Poisson(gain=gain, priors=PRIORS if family else None),
            "voltage": lr.Gaussian(covariance="full"),
        },
    ).double()
    guide = lr.Guide(model, encoder=lr.RNNEncoder(5), family=lr.MeanField(), global_family=family or "normal").double()
    with torch.no_grad():
        for parameter in [*model.parameters(), *guide.parameters()]:
            parameter.copy_(0.3 * torch.randn_like(parameter))
    return model, guide, data


@pytest.mark.parametrize("particles", [1, 3])
@pytest.mark.parametrize("chosen", [None, [2, 0]], ids=["whole plate", "batch"])
@pytest.mark.parametrize("family", [None, "normal", "multivariate"])
@pytest.mark.parametrize("latent", LATENTS)
def test_our_elbo_is_pyro_s_and_so_is_its_gradient(
    latent: str, family: str | None, chosen: list[int] | None, particles: int
) -> None:
    model, guide, data = make(latent, family)
    batch = data if chosen is None else data.batch(torch.tensor(chosen))
    parameters = [*model.parameters(), *guide.parameters()]
    pyro_s = Trace_ELBO(num_particles=particles, vectorize_particles=particles > 1, max_plate_nesting=1)
    pyro.set_rng_seed(11)
    expected = -pyro_s.differentiable_loss(model, guide, batch)
    pyro.set_rng_seed(11)
    terms = elbo_terms(model, guide, batch, num_particles=particles, analytic_kl=False)
    found = terms.elbo()
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-9)
    for ours, theirs in zip(
        torch.autograd.grad(found, parameters, materialize_grads=True, retain_graph=True),
        torch.autograd.grad(expected, parameters, materialize_grads=True),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-9)
    assert set(terms.log_likelihood) == {"spikes", "voltage"}
    local = {site.name for site in model.latent_sites()}
    assert set(terms.kl) == local | ({"parameters"} if family else set())


def test_other_random_numbers_give_another_elbo() -> None:
    """Negative control of the seeds above."""
    model, guide, data = make("ar1", "normal")
    values = [elbo_terms(model, guide, data, analytic_kl=False).elbo().item() for _ in range(2)]
    assert abs(values[0] - values[1]) > 1e-3


@pytest.mark.parametrize("family", [None, "normal"])
@pytest.mark.parametrize("latent", ["initial state", "white, initial", "ar1, initial", "markov"])
@pytest.mark.parametrize("times", [False, True], ids=["steps", "times"])
def test_exact_divergences_are_the_mean_of_sampled_ones(latent: str, family: str | None, times: bool) -> None:
    model, guide, data = make(latent, family, times=times)
    with torch.no_grad():
        exact = elbo_terms(model, guide, data, num_particles=20).kl
        sampled = [elbo_terms(model, guide, data, num_particles=20, analytic_kl=False).kl for _ in range(40)]
    # the states of a Markov latent and priors without a closed form stay samples
    closed = [name for name in exact if name not in ("states", "parameters")]
    assert closed
    for name in closed:
        draws = torch.stack([terms[name] for terms in sampled])
        error = draws.std() / len(draws) ** 0.5
        assert (draws.mean() - exact[name]).abs() < 6 * error, name
        assert exact[name] > 0.5, name
        assert (draws.mean() - 1.2 * exact[name]).abs() > 6 * error, name  # one fifth more would be noticed


@pytest.mark.parametrize("latent", LATENTS)
def test_a_weight_on_the_divergence_is_the_only_thing_that_tempers(latent: str) -> None:
    model, guide, data = make(latent, "normal")
    terms = elbo_terms(model, guide, data)
    likelihood, divergence = sum(terms.log_likelihood.values()), sum(terms.kl.values())
    assert terms.elbo().item() == pytest.approx((likelihood - divergence).item(), abs=1e-12)
    assert terms.elbo(0.25).item() == pytest.approx((likelihood - 0.25 * divergence).item(), abs=1e-12)
    halved = terms.reweighted({"spikes": 0.5})
    expected = terms.elbo() - 0.5 * terms.log_likelihood["spikes"]
    assert halved.elbo().item() == pytest.approx(expected.item(), abs=1e-12)


def test_the_divergence_of_a_positive_number_from_a_log_normal_prior_is_exact() -> None:
    """A standard deviation per channel: against the mean of sampled terms, and the formula for the logarithms."""
    _, _, data = make("ar1", None)
    prior = dist.LogNormal(0.3, 0.5)
    observations = {"spikes": lr.NegativeBinomial(priors={"dispersion": prior})}
    model = lr.LatentRNN(data.spec, transition=lr.GRU(3), latent=lr.Deterministic(), observations=observations)
    guide = lr.Guide(model, global_family="normal")
    with torch.no_grad():
        for parameter in guide.parameters():
            parameter.add_(0.2)
        exact = elbo_terms(model, guide, data).kl["parameters"]
        sampled = torch.stack(
            [elbo_terms(model, guide, data, num_particles=20, analytic_kl=False).kl["parameters"] for _ in range(60)]
        )
        assert elbo_terms(model, guide, data).kl["parameters"] == exact
    family = guide.parameter_sites
    loc, log_scale = next(iter(family.loc.values())), next(iter(family.log_scale.values()))
    expected = kl_divergence(Normal(loc, log_scale.exp()), Normal(0.3, 0.5)).sum()
    torch.testing.assert_close(exact, expected.to(exact))
    error = sampled.std() / len(sampled) ** 0.5
    assert abs(sampled.mean() - exact) < 6 * error
    assert abs(sampled.mean() - 1.2 * exact) > 6 * error


def autoregressive_pair(clock: str) -> tuple[Independent, torch.distributions.Distribution, lr.SequenceData, list]:
    """A mean-field q, the model's AR(1) prior, and per sequence and dimension the prior's dense covariance."""
    model, guide, data = make("ar1", None, times=clock == "times")
    trace = poutine.trace(model).get_trace(data)
    q = poutine.trace(guide).get_trace(data).nodes["innovations"]["fn"]
    scale, tau = model.latent.scale.detach().numpy(), model.latent.time_constant.detach().numpy()
    covariances = []
    for i, length in enumerate(data.lengths.tolist()):
        for d in range(2):
            if clock == "times":
                t = data.times[i, :length].numpy()
                dense = scale[d] ** 2 * np.exp(-np.abs(np.subtract.outer(t, t)) / tau[d])
            else:
                dense = ar1_covariance(length, np.exp(-1 / tau[d]), scale[d])
            covariances.append((i, length, d, torch.as_tensor(dense)))
    return q, trace.nodes["innovations"]["fn"], data, covariances


@pytest.mark.parametrize("clock", ["steps", "times"])
def test_the_autoregressive_divergence_is_that_of_dense_gaussians(clock: str) -> None:
    """Per sequence, ragged: in padding q and p are both standard normal and add nothing."""
    q, p, data, covariances = autoregressive_pair(clock)
    assert has_closed_form(q, p)
    expected = torch.zeros(len(data), dtype=torch.float64)
    for i, length, d, dense in covariances:
        loc, scale = q.base_dist.loc[i, :length, d], q.base_dist.scale[i, :length, d]
        prior = MultivariateNormal(torch.zeros(length, dtype=torch.float64), dense)
        expected[i] += kl_divergence(MultivariateNormal(loc, torch.diag(scale**2)), prior)
    torch.testing.assert_close(kl_divergence(q, p), expected, rtol=0, atol=1e-9)
    assert expected.min() > 0.1


@pytest.mark.parametrize("clock", ["steps", "times"])
def test_the_autoregressive_density_and_samples_are_those_of_a_dense_gaussian(clock: str) -> None:
    _, p, data, covariances = autoregressive_pair(clock)
    p = p.expand((6000, len(data)))
    draws = p.sample()
    expected = torch.zeros(6000, len(data), dtype=torch.float64)
    worst = 0.0
    for i, length, d, dense in covariances:
        zero, u = torch.zeros(length, dtype=torch.float64), draws[:, i, :, d]
        expected[:, i] += MultivariateNormal(zero, dense).log_prob(u[:, :length])
        expected[:, i] += Normal(0.0, 1.0).log_prob(u[:, length:]).sum(-1)
        found = u[:, :length].T @ u[:, :length] / 6000
        # Var(u_s u_t) = c_ss c_tt + c_st^2
        error = ((torch.outer(dense.diagonal(), dense.diagonal()) + dense**2) / 6000).sqrt()
        worst = max(worst, ((found - dense) / error).abs().max().item())
    torch.testing.assert_close(p.log_prob(draws), expected, rtol=0, atol=1e-9)
    assert worst < 6


@pytest.mark.parametrize("latent", [name for name in LATENTS if name != "deterministic"])
def test_latents_in_padding_cancel(latent: str) -> None:
    """The weight of a sequence is the same beside longer ones as alone, once its own draws are replayed."""
    model, guide, data = make(latent, None)
    alone = data[1]
    trace, _ = paired_traces(model, guide, data, 1)
    short = poutine.trace(guide).get_trace(alone)
    for name in ("initial", "innovations", "states"):
        if name in trace.nodes:
            value = trace.nodes[name]["value"][1:2]
            short.nodes[name]["value"] = value if name == "initial" else value[:, : alone.num_steps]
    together = log_weights(model, poutine.replay(guide, trace=trace), data, 1)[0, 1]
    by_itself = log_weights(model, poutine.replay(guide, trace=short), alone, 1)[0, 0]
    assert alone.num_steps < data.num_steps
    torch.testing.assert_close(together, by_itself, rtol=0, atol=1e-10)
