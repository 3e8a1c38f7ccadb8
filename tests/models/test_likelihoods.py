"""Whole heads against SciPy, masks included; the distributions of ours by themselves."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest
import torch
from pyro import poutine
from scipy import special, stats
from torch import Tensor

import latentrnn as lr
from latentrnn.models.observations.gaussian import StepwiseMultivariateNormal
from latentrnn.models.observations.multinomial import MultinomialCounts
from latentrnn.models.observations.poisson import LogRatePoisson
from tests import oracles
from tests.oracles import Array, Mask

LENGTHS, CHANNELS, CLASSES = (6, 4), 3, 4


def as_rate(eta: Array, link: str) -> Array:
    return np.exp(eta) if link == "exp" else np.logaddexp(0.0, eta)


def gaussian(head: lr.Gaussian) -> Callable[[Array, Array, Mask], float]:
    covariance = np.diag(np.exp(2 * head.log_noise_scale.detach().numpy()))
    if head.covariance == "full":
        tril = head.noise_scale_tril.detach().numpy()
        covariance = tril @ tril.T
    return lambda y, eta, missing: oracles.gaussian_log_prob(y, eta, covariance, missing)


def categorical(y: Array, eta: Array, missing: Mask) -> float:
    return oracles.categorical_log_prob(y.astype(int), eta.reshape(len(y), CHANNELS, CLASSES), missing)


# name: the observation, a sampler of values in its support, and log p(y | eta, missing) by SciPy of a built head
FAMILIES = {
    "Poisson, exp": (
        lr.Poisson(),
        lambda rng, shape: rng.poisson(1.5, shape),
        lambda head: lambda y, eta, missing: oracles.poisson_log_prob(y, as_rate(eta, "exp"), missing),
    ),
    "Poisson, softplus": (
        lr.Poisson(link="softplus"),
        lambda rng, shape: rng.poisson(1.5, shape),
        lambda head: lambda y, eta, missing: oracles.poisson_log_prob(y, as_rate(eta, "softplus"), missing),
    ),
    "Bernoulli": (
        lr.Bernoulli(),
        lambda rng, shape: rng.integers(0, 2, shape),
        lambda head: oracles.bernoulli_log_prob,
    ),
    "Gaussian, diagonal": (lr.Gaussian(), lambda rng, shape: rng.normal(size=shape), gaussian),
    "Gaussian, full": (lr.Gaussian(covariance="full"), lambda rng, shape: rng.normal(size=shape), gaussian),
    "Categorical": (
        lr.Categorical(CLASSES),
        lambda rng, shape: rng.integers(0, CLASSES, shape),
        lambda head: categorical,
    ),
    "Multinomial": (
        lr.Multinomial(),
        lambda rng, shape: rng.poisson(2.0, shape),
        lambda head: oracles.multinomial_log_prob,
    ),
}
HIDING = ["nothing", "single entries", "a step", "a channel", "a sequence"]


def hidden_entries(hiding: str, shape: tuple[int, int], sequence: int) -> Mask:
    missing = np.zeros(shape, dtype=bool)
    if hiding == "single entries":
        missing = np.random.default_rng(sequence).random(shape) < 0.4
        missing[0] = [True, False, False]
    if hiding == "a step":
        missing[1] = True
    if hiding == "a channel":
        missing[:, 1] = True
    if hiding == "a sequence":
        missing[:] = sequence == 1
    return missing


def make(family: str, hiding: str) -> tuple[lr.LatentRNN, lr.SequenceData, list[Array], list[Mask]]:
    observation, draw, _ = FAMILIES[family]
    rng = np.random.default_rng(1)
    values = [draw(rng, (n, CHANNELS)).astype(float) for n in LENGTHS]
    missing = [hidden_entries(hiding, y.shape, i) for i, y in enumerate(values)]
    data = lr.SequenceData.from_arrays(
        {"y": [np.where(m, np.nan, y) for y, m in zip(values, missing, strict=True)]},
        {"x": [rng.normal(size=(n, 2)) for n in LENGTHS]},
        dtype=torch.float64,
    )
    model = lr.LatentRNN(
        data.spec, transition=lr.GRU(5), latent=lr.Deterministic(), observations={"y": observation}
    ).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.5 * torch.randn_like(parameter))
    return model, data, values, missing


def head_distribution(model: lr.LatentRNN, data: lr.SequenceData) -> torch.distributions.Distribution:
    return poutine.trace(model).get_trace(data).nodes["y"]["fn"]


def predictors(model: lr.LatentRNN, data: lr.SequenceData) -> list[Array]:
    """eta = W h + b of each sequence, (time, outputs), with states scanned by the oracle's GRU."""
    weights = {k.removeprefix("transition.kernel."): v.detach().numpy() for k, v in model.named_parameters()}
    weights = {k.removesuffix("_l0"): v for k, v in weights.items()}
    found = []
    for x, length in zip(data.covariates["x"].numpy(), data.lengths.tolist(), strict=True):
        h, rows = weights["latent.initial_state"], []
        for x_t in x[:length]:
            h = oracles.gru_step(x_t, h, weights)
            rows.append(weights["observations.y.readout.weight"] @ h + weights["observations.y.readout.baseline"])
        found.append(np.stack(rows))
    return found


