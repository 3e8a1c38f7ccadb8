"""Every per-channel family against SciPy: densities with entries missing, means, samples, starts, what it refuses."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from scipy import special, stats

import latentrnn as lr
from tests.oracles import Array

SEQUENCES, STEPS, CHANNELS, HIDDEN = 2, 5, 3, 4


class Family(NamedTuple):
    """A head, values for it, and SciPy's word on them.

    Args:
        make: makes the head.
        draw: `(rng, shape) -> values` inside the support.
        log_prob: `(head, y, eta) -> log p(y | eta)`, entry by entry.
        mean: `(head, eta) -> E[y]`, entry by entry.
        refused: a value outside the support, and what the message says is needed.
    """

    make: Callable[[], lr.Observation]
    draw: Callable[[np.random.Generator, Any], Array]
    log_prob: Callable[[Any, Array, Array], Array]
    mean: Callable[[Any, Array], Array]
    refused: tuple[float, str] | None = None


def n(tensor: torch.Tensor) -> Array:
    return tensor.detach().numpy()


def softplus(eta: Array) -> Array:
    return np.logaddexp(0.0, eta)


def gamma_log_prob(head: Any, y: Array, mean: Array) -> Array:
    return stats.gamma.logpdf(y, n(head.shape), scale=mean / n(head.shape))


def negative_binomial_log_prob(head: Any, y: Array, mean: Array) -> Array:
    r = 1 / n(head.dispersion)
    return stats.nbinom.logpmf(y, r, r / (r + mean))


def zero_inflated_poisson_log_prob(y: Array, mean: Array, zero: Array) -> Array:
    return np.log(np.where(y == 0, zero, 0.0) + (1 - zero) * stats.poisson.pmf(y, mean))


def zero_inflated_gamma_log_prob(head: Any, y: Array, mean: Array, zero: Array) -> Array:
    positive = np.log1p(-zero) + gamma_log_prob(head, np.where(y > 0, y, 1.0), mean)
    return np.where(y > 0, positive, np.log(zero) + 0 * y)


def beta_binomial_log_prob(head: Any, y: Array, eta: Array) -> Array:
    p, phi = special.expit(eta), n(head.concentration)
    return stats.betabinom.logpmf(y, np.array([4, 7, 9]), p * phi, (1 - p) * phi)


def grade_probabilities(head: Any, eta: Array) -> Array:
    below = special.expit(n(head.cutpoints) - eta[..., None])
    edges = np.concatenate([np.zeros_like(below[..., :1]), below, np.ones_like(below[..., :1])], -1)
    return np.diff(edges, axis=-1)


def volatility_scale(head: Any, eta: Array) -> Array:
    nu = n(head.degrees_of_freedom)
    return np.exp(0.5 * eta) * np.sqrt((nu - 2) / nu)


def counts(rng: np.random.Generator, shape: Any) -> Array:
    return rng.poisson(1.5, shape).astype(float)


def positive(rng: np.random.Generator, shape: Any) -> Array:
    return rng.gamma(2.0, 1.0, shape)


def with_zeros(rng: np.random.Generator, shape: Any) -> Array:
    return positive(rng, shape) * (rng.random(shape) < 0.6)


INTEGERS = "non-negative integers"
FAMILIES = {
    "StudentT": Family(
        lambda: lr.StudentT(),
        lambda rng, shape: rng.standard_t(3.0, shape),
        lambda head, y, eta: stats.t.logpdf(y, n(head.degrees_of_freedom), eta, n(head.noise_scale)),
        lambda head, eta: eta,
    ),
    "LogNormal": Family(
        lambda: lr.LogNormal(),
        positive,
        lambda head, y, eta: stats.lognorm.logpdf(y, n(head.noise_scale), scale=np.exp(eta)),
        lambda head, eta: np.exp(eta + 0.5 * n(head.noise_scale) ** 2),
        (0.0, "LogNormal needs positive numbers"),
    ),
    "Gamma": Family(
        lambda: lr.Gamma(),
        positive,
        lambda head, y, eta: gamma_log_prob(head, y, np.exp(eta)),
        lambda head, eta: np.exp(eta),
        (0.0, "Gamma needs positive numbers"),
    ),
    "Gamma, softplus": Family(
        lambda: lr.Gamma(link="softplus"),
        positive,
        lambda head, y, eta: gamma_log_prob(head, y, softplus(eta)),
        lambda head, eta: softplus(eta),
        (-1.0, "Gamma needs positive numbers"),
    ),
    "NegativeBinomial": Family(
        lambda: lr.NegativeBinomial(),
        counts,
        lambda head, y, eta: negative_binomial_log_prob(head, y, np.exp(eta)),
        lambda head, eta: np.exp(eta),
        (0.5, f"NegativeBinomial needs {INTEGERS}"),
    ),
    "NegativeBinomial, softplus": Family(
        lambda: lr.NegativeBinomial(link="softplus"),
        counts,
        lambda head, y, eta: negative_binomial_log_prob(head, y, softplus(eta)),
        lambda head, eta: softplus(eta),
        (-1.0, f"NegativeBinomial needs {INTEGERS}"),
    ),
    "ZeroInflatedPoisson": Family(
        lambda: lr.ZeroInflatedPoisson(),
        counts,
        lambda head, y, eta: zero_inflated_poisson_log_prob(y, np.exp(eta), n(head.zero_probability)),
        lambda head, eta: (1 - n(head.zero_probability)) * np.exp(eta),
        (1.5, f"ZeroInflatedPoisson needs {INTEGERS}"),
    ),
    "ZeroInflatedPoisson, state": Family(
        lambda: lr.ZeroInflatedPoisson(zeros="state"),
        counts,
        lambda head, y, eta: zero_inflated_poisson_log_prob(y, np.exp(eta[..., 0]), special.expit(eta[..., 1])),
        lambda head, eta: special.expit(-eta[..., 1]) * np.exp(eta[..., 0]),
        (-1.0, f"ZeroInflatedPoisson needs {INTEGERS}"),
    ),
    "ZeroInflatedGamma": Family(
        lambda: lr.ZeroInflatedGamma(),
        with_zeros,
        lambda head, y, eta: zero_inflated_gamma_log_prob(head, y, np.exp(eta), n(head.zero_probability)),
        lambda head, eta: (1 - n(head.zero_probability)) * np.exp(eta),
        (-0.5, "ZeroInflatedGamma needs non-negative numbers"),
    ),
    "ZeroInflatedGamma, state": Family(
        lambda: lr.ZeroInflatedGamma("state", link="softplus"),
        with_zeros,
        lambda head, y, eta: zero_inflated_gamma_log_prob(head, y, softplus(eta[..., 0]), special.expit(eta[..., 1])),
        lambda head, eta: special.expit(-eta[..., 1]) * softplus(eta[..., 0]),
        (-0.5, "ZeroInflatedGamma needs non-negative numbers"),
    ),
    "Bernoulli, probit": Family(
        lambda: lr.Bernoulli(link="probit"),
        lambda rng, shape: rng.integers(0, 2, shape).astype(float),
        lambda head, y, eta: stats.bernoulli.logpmf(y, stats.norm.cdf(eta)),
        lambda head, eta: stats.norm.cdf(eta),
        (2.0, "Bernoulli needs zeros and ones"),
    ),
    "Binomial": Family(
        lambda: lr.Binomial(6),
        lambda rng, shape: rng.binomial(6, 0.4, shape).astype(float),
        lambda head, y, eta: stats.binom.logpmf(y, 6, special.expit(eta)),
        lambda head, eta: 6 * special.expit(eta),
        (7.0, "Binomial needs integers from 0 to total_count"),
    ),
    "Binomial, totals per channel, cloglog": Family(
        lambda: lr.Binomial([4, 7, 9], link="cloglog"),
        lambda rng, shape: rng.binomial([4, 7, 9], 0.4, shape).astype(float),
        lambda head, y, eta: stats.binom.logpmf(y, [4, 7, 9], 1 - np.exp(-np.exp(eta))),
        lambda head, eta: np.array([4, 7, 9]) * (1 - np.exp(-np.exp(eta))),
        (4.5, "Binomial needs integers from 0 to total_count"),
    ),
    "BetaBinomial": Family(
        lambda: lr.BetaBinomial([4, 7, 9]),
        lambda rng, shape: rng.binomial([4, 7, 9], 0.4, shape).astype(float),
        beta_binomial_log_prob,
        lambda head, eta: np.array([4, 7, 9]) * special.expit(eta),
        (5.0, "BetaBinomial needs integers from 0 to total_count"),
    ),
    "OrderedLogistic": Family(
        lambda: lr.OrderedLogistic(4),
        lambda rng, shape: rng.integers(0, 4, shape).astype(float),
        lambda head, y, eta: np.log((grade_probabilities(head, eta) * (y[..., None] == np.arange(4))).sum(-1)),
        lambda head, eta: grade_probabilities(head, eta) @ np.arange(4.0),
        (4.0, "OrderedLogistic needs integer grades from 0 to 3"),
    ),
    "Volatility": Family(
        lambda: lr.Volatility(),
        lambda rng, shape: rng.normal(size=shape),
        lambda head, y, eta: stats.norm.logpdf(y, 0.0, np.exp(0.5 * eta)),
        lambda head, eta: 0 * eta,
    ),
    "Volatility, Student": Family(
        lambda: lr.Volatility(tails="student"),
        lambda rng, shape: rng.normal(size=shape),
        lambda head, y, eta: stats.t.logpdf(y, n(head.degrees_of_freedom), 0.0, volatility_scale(head, eta)),
        lambda head, eta: 0 * eta,
    ),
}
every_family = pytest.mark.parametrize("family", FAMILIES)


def build(family: str, *, standardise: bool = False, missing: bool = True, loc: float = 0.0, factor: float = 1.0):
    """The built head of a family with random weights, its data, and which entries are missing."""
    rng = np.random.default_rng(3)
    values = loc + factor * FAMILIES[family].draw(rng, (SEQUENCES, STEPS, CHANNELS))
    hidden = (rng.random(values.shape) < 0.3) & missing
    data = lr.SequenceData.from_arrays(
        {"y": np.where(hidden, np.nan, values)}, standardise=["y"] if standardise else [], dtype=torch.float64
    )
    model = lr.LatentRNN(
        data.spec, transition=lr.GRU(HIDDEN), latent=lr.Deterministic(), observations={"y": FAMILIES[family].make()}
    ).double()
    head = model.observations["y"]
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.copy_(0.3 * torch.randn_like(parameter))
    return model, head, data, values, hidden


def predictor(head: lr.Observation, states: torch.Tensor) -> Array:
    eta = n(states) @ n(head.readout.weight).T + n(head.readout.baseline)
    size = head.outputs_per_channel
    return eta.reshape(*eta.shape[:-1], CHANNELS, size) if size > 1 else eta


@every_family
def test_densities_are_those_of_scipy_and_missing_entries_do_not_count(family: str) -> None:
    _, head, data, values, hidden = build(family)
    states = torch.randn(7, SEQUENCES, STEPS, HIDDEN, dtype=torch.float64)
    fn = head(states, head.inputs(data))
    assert fn.event_shape == (STEPS, CHANNELS)
    expected = np.where(hidden, 0.0, FAMILIES[family].log_prob(head, values, predictor(head, states)))
    found = head.entry_log_prob(fn, data.observations["y"])
    np.testing.assert_allclose(n(found), expected, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(n(fn.log_prob(data.observations["y"])), expected.sum((-1, -2)), rtol=1e-10)
    np.testing.assert_allclose(
        n(head.mean(fn)), FAMILIES[family].mean(head, predictor(head, states)), rtol=1e-10, atol=1e-12
    )


@every_family
def test_what_stands_under_the_mask_has_no_effect_whatever_it_is(family: str) -> None:
    """Zeros under the mask of a positive family, which `with_observations` lets in, have gradients too: zero."""
    _, head, data, _, hidden = build(family)
    states = torch.randn(SEQUENCES, STEPS, HIDDEN, dtype=torch.float64)
    results = []
    for filler in (0.0, 1.0):
        value = torch.where(torch.as_tensor(hidden), filler, data.observations["y"]).requires_grad_()
        log_prob = head(states, head.inputs(data)).log_prob(value).sum()
        gradients = torch.autograd.grad(log_prob, [*head.parameters(), value], materialize_grads=True)
        assert all(torch.isfinite(gradient).all() for gradient in gradients)
        assert not gradients[-1][torch.as_tensor(hidden)].any()
        results.append((log_prob, *gradients))
    assert all(torch.equal(first, second) for first, second in zip(*results, strict=True))


@every_family
def test_samples_come_from_the_density_that_scores_them(family: str) -> None:
    """The likelihood's gradient averages to zero over its own samples, for every parameter; for others' it does not."""
    _, head, data, _, _ = build(family, missing=False)
    fn = head(torch.randn(SEQUENCES, STEPS, HIDDEN, dtype=torch.float64), head.inputs(data))
    draws = fn.expand((4000, SEQUENCES)).sample()
    head.check("y", draws, torch.ones_like(draws, dtype=torch.bool))
    parameters = [*head.parameters()]
    scores = []
    for batch in draws.split(100):
        gradients = torch.autograd.grad(fn.log_prob(batch).sum(), parameters, retain_graph=True)
        scores.append(torch.cat([gradient.flatten() for gradient in gradients]))
    score = torch.stack(scores)
    # 40 batch means: a t-value beyond 7 in any of about 30 entries has probability below 1e-6
    assert (score.mean(0) / (score.std(0) / len(scores) ** 0.5)).abs().max() < 7
    wrong = torch.autograd.grad(fn.log_prob(draws.flip(-1).clamp_max(4.0)).sum(), parameters)
    spread = score.std(0) * len(scores) ** 0.5
    assert (torch.cat([gradient.flatten() for gradient in wrong]) / spread).abs().max() > 20


@every_family
def test_the_mean_and_variance_are_those_of_samples(family: str) -> None:
    _, head, data, _, _ = build(family, missing=False)
    with torch.no_grad():
        for name, parameter in head.named_parameters():
            if name == "log_excess":
                parameter.fill_(3.0)  # fourth moments, by which the error of a variance is known
        fn = head(torch.randn(SEQUENCES, STEPS, HIDDEN, dtype=torch.float64), head.inputs(data)).base_dist
        draws = fn.expand((20000, *fn.batch_shape)).sample()
    deviation = draws - fn.mean
    assert (deviation.mean(0) / (fn.variance / len(draws)).sqrt()).abs().max() < 6
    squares = deviation**2
    assert ((squares.mean(0) - fn.variance) / (squares.std(0) / len(draws) ** 0.5)).abs().max() < 8


@every_family
def test_a_fit_starts_from_the_data(family: str) -> None:
    """With silent weights the starting head has each channel's mean, and a better density than one that is off."""
    rng = np.random.default_rng(0)
    values = FAMILIES[family].draw(rng, (40, 10, CHANNELS))
    data = lr.SequenceData.from_arrays({"y": values}, dtype=torch.float64)
    model = lr.LatentRNN(
        data.spec, transition=lr.GRU(2), latent=lr.Deterministic(), observations={"y": FAMILIES[family].make()}
    ).double()
    head = model.observations["y"]
    head.initialise(data.observations["y"], data.masks["y"])
    states = torch.zeros(40, 10, 2, dtype=torch.float64)
    fn = head(states, head.inputs(data))
    expected = np.zeros(CHANNELS) if "Volatility" in family else values.mean((0, 1))
    tolerance = {"LogNormal": 0.25, "ZeroInflatedPoisson": 0.05, "OrderedLogistic": 0.02}.get(
        family.split(",")[0], 1e-3
    )
    np.testing.assert_allclose(n(head.mean(fn))[0, 0], expected, rtol=tolerance, atol=1e-3)
    started = float(fn.log_prob(data.observations["y"]).sum().detach())
    with torch.no_grad():
        head.readout.baseline.add_(1.0)
    assert float(head(states, head.inputs(data)).log_prob(data.observations["y"]).sum().detach()) < started - 50


