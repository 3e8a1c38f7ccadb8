"""What was planted in simulated data of every family is found by a fit; NUTS runs on a tiny instance of each."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import MCMC, NUTS
from scipy import special

import latentrnn as lr
from tests.oracles import Array

SLOPE, BASELINE = np.array([0.8, -0.5, 0.3]), np.array([0.2, 0.4, -0.1])


class Planted(NamedTuple):
    """A family, SciPy's draws of it given eta, and what else there is to find.

    Args:
        make: makes the head, with arguments that all heads take.
        draw: `(rng, eta) -> y`, eta (sequence, time, channel).
        extra: `head -> found`, and the planted value, to be found within 20%.
    """

    make: Callable[..., lr.Observation]
    draw: Callable[[np.random.Generator, Array], Array]
    extra: tuple[Callable[[Any], torch.Tensor], float] | None = None


def negative_binomial(rng: np.random.Generator, eta: Array) -> Array:
    return rng.poisson(rng.gamma(1 / 0.6, 0.6 * np.exp(eta)))


def beta_binomial(rng: np.random.Generator, eta: Array) -> Array:
    p = special.expit(eta)
    return rng.binomial(12, rng.beta(5 * p, 5 * (1 - p)))


def dirichlet_multinomial(rng: np.random.Generator, eta: Array) -> Array:
    weight = rng.gamma(6.0 * special.softmax(eta, -1))
    return rng.multinomial(20, weight / weight.sum(-1, keepdims=True))


def grades(rng: np.random.Generator, eta: Array) -> Array:
    below = special.expit(np.array([0.0, 0.7, 2.0]) - eta[..., None])
    return (rng.random(eta.shape)[..., None] > below).sum(-1)


def low_rank(rng: np.random.Generator, eta: Array) -> Array:
    return eta + rng.normal(size=(*eta.shape[:-1], 1)) * np.array([1.0, 1.0, -1.0]) + 0.5 * rng.normal(size=eta.shape)


def words(rng: np.random.Generator, eta: Array) -> Array:
    """Binary channels of which the first acts on the second, by 1.5 in log-odds on either side of its mean."""
    y = (rng.random(eta.shape) < special.expit(eta)).astype(float)
    given = special.expit(eta[..., 1] + 1.5 * (y[..., 0] - special.expit(eta[..., 0]).mean()))
    y[..., 1] = rng.random(given.shape) < given
    return y


def first_event(rng: np.random.Generator, eta: Array) -> Array:
    drawn = rng.random(eta.shape) < special.expit(eta - 2.5)
    return np.where(np.cumsum(drawn, 1) - drawn > 0, np.nan, drawn)


def student(rng: np.random.Generator, size: Any) -> Array:
    return rng.standard_t(4.0, size) / np.sqrt(2.0)  # variance one


FAMILIES = {
    "Gaussian, low rank": Planted(
        lambda **shared: lr.Gaussian(covariance="low_rank", rank=1, **shared),
        low_rank,
        (lambda head: -head.noise_covariance[0, 2], 1.0),
    ),
    "StudentT": Planted(
        lr.StudentT,
        lambda rng, eta: eta + 0.7 * rng.standard_t(5.0, eta.shape),
        (lambda head: head.noise_scale, 0.7),
    ),
    "LogNormal": Planted(lr.LogNormal, lambda rng, eta: rng.lognormal(eta, 0.6), (lambda head: head.noise_scale, 0.6)),
    "Gamma": Planted(lr.Gamma, lambda rng, eta: rng.gamma(3.0, np.exp(eta) / 3.0), (lambda head: head.shape, 3.0)),
    "ZeroInflatedGamma": Planted(
        lr.ZeroInflatedGamma,
        lambda rng, eta: rng.gamma(3.0, np.exp(eta) / 3.0) * (rng.random(eta.shape) > 0.35),
        (lambda head: head.zero_probability, 0.35),
    ),
    "NegativeBinomial": Planted(lr.NegativeBinomial, negative_binomial, (lambda head: head.dispersion, 0.6)),
    "ZeroInflatedPoisson": Planted(
        lr.ZeroInflatedPoisson,
        lambda rng, eta: rng.poisson(np.exp(eta + 0.5)) * (rng.random(eta.shape) > 0.35),
        (lambda head: head.zero_probability, 0.35),
    ),
    "Binomial": Planted(
        lambda **shared: lr.Binomial(12, **shared), lambda rng, eta: rng.binomial(12, special.expit(eta))
    ),
    "BetaBinomial": Planted(
        lambda **shared: lr.BetaBinomial(12, **shared), beta_binomial, (lambda head: head.concentration, 5.0)
    ),
    "DirichletMultinomial": Planted(
        lr.DirichletMultinomial, dirichlet_multinomial, (lambda head: head.concentration, 6.0)
    ),
    "OrderedLogistic": Planted(
        lambda **shared: lr.OrderedLogistic(4, **shared), grades, (lambda head: head.cutpoints[:, 2], 2.0)
    ),
    "AutoregressiveBernoulli": Planted(
        lr.AutoregressiveBernoulli, words, (lambda head: head.pairwise_weight[1, 0], 1.5)
    ),
    "Volatility": Planted(lr.Volatility, lambda rng, eta: np.exp(0.5 * eta) * rng.normal(size=eta.shape)),
    "Volatility, Student": Planted(
        lambda **shared: lr.Volatility(tails="student", **shared),
        lambda rng, eta: np.exp(0.5 * eta) * student(rng, eta.shape),
    ),
    "DiscreteHazard": Planted(lr.DiscreteHazard, first_event),
}


def fitted(family: str, *, shuffled: bool = False) -> Any:
    """The head of a fit to data in which a covariate acts with planted slopes; shuffled, it is another sequence's."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(150, 30, 1))
    y = FAMILIES[family].draw(rng, BASELINE + x * SLOPE).astype(float)
    x = np.roll(x, 1, 0) if shuffled else x
    data = lr.SequenceData.from_arrays({"y": y}, {"x": x})
    model = lr.LatentRNN(
        data.spec,
        transition=lr.VanillaRNN(1),
        latent=lr.Deterministic(),
        observations={"y": FAMILIES[family].make(covariates=["x"])},
        inputs=[],
    )
    optimiser = lr.AdamW(learning_rate=0.05)
    result = lr.fit(
        model,
        lr.Guide(model),
        data,
        seed=0,
        steps=60 if shuffled else 120,
        batch_size=150,
        optimizer=optimiser,
        reporting=lr.Reporting(progress=False),
    )
    return result.model.observations["y"]


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_planted_slopes_and_shapes_are_found(family: str) -> None:
    head, control = fitted(family), fitted(family, shuffled=True)
    slopes, without = (fit.coefficients()["covariate_weight"].numpy()[:, 0] for fit in (head, control))
    if family == "DirichletMultinomial":  # a common slope of all categories changes nothing
        slopes, without, planted = slopes - slopes.mean(), without - without.mean(), SLOPE - SLOPE.mean()
    else:
        planted = SLOPE
    np.testing.assert_allclose(slopes, planted, atol=0.15)
    assert np.abs(without).max() < 0.15  # the negative control
    if FAMILIES[family].extra is not None:
        found, value = FAMILIES[family].extra
        np.testing.assert_allclose(found(head).detach().numpy(), value, rtol=0.2)