@pytest.mark.parametrize("hiding", HIDING)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_head_has_the_log_likelihood_of_scipy(family: str, hiding: str) -> None:
    model, data, values, missing = make(family, hiding)
    log_prob = FAMILIES[family][2](model.observations["y"])
    found = head_distribution(model, data).log_prob(data.observations["y"]).detach()
    expected = [log_prob(*each) for each in zip(values, predictors(model, data), missing, strict=True)]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-10)
    assert abs(expected[0]) > 1.0


@pytest.mark.parametrize("hiding", ["single entries", "a step", "a channel"])
@pytest.mark.parametrize("family", FAMILIES)
def test_log_likelihoods_add_up_over_entries(family: str, hiding: str) -> None:
    model, data, _, missing = make(family, hiding)
    head, fn = model.observations["y"], head_distribution(model, data)
    entries = head.entry_log_prob(fn, data.observations["y"]).detach()
    assert entries.shape == (2, 6, 1 if head.joint else CHANNELS)
    np.testing.assert_allclose(entries.sum((1, 2)), fn.log_prob(data.observations["y"]).detach(), rtol=0, atol=1e-12)
    hidden = torch.ones(2, 6, CHANNELS, dtype=torch.bool)
    for i, m in enumerate(missing):
        hidden[i, : len(m)] = torch.as_tensor(m)
    hidden = hidden.all(-1, keepdim=True) if head.joint else hidden
    assert (entries[hidden] == 0).all()
    assert (entries[~hidden] != 0).any()


@pytest.mark.parametrize("hiding", ["single entries", "a step", "a channel", "a sequence"])
@pytest.mark.parametrize("family", FAMILIES)
def test_what_stands_under_the_mask_has_exactly_no_effect(family: str, hiding: str) -> None:
    model, data, _, _ = make(family, hiding)
    other = 1.0 - data.observations["y"].clamp(0, 1)  # another value in every family's support
    moved = data.with_observations({"y": torch.where(data.masks["y"], data.observations["y"], other)})
    assert not torch.equal(moved.observations["y"], data.observations["y"])
    results = []
    for each in (data, moved):
        value = each.observations["y"].clone().requires_grad_()
        log_prob = head_distribution(model, each).log_prob(value)
        leaves = [value, *model.parameters()]  # a symbol has no gradient, which counts as zero
        results.append((log_prob, *torch.autograd.grad(log_prob.sum(), leaves, materialize_grads=True)))
    for first, second in zip(*results, strict=True):
        if first.shape == data.masks["y"].shape:  # the gradient for the values themselves
            assert (first[~data.masks["y"]] == 0).all()
            assert (second[~data.masks["y"]] == 0).all()
            continue
        assert torch.equal(first, second)
        assert torch.isfinite(first).all()


@pytest.mark.parametrize("family", FAMILIES)
def test_log_likelihoods_respond_to_what_is_observed(family: str) -> None:
    """Negative control of the masks: the same change at an observed entry moves the value."""
    model, data, _, _ = make(family, "nothing")
    value = data.observations["y"].clone()
    value[0, 2] = 1.0 - value[0, 2].clamp(0, 1)
    before, after = (head_distribution(model, data).log_prob(v).detach() for v in (data.observations["y"], value))
    assert (before[0] - after[0]).abs() > 1e-3
    assert torch.equal(before[1], after[1])