@pytest.mark.parametrize("family", ["StudentT", "Volatility", "Volatility, Student"])
def test_standardised_heads_stay_in_the_datas_units(family: str) -> None:
    _, head, data, values, hidden = build(family, standardise=True, loc=0.0, factor=50.0)
    states = torch.randn(SEQUENCES, STEPS, HIDDEN, dtype=torch.float64)
    eta = predictor(head, states)
    fn = head(states, head.inputs(data))
    scale = n(head.scale)
    assert (scale > 10).all()
    if family == "StudentT":
        loc = n(head.location) + scale * eta
        expected = stats.t.logpdf(values, n(head.degrees_of_freedom), loc, n(head.noise_scale))
    else:
        expected = FAMILIES[family].log_prob(head, values / scale, eta) - np.log(scale)
    np.testing.assert_allclose(n(head.entry_log_prob(fn, data.observations["y"])), np.where(hidden, 0.0, expected))


@pytest.mark.parametrize("family", [name for name, made in FAMILIES.items() if made.refused])
def test_values_outside_the_support_are_named(family: str) -> None:
    made = FAMILIES[family]
    value, needs = made.refused
    values = made.draw(np.random.default_rng(0), (SEQUENCES, STEPS, CHANNELS))
    values[1, 3, 0] = value
    data = lr.SequenceData.from_arrays({"y": values})
    model = lr.LatentRNN(data.spec, transition=lr.GRU(2), latent=lr.Deterministic(), observations={"y": made.make()})
    message = f"observations['y']: {needs}; found {value} at sequence 1, step 3, channel 0"
    with pytest.raises(ValueError, match=re.escape(message)):
        model.check(data)
    values[1, 3, 0] = np.nan
    model.check(lr.SequenceData.from_arrays({"y": values}))


