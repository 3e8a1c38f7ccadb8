"""Heads with priors: every shape that their draws can take, against densities written out in NumPy and SciPy."""

from __future__ import annotations

from functools import cache
from itertools import pairwise

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from scipy import special, stats

import latentrnn as lr
from latentrnn.inference import elbo_terms
from latentrnn.inference.objectives.terms import log_weights, paired_traces
from tests.oracles import Array

SEQUENCES, CHANNELS, UNITS, STATES = 4, 3, 3, 2
LENGTHS = [5, 2, 4, 1]
LATENTS = {
    "Deterministic": lr.Deterministic(),
    "InitialState": lr.InitialState(2),
    "Innovations": lr.Innovations(2),
    "MarkovNormal": lr.MarkovNormal(),
    "Discrete": lr.Discrete(STATES),
}
PRIORS = {
    "weight": ({"weight": dist.Laplace(0.0, 0.5)}, stats.laplace(0.0, 0.5)),
    "baseline": ({"baseline": dist.Normal(0.25, 0.5)}, stats.norm(0.25, 0.5)),
    "none": ({}, None),
}
CASES = [
    pytest.param(latent, prior, kind, unseen, id=f"{latent}-{prior}-{kind}-{'never seen' if unseen else 'all seen'}")
    for latent in LATENTS
    for prior in PRIORS
    for kind in ("per step", "per sequence")
    for unseen in (False, True)
    if (latent, kind) != ("Discrete", "per sequence")  # which that latent refuses
]