@pytest.mark.parametrize("family", FAMILIES)
def test_means_are_the_link_of_the_predictor(family: str) -> None:
    model, data, values, _ = make(family, "nothing")
    head = model.observations["y"]
    mean = head.mean(head_distribution(model, data)).detach()
    for i, (eta, y) in enumerate(zip(predictors(model, data), values, strict=True)):
        expected = {
            "Bernoulli": lambda eta, y: special.expit(eta),
            "Poisson, exp": lambda eta, y: as_rate(eta, "exp"),
            "Poisson, softplus": lambda eta, y: as_rate(eta, "softplus"),
            "Categorical": lambda eta, y: special.softmax(eta.reshape(len(y), CHANNELS, CLASSES), -1),
            "Multinomial": lambda eta, y: y.sum(1, keepdims=True) * special.softmax(eta, -1),
        }.get(family, lambda eta, y: eta)(eta, y)
        np.testing.assert_allclose(mean[i, : len(y)], expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("family", FAMILIES)
def test_samples_come_from_the_density_that_scores_them(family: str) -> None:
    """E[score] = 0: the likelihood's gradient averages to zero over its own samples, for every parameter of the head.

    A sampler that disagrees with the density (scale for variance, a wrong link, a swapped channel) fails it.
    """
    model, data, _, _ = make(family, "nothing")
    fn = head_distribution(model, data)
    draws = fn.expand((4000, 2)).sample()
    assert draws.shape == (4000, 2, 6, CHANNELS)
    parameters = list(model.observations.parameters())
    ratio = getattr(model.observations["y"], "noise_ratio", None)  # of which the upper triangle means nothing

    def gradient(values: Tensor) -> Tensor:
        found = torch.autograd.grad(fn.log_prob(values).sum(), parameters, retain_graph=True)
        pairs = zip(found, parameters, strict=True)
        return torch.cat([g[tuple(torch.tril_indices(*g.shape, -1))] if p is ratio else g.flatten() for g, p in pairs])

    batches = draws.split(100)
    score = torch.stack([gradient(batch) for batch in batches])
    # 40 batch means: a t-value beyond 7 in any of at most 40 entries has probability below 1e-6
    assert (score.mean(0) / (score.std(0) / len(batches) ** 0.5)).abs().max() < 7
    assert (gradient(draws.flip(-1)) / (score.std(0) * len(batches) ** 0.5)).abs().max() > 20


# -- multinomial --------------------------------------------------------------------------------------------------


def test_counts_can_have_another_total_at_every_step() -> None:
    """What torch's and Pyro's own cannot: the totals 0, 1, 5 and 12 in one event."""
    y = torch.tensor([[0, 0, 0], [0, 1, 0], [3, 0, 2], [4, 4, 4]], dtype=torch.float64)
    logits = torch.randn(4, 3, dtype=torch.float64)
    expected = [
        stats.multinomial.logpmf(v, v.sum(), special.softmax(e)) for v, e in zip(y.numpy(), logits, strict=True)
    ]
    counts = MultinomialCounts(logits, y.sum(-1), None)
    np.testing.assert_allclose(counts.step_log_prob(y), expected, rtol=0, atol=1e-12)
    assert counts.log_prob(y).item() == pytest.approx(sum(expected), abs=1e-12)


@pytest.mark.parametrize("seen", [[True, True, False, False], [True, False, True, True], [False, False, True, False]])
def test_missing_categories_are_marginalised(seen: list[bool]) -> None:
    """p(y_seen | their sum), and p(y_seen | n) where the total is known, by adding up the full multinomial.

    What is added up is everything that the missing categories could have been.
    """
    logits = torch.randn(4, dtype=torch.float64)
    total, p = 5, special.softmax(logits.numpy())
    outcomes = [np.array(y) for y in itertools.product(range(total + 1), repeat=4) if sum(y) == total]
    probability = np.array([stats.multinomial.pmf(y, total, p) for y in outcomes])
    assert probability.sum() == pytest.approx(1.0, abs=1e-12)
    mask = torch.tensor(seen)
    checked = 0
    for y in outcomes:
        same_sum = np.array([o[seen].sum() == y[seen].sum() for o in outcomes])
        same = np.array([(o[seen] == y[seen]).all() for o in outcomes])
        expected = np.log(probability[same].sum() / probability[same_sum].sum())
        value = torch.as_tensor(np.where(seen, y, 9.0))[None]
        found = MultinomialCounts(logits[None], torch.tensor([5.0]), mask[None], mask[None]).log_prob(value).item()
        assert found == pytest.approx(expected, abs=1e-12)
        known = MultinomialCounts(logits[None], torch.tensor([5.0]), mask[None]).log_prob(value).item()
        assert known == pytest.approx(np.log(probability[same].sum()), abs=1e-12)
        checked += expected < -0.01
    assert checked > 0 or sum(seen) == 1  # one category given its own count is certain


def test_multinomial_samples_respect_totals_and_have_the_right_moments() -> None:
    totals = torch.tensor([[0.0, 1.0, 7.0, 30.0]])
    logits = torch.randn(1, 4, 3, dtype=torch.float64)
    logits[0, 2] = torch.tensor([40.0, 0.0, -40.0])  # probabilities that float64 rounds to one and nearly zero
    draws = MultinomialCounts(logits, totals.double(), None).expand((20000, 1)).sample()[:, 0]
    assert draws.shape == (20000, 4, 3)
    assert torch.equal(draws.sum(-1), totals.double().expand(20000, 4))
    assert (draws >= 0).all()
    assert (draws == draws.floor()).all()
    for step in (1, 3):
        n, p = totals[0, step].item(), special.softmax(logits[0, step].numpy())
        covariance = n * (np.diag(p) - np.outer(p, p))
        sample = draws[:, step].numpy()
        # 6 standard errors: means, and products of deviations, entry by entry
        assert np.abs((sample.mean(0) - n * p) / np.sqrt(np.diag(covariance) / 20000)).max() < 6
        deviation = sample - n * p
        products = deviation[:, :, None] * deviation[:, None]
        error = products.std(0) / 20000**0.5
        assert np.abs((products.mean(0) - covariance) / error).max() < 6
        wrong = stats.multinomial.mean(n, p[::-1])  # negative control: the categories reversed
        assert np.abs((sample.mean(0) - wrong) / np.sqrt(np.diag(covariance) / 20000)).max() > 20


def test_totals_given_at_the_door_are_those_of_replicates() -> None:
    """With a category missing, the recorded total still says how many there were to distribute."""
    counts = np.random.default_rng(0).poisson(3.0, (2, 5, 3)).astype(float)
    totals = counts.sum(-1)
    counts[0, 1, 2] = np.nan
    data = lr.SequenceData.from_arrays({"y": counts}, totals={"y": totals}, dtype=torch.float64)
    model = lr.LatentRNN(
        data.spec, transition=lr.GRU(2), latent=lr.Deterministic(), observations={"y": lr.Multinomial()}
    ).double()
    drawn = poutine.uncondition(model)(data)["y"]
    np.testing.assert_array_equal(drawn.sum(-1), totals)


# -- the others ----------------------------------------------------------------------------------------------------


def test_a_poisson_by_its_log_rate() -> None:
    log_rate = torch.tensor([-800.0, -3.0, 0.0, 4.0], dtype=torch.float64)
    poisson = LogRatePoisson(log_rate)
    y = torch.tensor([0.0, 1.0, 3.0, 60.0], dtype=torch.float64)
    expected = stats.poisson.logpmf(y.numpy(), np.exp(log_rate.numpy()))
    np.testing.assert_allclose(poisson.log_prob(y), expected, rtol=0, atol=1e-10)
    assert poisson.log_prob(torch.ones(4, dtype=torch.float64))[0] == -800.0  # the rate underflows, its log does not
    torch.testing.assert_close(poisson.mean, log_rate.exp())
    wide = poisson.expand((20000, 4))
    assert wide.batch_shape == (20000, 4)
    for draws in (wide.sample(), poisson.sample((20000,))):
        assert draws.shape == (20000, 4)
        standard = (draws.mean(0) - poisson.mean)[1:] / (poisson.mean[1:] / 20000).sqrt()
        assert standard.abs().max() < 6
        ratio = draws.var(0)[1:] / poisson.mean[1:]
        # Var of the sample variance of a Poisson: (2 rate^2 + rate) / n
        assert (((ratio - 1) / ((2 + 1 / poisson.mean[1:]) / 20000).sqrt()).abs()).max() < 6


def test_a_rate_beyond_all_bounds_gives_huge_counts_rather_than_nan() -> None:
    draws = LogRatePoisson(torch.tensor([1000.0])).sample((5,))
    assert torch.isfinite(draws).all()
    assert (draws > 1e5).all()


@pytest.mark.parametrize("partial", [False, True])
def test_a_stepwise_normal_samples_what_its_density_says(partial: bool) -> None:
    tril = torch.tensor([[1.0, 0.0, 0.0], [0.8, 0.5, 0.0], [-0.3, 0.2, 0.7]], dtype=torch.float64)
    loc = torch.randn(4, 3, dtype=torch.float64)
    normal = StepwiseMultivariateNormal(loc, tril, torch.ones(4, 3, dtype=torch.bool) if partial else None, partial)
    draws = normal.expand((20000,)).sample()
    standard = torch.linalg.solve_triangular(tril, (draws - loc).mT, upper=False).mT.reshape(-1, 3)
    count = len(standard)
    assert (standard.mean(0) * count**0.5).abs().max() < 6
    assert ((standard.T @ standard / count - torch.eye(3)) * (count / 2) ** 0.5).abs().max() < 6
    expected = stats.multivariate_normal.logpdf((draws[0] - loc).numpy(), np.zeros(3), (tril @ tril.T).numpy())
    np.testing.assert_allclose(normal.step_log_prob(draws[0]), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("family", FAMILIES)
def test_leading_sample_axes_broadcast(family: str) -> None:
    model, data, _, _ = make(family, "single entries")
    head, inputs = model.observations["y"], model.observations["y"].inputs(data)
    states: Tensor = torch.randn(3, 2, 6, 5, dtype=torch.float64)
    together = head(states, inputs).log_prob(data.observations["y"])
    assert together.shape == (3, 2)
    for sample in range(3):
        torch.testing.assert_close(
            together[sample], head(states[sample], inputs).log_prob(data.observations["y"]), rtol=0, atol=1e-12
        )
