"""RecurrentNormal against equations written out in NumPy and, where all is linear, against one dense Gaussian."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pyro
import pytest
import torch
from pyro import poutine
from pyro.infer import MCMC, NUTS
from scipy import special, stats

import latentrnn as lr
from latentrnn.inference.objectives.terms import log_weights
from latentrnn.models.latents.recurrent_normal import RecurrentNormalPath
from tests import oracles
from tests.linear_gaussian import ExactGuide, set_linear
from tests.oracles import Array
from tests.registry import shake

LENGTHS = (7, 4, 1)
NUMBERS = oracles.random_lgssm(np.random.default_rng(1), state_dim=2, channels=3, inputs=2)


def make(transition: lr.Transition, **settings: object) -> tuple[lr.LatentRNN, lr.SequenceData]:
    rng = np.random.default_rng(0)
    data = lr.SequenceData.from_arrays(
        {"y": [rng.normal(size=(n, 3)) for n in LENGTHS]},
        {"x": [rng.normal(size=(n, 2)) for n in LENGTHS]},
        dtype=torch.float64,
    )
    latent = lr.RecurrentNormal(2, **settings)
    heads = {"y": lr.Gaussian(covariance="full")}
    model = lr.LatentRNN(data.spec, transition=transition, latent=latent, observations=heads).double()
    pyro.set_rng_seed(0)
    shake(model)
    return model, data


def gru(x: Array, state: Array, weights: dict[str, Array]) -> tuple[Array, Array]:
    h = oracles.gru_step(x, state, weights)
    return h, h


def lstm(x: Array, state: Array, weights: dict[str, Array]) -> tuple[Array, Array]:
    h, c = oracles.lstm_step(x, *np.split(state, 2), weights)
    return h, np.concatenate([h, c])


@pytest.mark.parametrize("name", ["gru", "lstm"])
def test_the_density_is_the_equations_written_out(name: str) -> None:
    model, data = make({"gru": lr.GRU, "lstm": lr.LSTM}[name](3), initial=2)
    step = {"gru": gru, "lstm": lstm}[name]
    numbers = {k: v.detach().numpy() for k, v in model.named_parameters()}
    cell = {k.removeprefix("transition.kernel.")[:-3]: v for k, v in numbers.items() if "kernel" in k}
    g, z = torch.randn(3, 2).double(), torch.randn(3, 7, 2).double()
    start = model.latent.start.map(g)
    law = RecurrentNormalPath(model.latent, model.transition, start, model.transition_inputs(data), data)
    found, hidden = law.log_prob(z).detach().numpy(), law.hidden(z).detach().numpy()
    for n, length in enumerate(LENGTHS):
        state, before, expected = start[n].detach().numpy(), np.zeros(2), 0.0
        for t in range(length):
            h, state = step(np.concatenate([data.covariates["x"][n, t].numpy(), before]), state, cell)
            np.testing.assert_allclose(hidden[n, t], h, rtol=0, atol=1e-12)
            loc, raw = np.split(numbers["latent.prior_map.weight"] @ h + numbers["latent.prior_map.bias"], 2)
            scale = np.log1p(np.exp(raw + np.log(np.e - 1))) + 1e-4
            before = z[n, t].numpy()
            expected += stats.norm.logpdf(before, loc, scale).sum()
        expected += stats.norm.logpdf(z[n, length:].numpy()).sum()
        assert found[n] == pytest.approx(expected, rel=0, abs=1e-10)


@pytest.mark.parametrize("transition", [lr.GRU(3), lr.LSTM(2, layers=2)], ids=repr)
def test_draws_step_by_step_are_those_that_are_scored(transition: lr.Transition) -> None:
    """Uniform under their own conditional distributions, given what was drawn before; and so are the filter's steps."""
    model, data = make(transition)
    count = 20_000
    with torch.no_grad():
        law = RecurrentNormalPath(
            model.latent, model.transition, model.latent.initial_state, model.transition_inputs(data), data
        )
        z = law.expand((count, 3)).sample()
        loc, scale = model.latent.prior(law.hidden(z))
        ranks = special.ndtr(((z - loc) / scale).numpy())
        for n, length in enumerate(LENGTHS):
            for t in range(length):
                assert stats.kstest(ranks[:, n, t, 0], "uniform").pvalue > 1e-7
        assert stats.kstest(special.ndtr(z[:, 0, 6, 0].numpy()), "uniform").pvalue < 1e-7  # negative control
        padding = z[:, 2, 1:].numpy()
        assert stats.kstest(special.ndtr(padding.ravel()), "uniform").pvalue > 1e-7
        carry, drive = model.latent.begin((count, 3)), model.transition_inputs(data).expand(count, -1, -1, -1)
        for t in range(7):
            carry = model.latent.advance(model.transition, carry, drive[..., t, :], None)
        for d in range(2):
            assert stats.ks_2samp(carry.innovation[:, 0, d].numpy(), z[:, 0, 6, d].numpy()).pvalue > 1e-7
        seen = model.latent.output(model.transition, carry)
        assert seen.shape == (count, 3, 2 + model.transition.hidden_size)
        assert torch.equal(seen[..., :2], carry.innovation)