@cache
def fitted(latent: str, prior: str, kind: str, unseen: bool) -> lr.Posterior:
    """Counts "y" whose head may have a prior, and events "x" without; all weights random."""
    rng = np.random.default_rng(len(latent) + unseen)
    per_step = kind == "per step"
    y = [rng.poisson(2.0, (n, CHANNELS) if per_step else CHANNELS).astype(float) for n in LENGTHS]
    y[0][..., 0] = np.nan  # some entries are missing, or all of a channel
    for each in y:
        each[..., 1] = np.nan if unseen else each[..., 1]
    x = [(rng.random((n, 2)) < 0.4).astype(float) for n in LENGTHS]
    data = lr.SequenceData.from_arrays(
        {"y": y if per_step else np.stack(y), "x": x}, per_sequence=[] if per_step else ["y"], dtype=torch.float64
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = lr.LatentRNN(
            data.spec,
            transition=lr.VanillaRNN(UNITS),
            latent=LATENTS[latent],
            observations={"y": lr.Poisson(priors=PRIORS[prior][0]), "x": lr.Bernoulli()},
        ).double()
        guide = lr.Guide(model, encoder=lr.RNNEncoder(2) if model.latent_sites() else None).double()
        with torch.no_grad():
            for parameter in [*model.parameters(), *guide.parameters()]:
                parameter.copy_(0.4 * torch.randn_like(parameter))
    return lr.Posterior(model, guide, data, device="cpu")


def array(value: torch.Tensor) -> Array:
    return value.detach().numpy()


def readout(posterior: lr.Posterior, head: str, draws: dict[str, Array]) -> tuple[Array, Array]:
    """Weight (particle, outputs, states) and baseline (particle, outputs): drawn ones where there are any."""
    own = posterior.model.observations[head].readout
    weight = draws.get(f"{head}.readout.weight", array(own.weight))
    baseline = draws.get(f"{head}.readout.baseline", array(own.baseline))
    return weight.reshape(-1, *own.weight.shape), baseline.reshape(-1, *own.baseline.shape)


def predictor(posterior: lr.Posterior, head: str, draws: dict[str, Array], states: Array) -> Array:
    """W h + b, (particle, sequence, [time,] output), of states (particle, sequence, time, unit), step by step."""
    weight, baseline = readout(posterior, head, draws)
    if not posterior.data.spec.heads[head].per_step:
        states = np.stack([states[:, n, length - 1] for n, length in enumerate(LENGTHS)], 1)
    count = max(len(weight), len(baseline), len(states))
    weight, baseline, states = (np.broadcast_to(a, (count, *a.shape[1:])) for a in (weight, baseline, states))
    return np.stack([h @ w.T + b for h, w, b in zip(states, weight, baseline, strict=True)])


def entries(head: str, eta: Array, values: Array) -> Array:
    return (
        stats.poisson(np.exp(eta)).logpmf(values) if head == "y" else stats.bernoulli(special.expit(eta)).logpmf(values)
    )


def by_step(posterior: lr.Posterior, head: str, draws: dict[str, Array], states: Array) -> Array:
    """Log-density of what was observed at each step, (particle, sequence, [time])."""
    values, mask = array(posterior.data.observations[head]), array(posterior.data.masks[head])
    found = entries(head, predictor(posterior, head, draws, states), np.where(mask, values, 0))
    return np.where(mask, found, 0.0).sum(-1)


def summed_over_paths(posterior: lr.Posterior, heads: list[str], draws: dict[str, Array], h: Array) -> Array:
    """log p(heads), (particle, sequence), over every path of the switch, one path after another."""
    latent = posterior.model.latent
    start = special.log_softmax(array(latent.initial_logits))
    moves = special.log_softmax(array(latent.switch_logits), axis=-1)
    given = []
    for c in range(STATES):
        seen = np.concatenate([h, np.broadcast_to(np.eye(STATES)[c], (*h.shape[:-1], STATES))], -1)
        given.append(sum(by_step(posterior, head, draws, seen) for head in heads))
    paths = []
    for path in np.ndindex(*[STATES] * max(LENGTHS)):
        total = start[path[0]] + sum(moves[a, b] for a, b in pairwise(path))
        paths.append(total + sum(given[c][..., t] for t, c in enumerate(path)))
    return special.logsumexp(paths, axis=0)


def written_out(posterior: lr.Posterior, draws: dict[str, Array], states: Array) -> dict[str, Array]:
    """Log-density of each head, (particle, sequence): of "x" given "y" where a switch is summed out of both."""
    if isinstance(posterior.model.latent, lr.Discrete):
        first = summed_over_paths(posterior, ["y"], draws, states)
        return {"y": first, "x": summed_over_paths(posterior, ["y", "x"], draws, states) - first}
    found = {head: by_step(posterior, head, draws, states) for head in ("y", "x")}
    return {head: value.sum(-1) if value.ndim == 3 else value for head, value in found.items()}


def states_of(posterior: lr.Posterior, guide_trace: pyro.poutine.Trace, particles: int) -> Array:
    plate = pyro.plate("particles", particles, dim=-2)
    with plate, pyro.poutine.replay(trace=guide_trace):
        states = array(posterior.model.unroll(posterior.data).states())
    return states.reshape(-1, *states.shape[-3:])


@pytest.mark.parametrize("particles", [1, 5])
@pytest.mark.parametrize(("latent", "prior", "kind", "unseen"), CASES)
def test_densities_weights_and_bounds(latent: str, prior: str, kind: str, unseen: bool, particles: int) -> None:
    posterior = fitted(latent, prior, kind, unseen)
    model, guide, data = posterior.model, posterior.guide, posterior.data
    with torch.no_grad():
        pyro.set_rng_seed(3)
        guide_trace, model_trace = paired_traces(model, guide, data, particles)
        pyro.set_rng_seed(3)
        weights = array(log_weights(model, guide, data, particles))
        pyro.set_rng_seed(3)
        terms = elbo_terms(model, guide, data, num_particles=particles, analytic_kl=False)
        states = (
            states_of(posterior, guide_trace, 1) if particles == 1 else states_of(posterior, guide_trace, particles)
        )
    draws = {name: array(site["value"]) for name, site in model_trace.nodes.items() if name in model.parameter_sites()}
    assert set(draws) == ({f"y.readout.{prior}"} if prior != "none" else set())
    hand = {
        name: np.broadcast_to(v, (particles, SEQUENCES)) for name, v in written_out(posterior, draws, states).items()
    }

    total = sum(hand.values())
    for name in (site.name for site in model.latent_sites()):
        for sign, trace in ((1, model_trace), (-1, guide_trace)):
            site = trace.nodes[name]
            total = total + sign * array(site["fn"].log_prob(site["value"]))
    assert weights.shape == (particles, SEQUENCES)
    np.testing.assert_allclose(weights, total, rtol=0, atol=1e-8)
    for name, expected in hand.items():
        site = model_trace.nodes[name]
        found = np.broadcast_to(array(site["fn"].log_prob(site["value"])), (particles, SEQUENCES))
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-8)
        assert terms.log_likelihood[name].item() == pytest.approx(expected.mean(0).sum(), abs=1e-8)
    for name, value in draws.items():
        site = model_trace.nodes[name]
        found = array(site["fn"].log_prob(site["value"])).reshape(particles)
        expected = PRIORS[prior][1].logpdf(value).reshape(particles, -1).sum(1)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-8)


