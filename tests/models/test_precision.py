"""Densities in single precision: within 1e-3 nats per sequence of SciPy's in double, at any count."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy import special, stats

import latentrnn as lr

STEPS, CHANNELS = 200, 40


def poisson(head: Any, eta: Any, y: Any) -> Any:
    return stats.poisson.logpmf(y, np.exp(eta))


def negative_binomial(head: Any, eta: Any, y: Any) -> Any:
    r = 1 / head.dispersion.detach().double().numpy()
    return stats.nbinom.logpmf(y, r, r / (r + np.exp(eta)))


def binomial(head: Any, eta: Any, y: Any) -> Any:
    return stats.binom.logpmf(y, head.total_count, special.expit(eta))


def beta_binomial(head: Any, eta: Any, y: Any) -> Any:
    p, phi = special.expit(eta), np.exp(head.log_concentration.detach().double().numpy())
    return stats.betabinom.logpmf(y, head.total_count, p * phi, (1 - p) * phi)


def multinomial(head: Any, eta: Any, y: Any) -> Any:
    return stats.multinomial.logpmf(y, y.sum(-1).astype(int), special.softmax(eta, -1))


def dirichlet_multinomial(head: Any, eta: Any, y: Any) -> Any:
    a = np.exp(head.log_concentration.detach().double().numpy()) * special.softmax(eta, -1)
    rising = special.gammaln(y + a) - special.gammaln(a) - special.gammaln(y + 1)
    total, n = a.sum(-1), y.sum(-1)
    return rising.sum(-1) - special.gammaln(n + total) + special.gammaln(total) + special.gammaln(n + 1)


def zero_inflated(head: Any, eta: Any, y: Any) -> Any:
    pi = special.expit(head.zero_logit.detach().double().numpy())
    present = np.log1p(-pi) + stats.poisson.logpmf(y, np.exp(eta))
    return np.where(y == 0, np.logaddexp(np.log(pi), present), present)


def gaussian(head: Any, eta: Any, y: Any) -> Any:
    scale, location = head.scale.double().numpy(), head.location.double().numpy()  # units of the data
    return stats.norm.logpdf(y, location + scale * eta, scale * np.exp(head.log_noise_scale.detach().double().numpy()))


FAMILIES: dict[str, tuple[Callable[[int], Any], Callable[..., Any]]] = {
    "Poisson": (lambda size: lr.Poisson(), poisson),
    "NegativeBinomial": (lambda size: lr.NegativeBinomial(), negative_binomial),
    "Binomial": (lambda size: lr.Binomial(2 * size), binomial),
    "BetaBinomial": (lambda size: lr.BetaBinomial(2 * size), beta_binomial),
    "Multinomial": (lambda size: lr.Multinomial(), multinomial),
    "DirichletMultinomial": (lambda size: lr.DirichletMultinomial(), dirichlet_multinomial),
    "ZeroInflatedPoisson": (lambda size: lr.ZeroInflatedPoisson(), zero_inflated),
    "Gaussian": (lambda size: lr.Gaussian(), gaussian),
}


@pytest.mark.parametrize("size", [1, 100, 10_000, 1_000_000])
@pytest.mark.parametrize("family", FAMILIES)
def test_evidence_is_that_of_double_precision(family: str, size: int) -> None:
    make, by_hand = FAMILIES[family]
    y = np.random.default_rng(size).poisson(size, (2, STEPS, CHANNELS)).clip(max=2 * size).astype(float)
    data = lr.SequenceData.from_arrays({"y": y})
    model = lr.LatentRNN(data.spec, transition=lr.Linear(2), latent=lr.Deterministic(), observations={"y": make(size)})
    head: Any = model.observations["y"]
    head.initialise(data.observations["y"], data.masks["y"])
    with torch.no_grad():
        head.readout.weight.mul_(1e-2)
    posterior = lr.Posterior(model, lr.Guide(model), data, device="cpu")
    with torch.no_grad():
        states = model.unroll(data).states().double().numpy()
    weight, baseline = (p.detach().double().numpy() for p in (head.readout.weight, head.readout.baseline))
    density = np.reshape(by_hand(head, states @ weight.T + baseline, y), (2, STEPS, -1))
    exact = density.sum((1, 2))
    assert np.isfinite(exact).all()
    for found in (
        posterior.evidence("elbo").values,
        posterior.evidence("iwae", num_particles=2).values,
        posterior.evidence("smc", num_particles=2).values,
        posterior.one_step_ahead("y").log_prob.sum((1, 2)),
        posterior.log_likelihood(1, 1)[0],
    ):
        np.testing.assert_allclose(found, exact, rtol=0, atol=1e-3)
    tracked = lr.OnlineFilter(posterior, num_particles=2)
    online = sum(float(tracked.update(row).log_prob or 0.0) for row in y[0, :20])
    assert online == pytest.approx(density[0, :20].sum(), abs=1e-3)


def test_draws_stay_in_the_precision_of_the_data_and_chunks_do_not_matter() -> None:
    y = np.random.default_rng(0).poisson(1e4, (2, 60, 30)).astype(float)
    data, found = lr.SequenceData.from_arrays({"y": y}), []
    for largest in (None, 500):
        torch.manual_seed(0)
        model = lr.LatentRNN(
            data.spec,
            transition=lr.GRU(2),
            latent=lr.InitialState(1),
            observations={"y": lr.Poisson()},
            max_elements=largest,
        )
        model.observations["y"].initialise(data.observations["y"], data.masks["y"])  # type: ignore[operator]
        posterior = lr.Posterior(model, lr.Guide(model, encoder=lr.RNNEncoder(2)), data, device="cpu")
        found.append(posterior.evidence("iwae", num_particles=3).values)
        assert posterior.predictive(2)["y"].dtype == torch.float32
        assert posterior.mean("y", 2).dtype == torch.float32
        assert posterior.one_step_ahead("y", num_particles=4).mean.dtype == torch.float32
    np.testing.assert_allclose(found[0], found[1], rtol=0, atol=1e-3)