class Exact(NamedTuple):
    posterior: tuple[Array, Array]  # of [g, z_1, ..., z_T]
    evidence: Array  # of y_1, of y_1, y_2, ...


def exact(model: lr.LatentRNN, numbers: oracles.LGSSM, data: lr.SequenceData, n: int) -> Exact:
    """With Linear, a constant scale and Gaussian, everything is affine in g and the standard noises e_t of z_t."""
    weights = {k: v.detach().numpy() for k, v in model.named_parameters()}
    length, first = int(data.lengths[n]), weights["latent.start.map.weight"].shape[1]
    y, x = data.observations["y"][n, :length].numpy(), data.covariates["x"][n, :length].numpy()
    to_loc, bias = weights["latent.prior_map.weight"][:2], weights["latent.prior_map.bias"][:2]
    scale = np.log1p(np.exp(weights["latent.prior_map.bias"][2:] + np.log(np.e - 1))) + 1e-4
    into, readout = weights["transition.input_weight"][:, 2:], weights["observations.y.readout.weight"]

    def run(e: Array) -> tuple[Array, Array]:
        h, z, path, means = weights["latent.start.map.weight"] @ e[:first], np.zeros(2), [e[:first]], []
        h = h + weights["latent.start.map.bias"]
        for t in range(length):
            h = numbers.A @ h + numbers.b + numbers.B @ x[t] + into @ z
            z = to_loc @ h + bias + scale * e[first + 2 * t : first + 2 * t + 2]
            path.append(z)
            means.append(readout @ (z if model.latent.reads == "latent" else np.concatenate([z, h])) + numbers.d)
        return np.concatenate(path), np.concatenate(means)

    size = first + 2 * length
    offsets = run(np.zeros(size))
    into_path, into_mean = (np.stack([run(e)[i] - offsets[i] for e in np.eye(size)], 1) for i in range(2))
    total = into_mean @ into_mean.T + np.kron(np.eye(length), numbers.R)
    residual = y.ravel() - offsets[1]
    gain = np.linalg.solve(total, into_mean).T
    mean, covariance = gain @ residual, np.eye(size) - gain @ into_mean
    covariance = into_path @ covariance @ into_path.T
    evidence = [
        stats.multivariate_normal.logpdf(residual[: 3 * t], None, total[: 3 * t, : 3 * t]) for t in range(1, length + 1)
    ]
    return Exact((offsets[0] + into_path @ mean, 0.5 * (covariance + covariance.T)), np.array(evidence))


def linear(reads: str) -> tuple[lr.LatentRNN, lr.SequenceData, list[Exact]]:
    model, data = make(lr.Linear(2), initial=2, reads=reads)
    readout = model.observations["y"].readout.weight
    random, into = readout.detach().clone(), model.transition.input_weight.detach().clone()
    with torch.no_grad():
        readout.zero_()
        wide = np.zeros((3, readout.shape[1]))
        set_linear(model, oracles.LGSSM(**{**vars(NUMBERS), "C": wide}))
        readout.copy_(random)
        model.transition.input_weight[:, 2:] = into[:, 2:]
        model.latent.prior_map.weight[2:] = 0.0
    return model, data, [exact(model, NUMBERS, data, n) for n in range(len(LENGTHS))]


@pytest.mark.parametrize("reads", ["both", "latent"])
def test_every_draw_of_an_exact_guide_gives_the_evidence(reads: str) -> None:
    model, data, found = linear(reads)
    evidence = np.array([each.evidence[-1] for each in found])
    guide = ExactGuide([each.posterior for each in found], initial=2, along_time=("states", 2))
    weights = log_weights(model, guide, data, 4).detach()
    np.testing.assert_allclose(weights, np.tile(evidence, (4, 1)), rtol=0, atol=1e-9)
    with torch.no_grad():  # negative control
        model.latent.prior_map.bias += 1e-4
    assert np.abs(log_weights(model, guide, data, 4).detach().numpy() - evidence).max() > 1e-7