REPORTED = [  # the others say the same of the same code, and take their time
    case
    if case.values[0] in ("Deterministic", "Innovations")
    else pytest.param(*case.values, id=case.id, marks=pytest.mark.slow)
    for case in CASES
]


@pytest.mark.parametrize(("latent", "prior", "kind", "unseen"), REPORTED)
def test_what_a_posterior_reports(latent: str, prior: str, kind: str, unseen: bool) -> None:
    posterior, draws = fitted(latent, prior, kind, unseen), 5
    data = posterior.data
    rates, mean = posterior.rates("y", draws), posterior.mean("y", draws)
    likelihood = posterior.log_likelihood(2, num_draws=draws)
    evidence = posterior.evidence(num_particles=draws).values
    rows = draws if prior != "none" else 1
    assert likelihood.shape == (rows, SEQUENCES)
    assert evidence.shape == (SEQUENCES,)
    assert mean.shape == data.observations["y"].shape
    assert rates.shape == (draws, *mean.shape)
    torch.testing.assert_close(rates.mean(0), mean, equal_nan=True, rtol=1e-10, atol=0)
    if latent not in ("Deterministic", "Discrete"):
        return
    given = {name: array(value) for name, value in posterior.parameters(draws).items()}
    with torch.no_grad():
        states = states_of(posterior, pyro.poutine.Trace(), 1)
    np.testing.assert_allclose(likelihood, sum(written_out(posterior, given, states).values()), rtol=0, atol=1e-8)
    if latent == "Deterministic":
        expected = np.exp(predictor(posterior, "y", given, states))
        inside = ~np.isnan(array(rates))
        assert inside.any()
        np.testing.assert_allclose(array(rates)[inside], np.broadcast_to(expected, rates.shape)[inside], rtol=1e-8)


EXPORTED = [case for case in REPORTED if case.values[2] == "per sequence" and case.values[1] != "none"]


@pytest.mark.parametrize(("latent", "prior", "kind", "unseen"), EXPORTED)
def test_what_a_posterior_exports(latent: str, prior: str, kind: str, unseen: bool) -> None:
    posterior, draws = fitted(latent, prior, kind, unseen), 5
    data, site = posterior.data, f"y.readout.{prior}"
    exported = posterior.to_arviz(num_samples=draws, num_particles=2, container="datatree")
    given = array(posterior.parameters(draws)[site]).reshape(draws, *given_shape(posterior, prior))
    np.testing.assert_array_equal(exported["posterior"][site][0], given)
    assert exported["posterior"][site].dims[:3] == ("chain", "draw", "y_channel")
    found = exported["posterior_predictive"]["y"]
    assert found.dims == ("chain", "draw", "sequence", "y_channel")
    mask = array(data.masks["y"])
    np.testing.assert_array_equal(found[0], np.where(mask, array(posterior.predictive(draws)["y"]), np.nan))
    assert exported["prior_predictive"]["y"].shape == found.shape
    assert exported["observed_data"]["y"].dims == ("sequence", "y_channel")
    evidence = exported["log_evidence"]
    likelihood = array(posterior.log_likelihood(2, num_draws=draws))
    np.testing.assert_array_equal(evidence["log_evidence_by_draw"][0], likelihood)
    expected = special.logsumexp(likelihood, axis=0) - np.log(draws)
    np.testing.assert_allclose(evidence["log_evidence"], expected, rtol=1e-10)
    assert evidence["log_evidence"].dims == ("sequence",)


def given_shape(posterior: lr.Posterior, prior: str) -> tuple[int, ...]:
    return tuple(getattr(posterior.model.observations["y"].readout, prior).shape)


@pytest.mark.parametrize("prior", ["weight", "baseline"])
def test_a_prior_on_one_of_two_heads_keeps_the_shape_of_a_switch_s_predictions(prior: str) -> None:
    posterior = fitted("Discrete", prior, "per step", unseen=False)
    for head in ("y", "x"):
        ahead = posterior.one_step_ahead(head, num_particles=6)
        assert ahead.mean.shape == posterior.data.observations[head].shape
