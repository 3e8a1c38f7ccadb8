"""Families that join channels or steps: low-rank noise, over-dispersed shared totals, and one event per sequence."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy import special, stats

import latentrnn as lr
from latentrnn.models.observations.dirichlet_multinomial import DirichletMultinomialCounts
from latentrnn.models.observations.discrete_hazard import EventPath
from latentrnn.models.observations.low_rank_normal import StepwiseLowRankNormal
from tests import oracles


def built(observation: lr.Observation, values: Any, **options: Any) -> tuple[lr.LatentRNN, Any, lr.SequenceData]:
    data = lr.SequenceData.from_arrays({"y": values}, dtype=torch.float64, **options)
    model = lr.LatentRNN(
        data.spec, transition=lr.GRU(2), latent=lr.Deterministic(), observations={"y": observation}
    ).double()
    return model, model.observations["y"], data


def n(tensor: torch.Tensor) -> Any:
    return tensor.detach().numpy()


# -- noise in a few shared directions ------------------------------------------------------------------------------


@pytest.mark.parametrize("hiding", ["nothing", "entries", "steps"])
@pytest.mark.parametrize("standardise", [False, True])
def test_low_rank_noise_is_a_multivariate_normal_of_the_observed_channels(hiding: str, standardise: bool) -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(3.0, 10.0, (2, 6, 5))
    missing = np.zeros(values.shape, bool)
    if hiding == "entries":
        missing = rng.random(values.shape) < 0.4
        missing[0, 2] = True
    if hiding == "steps":
        missing[1, 3] = True
    _, head, data = built(
        lr.Gaussian(covariance="low_rank", rank=2),
        np.where(missing, np.nan, values),
        standardise=["y"] if standardise else [],
    )
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.copy_(0.7 * torch.randn_like(parameter))
    states = torch.randn(3, 2, 6, 2, dtype=torch.float64)
    eta = n(states) @ n(head.readout.weight).T + n(head.readout.baseline)
    loc = n(head.location) + n(head.scale) * eta
    covariance = n(head.noise_covariance)
    assert np.linalg.eigvalsh(covariance).min() > 0
    fn = head(states, head.inputs(data))
    found = fn.log_prob(data.observations["y"]).detach()
    for sample, sequence in itertools.product(range(3), range(2)):
        expected = oracles.gaussian_log_prob(values[sequence], loc[sample, sequence], covariance, missing[sequence])
        assert float(found[sample, sequence]) == pytest.approx(expected, rel=1e-10)
    entries = head.entry_log_prob(fn, data.observations["y"])
    np.testing.assert_allclose(n(entries.sum((-1, -2))), found, rtol=1e-12)
    assert not entries[..., 0][:, torch.as_tensor(missing.all(-1))].any()


def test_low_rank_samples_have_their_covariance() -> None:
    factor, scale = torch.tensor([[1.0], [-2.0], [0.5]]), torch.tensor([0.5, 1.0, 2.0])
    draws = StepwiseLowRankNormal(torch.zeros(1, 3), factor, scale, None, False).expand((40000,)).sample()[:, 0]
    covariance = factor @ factor.T + torch.diag(scale**2)
    products = draws.unsqueeze(-1) * draws.unsqueeze(-2)
    error = products.std(0) / 200
    assert ((products.mean(0) - covariance) / error).abs().max() < 6
    assert ((products.mean(0) - torch.diag(covariance.diagonal())) / error).abs().max() > 20


# -- shared totals -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seen", [[True, True, True, True], [True, True, False, False], [True, False, True, True]])
def test_over_dispersed_counts_of_the_observed_categories_are_the_others_added_up(seen: list[bool]) -> None:
    """p(y_seen | their sum), and p(y_seen | n) where the total is known, by adding up SciPy's joint probability.

    What is added up is everything that the missing categories could have been.
    """
    alpha, total = np.array([0.7, 2.0, 0.4, 1.1]), 5
    outcomes = [np.array(y) for y in itertools.product(range(total + 1), repeat=4) if sum(y) == total]
    probability = np.array([stats.dirichlet_multinomial.pmf(y, alpha, total) for y in outcomes])
    assert probability.sum() == pytest.approx(1.0, abs=1e-12)
    arguments = torch.as_tensor(alpha)[None], torch.tensor([5.0]), torch.tensor(seen)[None]
    counts, known = DirichletMultinomialCounts(*arguments, arguments[2]), DirichletMultinomialCounts(*arguments)
    for y in outcomes:
        same_sum = np.array([o[seen].sum() == y[seen].sum() for o in outcomes])
        same = np.array([(o[seen] == y[seen]).all() for o in outcomes])
        expected = np.log(probability[same].sum() / probability[same_sum].sum())
        value = torch.as_tensor(np.where(seen, y, 9.0))[None]
        assert counts.log_prob(value).item() == pytest.approx(expected, abs=1e-12)
        assert known.log_prob(value).item() == pytest.approx(np.log(probability[same].sum()), abs=1e-12)


def test_over_dispersed_counts_take_a_total_per_step_and_leave_out_empty_ones() -> None:
    rng = np.random.default_rng(0)
    values = rng.poisson(3.0, (2, 5, 3)).astype(float)
    totals = values.sum(-1)
    values[1, 2] = np.nan
    _, head, data = built(lr.DirichletMultinomial(), values, totals={"y": totals})
    states = torch.randn(2, 5, 2, dtype=torch.float64)
    with torch.no_grad():
        head.log_concentration.fill_(0.6)
        head.readout.baseline.normal_()
    fn = head(states, head.inputs(data))
    eta = n(states) @ n(head.readout.weight).T + n(head.readout.baseline)
    alpha = np.exp(0.6) * special.softmax(eta, -1)
    found = head.entry_log_prob(fn, data.observations["y"])[..., 0].detach()
    for sequence, step in itertools.product(range(2), range(5)):
        y = values[sequence, step]
        expected = 0.0 if np.isnan(y).any() else stats.dirichlet_multinomial.logpmf(y, alpha[sequence, step], y.sum())
        assert float(found[sequence, step]) == pytest.approx(expected, abs=1e-10)
    np.testing.assert_allclose(n(head.mean(fn)), totals[..., None] * special.softmax(eta, -1), rtol=1e-12)
    draws = fn.expand((20000, 2)).sample()
    np.testing.assert_array_equal(draws.sum(-1)[0], totals)
    q, total = special.softmax(eta[0, 0]), totals[0, 0]
    variance = total * q * (1 - q) * (total + np.exp(0.6)) / (1 + np.exp(0.6))
    deviation = n(draws[:, 0, 0]) - total * q
    assert np.abs(deviation.mean(0) / np.sqrt(variance / 20000)).max() < 6
    squares = deviation**2
    assert np.abs((squares.mean(0) - variance) / (squares.std(0) / 20000**0.5)).max() < 6
    # negative control: the multinomial's variance
    assert np.abs((squares.mean(0) - total * q * (1 - q)) / (squares.std(0) / 20000**0.5)).max() > 20


# -- channels that depend on each other within a step ---------------------------------------------------------------

WORDS = np.array(list(itertools.product([0.0, 1.0], repeat=4)))


def words(units: int | None, driven: bool = False) -> tuple[Any, lr.SequenceData, torch.Tensor]:
    """A head of four channels with weights that matter, all sixteen words as sequences of one step, and states."""
    _, head, data = built(lr.AutoregressiveBernoulli(units, driven_units=driven), WORDS[:, None])
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.normal_()
        head.history_centre.copy_(torch.tensor([0.1, 0.4, 0.5, 0.7]))
    return head, data, torch.randn(1, 1, 2, dtype=torch.float64).expand(16, 1, 2)


def words_by_hand(head: Any, state: Any) -> Any:
    """p(y) of every word, channel after channel; a unit sees the channels up to its own and acts on the rest."""
    probability = np.ones(16)
    eta = n(head.readout.weight) @ state + n(head.readout.baseline)
    drive = n(head.unit_drive) @ state if head.driven_units else np.zeros(head.units or 0)
    weight, centre = n(head.pairwise), n(head.history_centre)
    for word, y in enumerate(WORDS):
        for c in range(4):
            log_odds = eta[c] + sum(weight[c, d] * (y[d] - centre[d]) for d in range(c))
            for u in range(head.units or 0):
                last = u * 3 // head.units
                seen = sum(n(head.unit_weight)[u, d] * (y[d] - centre[d]) for d in range(last + 1))
                if c > last:
                    log_odds += n(head.unit_effect)[c, u] * max(0.0, seen + n(head.unit_bias)[u] + drive[u])
            probability[word] *= special.expit(log_odds) if y[c] else special.expit(-log_odds)
    return probability


@pytest.mark.parametrize(("units", "driven"), [(None, False), (1, False), (7, False), (7, True)])
def test_binary_words_have_the_product_of_their_channels(units: int | None, driven: bool) -> None:
    head, data, states = words(units, driven)
    expected = words_by_hand(head, n(states)[0, 0])
    assert expected.sum() == pytest.approx(1.0, abs=1e-12)
    fn = head(states, head.inputs(data))
    np.testing.assert_allclose(n(fn.log_prob(data.observations["y"])), np.log(expected), rtol=1e-10)
    np.testing.assert_allclose(
        n(head.entry_log_prob(fn, data.observations["y"]))[:, 0, 0], np.log(expected), rtol=1e-10
    )


@pytest.mark.parametrize(("units", "driven"), [(None, False), (7, False), (7, True)])
def test_binary_words_are_drawn_as_often_as_they_are_probable(units: int | None, driven: bool) -> None:
    head, data, states = words(units, driven)
    expected, draws = words_by_hand(head, n(states)[0, 0]), 100_000
    fn = head(states[:1], head.inputs(data[:1]))
    drawn = fn.sample((draws,))[:, 0, 0]
    found = np.bincount((n(drawn) @ [8, 4, 2, 1]).astype(int), minlength=16) / draws
    error = np.sqrt(expected * (1 - expected) / draws)
    assert np.abs((found - expected) / error).max() < 6
    # negative control: independent channels of the same means
    means = expected @ WORDS
    independent = np.prod(np.where(WORDS == 1, means, 1 - means), -1)
    assert np.abs((found - independent) / error).max() > 20


@pytest.mark.parametrize("units", [None, 7])
def test_means_of_binary_words_are_close_and_the_same_at_every_call(units: int | None) -> None:
    errors, crude = [], []
    for _ in range(20):
        head, data, states = words(units)
        eta = n(states)[0, 0] @ n(head.readout.weight).T + n(head.readout.baseline)
        fn = head(states[:1], head.inputs(data[:1]))
        before = torch.random.get_rng_state()
        assert torch.equal(head.mean(fn), head.mean(fn))
        assert torch.equal(torch.random.get_rng_state(), before)
        expected = words_by_hand(head, n(states)[0, 0]) @ WORDS
        errors.append(n(head.mean(fn))[0, 0] - expected)
        crude.append(special.expit(eta) - expected)  # negative control: as if nothing acted within a step
    rms, without = (np.sqrt(np.mean(np.square(each))) for each in (errors, crude))
    assert rms < 0.01
    assert without > 0.05


def test_steps_that_were_not_observed_count_for_nothing() -> None:
    values = np.random.default_rng(0).integers(0, 2, (2, 5, 3)).astype(float)
    values[1, 2] = np.nan
    _, head, data = built(lr.AutoregressiveBernoulli(2), values)
    states = torch.randn(2, 5, 2, dtype=torch.float64)
    with torch.no_grad():
        head.pairwise.normal_()
    found = head.entry_log_prob(head(states, head.inputs(data)), data.observations["y"])[..., 0]
    assert found[1, 2] == 0.0
    whole = built(lr.AutoregressiveBernoulli(2), np.nan_to_num(values))[2]
    expected = head.entry_log_prob(head(states, head.inputs(whole)), whole.observations["y"])[..., 0]
    seen = torch.as_tensor(~np.isnan(values[..., 0]))
    torch.testing.assert_close(found[seen], expected[seen])
    assert (expected[1, 2] < 0).all()


# -- one event per sequence ----------------------------------------------------------------------------------------


EVENTS = np.array([[0, 0, 1, 0, 0], [0, 0, 0, 0, 0], [1, 0, 0, 0, 0], [0, 0, 0, 0, 1]], dtype=float)[..., None]


def hazard_by_hand(y: Any, hazard: Any) -> float:
    """log p(T = t) = log h_t + sum of log(1 - h) before it; log S(last step) where there is no event."""
    event = np.flatnonzero(y == 1)
    if len(event):
        return float(np.log(hazard[event[0]]) + np.log1p(-hazard[: event[0]]).sum())
    return float(np.log1p(-hazard).sum())


@pytest.mark.parametrize("after", [0.0, np.nan], ids=["zeros", "NaN"])
@pytest.mark.parametrize("link", ["sigmoid", "cloglog"])
def test_hazards_add_up_to_the_probability_of_the_time(link: str, after: float) -> None:
    values = np.where((np.cumsum(EVENTS, 1) - EVENTS) > 0, after, EVENTS)
    _, head, data = built(lr.DiscreteHazard(link=link), values)
    states = torch.randn(4, 5, 2, dtype=torch.float64)
    eta = (n(states) @ n(head.readout.weight).T + n(head.readout.baseline))[..., 0]
    hazard = special.expit(eta) if link == "sigmoid" else 1 - np.exp(-np.exp(eta))
    fn = head(states, head.inputs(data))
    expected = [hazard_by_hand(y, h) for y, h in zip(EVENTS[..., 0], hazard, strict=True)]
    np.testing.assert_allclose(n(fn.log_prob(data.observations["y"])), expected, rtol=1e-12)
    np.testing.assert_allclose(n(head.mean(fn))[..., 0], hazard, rtol=1e-12)
    np.testing.assert_allclose(n(head.survival(head.mean(fn)))[..., 0], np.cumprod(1 - hazard, 1), rtol=1e-12)


def test_all_times_and_survival_together_have_probability_one() -> None:
    logits = torch.randn(6, 1, dtype=torch.float64)
    paths = torch.cat([torch.eye(6), torch.zeros(1, 6)]).unsqueeze(-1).double()
    assert float(EventPath(logits.expand(7, 6, 1), None).log_prob(paths).exp().sum()) == pytest.approx(1.0, abs=1e-12)


def test_times_of_events_are_drawn_from_their_probabilities() -> None:
    logits = torch.randn(6, 1, dtype=torch.float64) - 0.5
    draws = EventPath(logits.expand(20000, 6, 1), None).sample()[..., 0]
    assert (draws.sum(-1) <= 1).all()
    hazard = n(torch.sigmoid(logits))[:, 0]
    p = hazard * np.concatenate([[1.0], np.cumprod(1 - hazard)[:-1]])
    z = (n(draws).mean(0) - p) / np.sqrt(p * (1 - p) / 20000)
    assert np.abs(z).max() < 6
    assert np.abs((n(draws).mean(0) - hazard) / np.sqrt(p * (1 - p) / 20000)).max() > 20  # not the hazards themselves


def test_an_event_in_the_context_ends_the_risk_and_unwatched_steps_do_not_count() -> None:
    values = EVENTS.copy()
    values[1, 1] = np.nan  # entered late
    _, head, data = built(lr.DiscreteHazard(), values)
    windows = data.windows(2, context=5)
    model, head, _ = built(lr.DiscreteHazard(), values)
    whole = lr.Posterior(model, lr.Guide(model), data).evidence().values
    parts = lr.Posterior(model, lr.Guide(model), windows).evidence().values
    assert float(parts.sum()) == pytest.approx(float(whole.sum()), abs=1e-10)
    entries = head.entry_log_prob(head(torch.zeros(4, 5, 2).double(), head.inputs(data)), data.observations["y"])
    expected = [[1, 1, 1, 0, 0], [1, 0, 1, 1, 1], [1, 0, 0, 0, 0], [1, 1, 1, 1, 1]]
    np.testing.assert_array_equal(n(entries)[..., 0] != 0, np.array(expected, bool))


def test_a_particle_filter_knows_who_is_at_risk() -> None:
    data = lr.SequenceData.from_arrays({"y": EVENTS}, dtype=torch.float64)
    model = lr.LatentRNN(
        data.spec, transition=lr.GRU(2), latent=lr.InitialState(2), observations={"y": lr.DiscreteHazard()}
    ).double()
    with torch.no_grad():
        model.observations["y"].readout.weight.zero_()  # so that the answer is known
        model.observations["y"].readout.baseline.fill_(-0.7)
    guide = lr.Guide(model, encoder=lr.RNNEncoder(2)).double()
    found = lr.Posterior(model, guide, data).one_step_ahead("y", num_particles=20, num_filters=2)
    hazard = np.full((4, 5), special.expit(-0.7))
    expected = [hazard_by_hand(y, h) for y, h in zip(EVENTS[..., 0], hazard, strict=True)]
    np.testing.assert_allclose(n(found.log_prob).sum((1, 2)), expected, rtol=1e-9)


def test_a_fit_starts_from_events_per_step_at_risk() -> None:
    rng = np.random.default_rng(0)
    drawn = rng.random((3000, 12, 2)) < np.array([0.05, 0.2])
    values = (drawn & (np.cumsum(drawn, 1) == 1)).astype(float)
    _, head, data = built(lr.DiscreteHazard(link="cloglog"), values)
    head.initialise(data.observations["y"], data.masks["y"])
    found = head.mean(head(torch.zeros(3000, 12, 2).double(), head.inputs(data)))[0, 0]
    np.testing.assert_allclose(n(found), [0.05, 0.2], rtol=0.06)


# -- what is refused -----------------------------------------------------------------------------------------------

REALS = np.random.default_rng(0).normal(size=(2, 4, 3))
COUNTS = np.ones((2, 4, 3))


def checked(observation: lr.Observation, values: Any) -> None:
    model, _, data = built(observation, values)
    model.check(data)


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "rank alone": (
        lambda: lr.Gaussian(rank=2),
        "Gaussian: rank goes with covariance='low_rank'; found 'diagonal' with rank 2",
    ),
    "no rank": (
        lambda: lr.Gaussian(covariance="low_rank"),
        "Gaussian: rank goes with covariance='low_rank'; found 'low_rank' with rank None",
    ),
    "covariance": (
        lambda: lr.Gaussian(covariance="banded"),
        "Gaussian: covariance must be one of 'diagonal', 'low_rank', 'full'; found 'banded'",
    ),
    "rank too high": (
        lambda: built(lr.Gaussian(covariance="low_rank", rank=3), REALS),
        "observations['y']: Gaussian(covariance='low_rank'): rank must be below the 3 channels; found 3",
    ),
    "negative counts": (
        lambda: checked(lr.DirichletMultinomial(), -COUNTS),
        "observations['y']: DirichletMultinomial needs non-negative integers; found -1.0 at sequence 0, step 0",
    ),
    "one category": (
        lambda: built(lr.DirichletMultinomial(), COUNTS[..., :1]),
        "observations['y']: DirichletMultinomial needs at least 2 channels; found 1",
    ),
    "per sequence": (
        lambda: built(lr.DiscreteHazard(), {"y": COUNTS[:, 0]}["y"], per_sequence=["y"], times=[[0, 1], [0, 1]]),
        "observations['y']: DiscreteHazard needs a per-step head",
    ),
    "no units": (
        lambda: lr.AutoregressiveBernoulli(0),
        "AutoregressiveBernoulli: units must be a positive integer; found 0",
    ),
    "driven units without units": (
        lambda: lr.AutoregressiveBernoulli(driven_units=True),
        "AutoregressiveBernoulli: driven_units needs units; found units=None",
    ),
    "one channel": (
        lambda: built(lr.AutoregressiveBernoulli(), COUNTS[..., :1]),
        "observations['y']: AutoregressiveBernoulli needs at least 2 channels; found 1",
    ),
    "words per sequence": (
        lambda: built(lr.AutoregressiveBernoulli(), COUNTS[:, 0], per_sequence=["y"], times=[[0, 1], [0, 1]]),
        "observations['y']: AutoregressiveBernoulli needs a per-step head",
    ),
    "words of twos": (
        lambda: checked(lr.AutoregressiveBernoulli(), 2 * COUNTS),
        "observations['y']: AutoregressiveBernoulli needs zeros and ones; found 2.0 at sequence 0, step 0, channel 0",
    ),
    "words with holes": (
        lambda: checked(lr.AutoregressiveBernoulli(), np.where(np.arange(24).reshape(2, 4, 3) == 17, np.nan, COUNTS)),
        "observations['y']: AutoregressiveBernoulli needs all channels of a step or none; found channel 2 missing at "
        "sequence 1, step 1, where others are observed",
    ),
    "twos": (
        lambda: checked(lr.DiscreteHazard(), 2 * COUNTS),
        "observations['y']: DiscreteHazard needs zeros and ones; found 2.0 at sequence 0, step 0, channel 0",
    ),
    "two events": (
        lambda: checked(lr.DiscreteHazard(), COUNTS),
        "observations['y']: DiscreteHazard needs at most one event in a sequence; found 1.0 at sequence 0, step 1",
    ),
    "feedback": (
        lambda: lr.DiscreteHazard(feedback=lr.History(2)),
        "DiscreteHazard: before its one event a head has no past to feed back; leave feedback out",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_makes_no_sense_is_refused(case: str) -> None:
    make, message = REFUSED[case]
    with pytest.raises(ValueError, match=re.escape(message)):
        make()