@pytest.mark.parametrize("reads", ["both", "latent"])
def test_the_particle_filter_agrees_step_by_step(reads: str) -> None:
    model, data = linear(reads)[:2]
    with torch.no_grad():  # data of its own, or hardly any particle would come near them
        data = data.with_observations({"y": poutine.uncondition(model)(data)["y"]})
    exact_ones = [exact(model, NUMBERS, data, n) for n in range(len(LENGTHS))]
    guide = lr.Guide(model, encoder=lr.RNNEncoder(2)).double()
    found = lr.Posterior(model, guide, data, device="cpu").one_step_ahead("y", num_particles=1000, num_filters=30)
    for n, length in enumerate(LENGTHS):
        expected = np.diff(exact_ones[n].evidence, prepend=0.0)
        difference = np.abs(found.log_prob[n, :length, 0].numpy() - expected)
        assert (difference < 6 * found.standard_error[n, :length, 0].numpy()).all()
    assert found.standard_error[found.scored].max() < 0.2


def test_what_readouts_see() -> None:
    for reads, size in (("both", 5), ("latent", 2)):
        model, data = make(lr.LSTM(3), reads=reads)
        assert model.observations["y"].readout.weight.shape == (3, size)
        guide = lr.Guide(model, encoder=lr.RNNEncoder(2)).double()
        states = lr.Posterior(model, guide, data, device="cpu").latents(3)["states"]
        assert states.shape == (3, 3, 7, 2)  # the site's, z_t
    with pytest.raises(ValueError, match="RecurrentNormal: reads must be one of 'both', 'latent'; found 'z'"):
        lr.RecurrentNormal(2, reads="z")


def test_feedback_into_the_transition_is_refused() -> None:
    data = lr.SequenceData.from_arrays({"y": np.ones((2, 4, 1))})
    heads: Mapping[str, lr.Observation] = {"y": lr.Poisson(feedback=lr.History(2))}
    with pytest.raises(ValueError, match="RecurrentNormal draws its states before any observation"):
        lr.LatentRNN(data.spec, transition=lr.GRU(2), latent=lr.RecurrentNormal(1), observations=heads)


@pytest.mark.slow
def test_nuts_on_a_tiny_instance() -> None:
    """The posterior of z_1, ..., z_3 in the linear case is the dense Gaussian's."""
    model, data, found = linear("both")
    one = data[1]
    pyro.set_rng_seed(0)
    chain = MCMC(NUTS(model), num_samples=200, warmup_steps=120, disable_progbar=True)
    chain.run(one)
    mean, covariance = found[1].posterior
    draws = torch.cat([chain.get_samples()["initial"][:, 0], chain.get_samples()["states"][:, 0].flatten(1)], 1)
    # 200 draws, worth at least 40 independent ones
    assert (np.abs(draws.mean(0).numpy() - mean) < 6 * np.sqrt(np.diag(covariance) / 40)).all()


@pytest.mark.slow
def test_a_fit_finds_a_level_that_is_drawn_once_and_remembered() -> None:
    """Half of the sequences at -2, half at 2: what the true model scores, but for 3 nats; without a latent far less."""
    rng = np.random.default_rng(0)
    y = rng.choice([-2.0, 2.0], (160, 1, 1)) + 0.4 * rng.normal(size=(160, 8, 2))
    data = lr.SequenceData.from_arrays({"y": y})
    scores = {}
    for latent in (lr.RecurrentNormal(1), lr.Deterministic()):
        model = lr.LatentRNN(data.spec, transition=lr.GRU(8), latent=latent, observations={"y": lr.Gaussian()})
        guide = lr.Guide(model, encoder=lr.RNNEncoder(12) if model.latent_sites() else None)
        result = lr.fit(
            model,
            guide,
            data[:120],
            seed=0,
            steps=300,
            optimizer=lr.AdamW(0.01),
            reporting=lr.Reporting(progress=False),
        )
        evidence = result.posterior(data[120:]).evidence("iwae", 64)
        scores[type(latent).__name__] = evidence.values.mean().item()
    noise = stats.norm.logpdf(0.4 * np.random.default_rng(1).normal(size=100_000), 0, 0.4).mean()
    best = 16 * noise - np.log(2)
    assert scores["RecurrentNormal"] > best - 3.0
    assert scores["Deterministic"] < best - 8.0