def built(observation: lr.Observation, channels: int = 3) -> lr.LatentRNN:
    data = lr.SequenceData.from_arrays({"y": np.ones((2, 3, channels))})
    return lr.LatentRNN(data.spec, transition=lr.GRU(2), latent=lr.Deterministic(), observations={"y": observation})


REFUSED: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "zeros": (
        lambda: lr.ZeroInflatedPoisson(zeros="sequence"),
        ValueError,
        "ZeroInflatedPoisson: zeros must be one of 'channel', 'state'; found 'sequence'",
    ),
    "zero trials": (lambda: lr.Binomial(0), ValueError, "Binomial: total_count must be a positive integer; found 0"),
    "half a trial": (lambda: lr.BetaBinomial(2.5), ValueError, "BetaBinomial: total_count must be a positive integer"),
    "totals of other channels": (
        lambda: built(lr.Binomial([3, 4])),
        ValueError,
        "observations['y']: Binomial needs one total_count, or one for each of 3 channels; found 2",
    ),
    "two levels": (
        lambda: lr.OrderedLogistic(2),
        ValueError,
        "OrderedLogistic: levels must be at least 3 (for two, use Bernoulli); found 2",
    ),
    "tails": (
        lambda: lr.Volatility("heavy"),
        ValueError,
        "Volatility: tails must be one of 'gaussian', 'student'; found 'heavy'",
    ),
    "link": (
        lambda: lr.Gamma(link="identity"),
        ValueError,
        "Gamma: link must be 'exp' or 'softplus'",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_wrong_arguments_are_named(case: str) -> None:
    make, error, message = REFUSED[case]
    with pytest.raises(error, match=re.escape(message)):
        make()


def test_a_dispersion_near_zero_is_a_poisson() -> None:
    model = built(lr.NegativeBinomial()).double()
    head = model.observations["y"]
    with torch.no_grad():
        head.log_dispersion.fill_(-40.0)
    y, eta = torch.arange(12.0, dtype=torch.float64).reshape(4, 3), torch.full((4, 3), 1.3, dtype=torch.float64)
    expected = stats.poisson.logpmf(y.numpy(), np.exp(1.3))
    np.testing.assert_allclose(n(head.family(eta).log_prob(y)), expected, atol=0.01)


def test_grades_have_probabilities() -> None:
    _, head, data, _, _ = build("OrderedLogistic")
    states = torch.randn(SEQUENCES, STEPS, HIDDEN, dtype=torch.float64)
    found = head.probabilities(head(states, head.inputs(data)))
    np.testing.assert_allclose(n(found), grade_probabilities(head, predictor(head, states)), atol=1e-12)


def test_counts_of_a_sequence_have_the_derivatives_of_their_density() -> None:
    torch.manual_seed(0)
    data = lr.SequenceData.from_arrays({"y": np.random.default_rng(0).poisson(1.0, (2, 3, 2))})
    model = lr.LatentRNN(data.spec, transition=lr.GRU(4), latent=lr.Deterministic(), observations={"y": lr.Poisson()})
    head, y = model.observations["y"], data.observations["y"].double()
    for shape in ((2, 3, 2), (4, 2, 3, 2)):  # draws share the counts
        eta = torch.randn(shape, dtype=torch.float64, requires_grad=True)

        def log_prob(eta: torch.Tensor) -> torch.Tensor:
            return head.distribution(eta, head.inputs(data)).log_prob(y)

        direct = (y * eta - eta.exp() - torch.lgamma(y + 1)).sum((-2, -1))
        torch.testing.assert_close(log_prob(eta), direct)
        assert torch.autograd.gradcheck(log_prob, eta)
        assert torch.autograd.gradgradcheck(log_prob, eta)