# -- calcium ---------------------------------------------------------------------------------------------------------


def fluorescent_cells(seed: int) -> tuple[Array, Array, Array]:
    """Rates (events per step of 40 ms) that a covariate drives, spikes, fluorescence with decay 0.5 s and drift."""
    rng = np.random.default_rng(seed)
    x = np.repeat(rng.normal(size=(40, 10, 1)), 10, 1)
    rates = np.exp(-1.2 + x * np.array([0.9, -0.7]))
    spikes = rng.poisson(rates).astype(float)
    calcium = np.zeros_like(spikes)
    for t in range(100):
        calcium[:, t] = np.exp(-0.04 / 0.5) * (calcium[:, t - 1] if t else spikes[:, 0]) + spikes[:, t]
    drift = np.cumsum(rng.normal(scale=0.03, size=spikes.shape), 1) + rng.normal(size=(40, 1, 2))
    return rates, spikes, 10.0 + 2.0 * calcium + drift + 0.5 * rng.normal(size=spikes.shape)


@functools.cache
def calcium_fit(*, shuffled: bool = False, weight: float = 1.0) -> tuple[Any, Array, Array, Array]:
    """A joint fit in which half of the sequences have no spikes; what it finds for these, true rates and spikes."""
    rates, spikes, fluorescence = fluorescent_cells(0)
    hidden = spikes[20:].copy()
    spikes[20:] = np.nan
    fluorescence = np.roll(fluorescence, 1, 0) if shuffled else fluorescence
    data = lr.SequenceData.from_arrays({"spikes": spikes, "f": fluorescence}, dt=0.04, standardise=["f"])
    model = lr.LatentRNN(
        data.spec,
        transition=lr.GRU(16),
        latent=lr.Innovations(2),
        observations={"spikes": lr.Poisson(), "f": lr.Calcium(1.0, events="spikes", drift=2.0)},
    )
    guide = lr.Guide(model, encoder=lr.RNNEncoder(16, direction="bidirectional", observes=["f"]))
    result = lr.fit(
        model,
        guide,
        data,
        seed=0,
        steps=80 if shuffled else 250,
        batch_size=40,
        optimizer=lr.AdamW(learning_rate=0.01),
        objective=lr.ELBO(head_weights={"spikes": weight}),
        reporting=lr.Reporting(progress=False),
    )
    found = result.posterior(data[20:]).mean("spikes", num_samples=10).numpy()
    return result.model.observations["f"], found, rates[20:], hidden


@pytest.mark.slow
def test_rates_and_the_kernel_are_found_from_fluorescence_and_some_spikes() -> None:
    """Rates of sequences whose spikes nobody recorded, from fluorescence alone; the control has another's spikes."""
    head, found, rates, _ = calcium_fit()
    _, control, _, _ = calcium_fit(shuffled=True)
    correlation, without = (np.corrcoef(each.ravel(), rates.ravel())[0, 1] for each in (found, control))
    assert correlation > 0.7
    assert without < 0.3
    np.testing.assert_allclose(head.decay_time.detach().numpy(), 0.5, rtol=0.35)


@pytest.mark.slow
def test_spikes_of_more_weight_give_the_spikes_and_what_one_of_them_adds() -> None:
    """Planted amplitude 2; the control, at weight one, explains too few events by too large ones."""
    head, found, _, spikes = calcium_fit(weight=30.0)
    control, fewer, _, _ = calcium_fit()
    np.testing.assert_allclose(head.amplitude.detach().numpy(), 2.0, rtol=0.15)
    assert (control.amplitude > 2.5).all()
    assert found.mean() == pytest.approx(spikes.mean(), rel=0.1)
    assert fewer.mean() < 0.9 * spikes.mean()
    assert np.corrcoef(found.ravel(), spikes.ravel())[0, 1] > 0.88
    assert np.corrcoef(fewer.ravel(), spikes.ravel())[0, 1] < 0.83


# -- NUTS ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", [*FAMILIES, "Calcium"])
def test_nuts(family: str) -> None:
    rng = np.random.default_rng(0)
    if family == "Calcium":
        y, make = rng.normal(size=(2, 3, 3)), lambda **shared: lr.Calcium(0.3, drift=1.0, **shared)
    else:
        y, make = FAMILIES[family].draw(rng, np.zeros((2, 3, 3))).astype(float), FAMILIES[family].make
    data = lr.SequenceData.from_arrays({"y": y}, dtype=torch.float64)
    normal = dist.Normal(0.0, 1.0)
    model = lr.LatentRNN(
        data.spec,
        transition=lr.Linear(2),
        latent=lr.InitialState(1),
        observations={"y": make(priors={"weight": normal, "baseline": normal})},
    ).double()
    chain = MCMC(
        NUTS(model, step_size=0.05, adapt_step_size=False, max_tree_depth=2),
        num_samples=3,
        warmup_steps=2,
        disable_progbar=True,
    )
    chain.run(data)
    samples = chain.get_samples()
    assert set(samples) == {"y.readout.weight", "y.readout.baseline", "initial"}
    assert all(torch.isfinite(value).all() for value in samples.values())
    assert (samples["y.readout.baseline"][0] != samples["y.readout.baseline"][-1]).any()
