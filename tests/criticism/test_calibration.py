"""Time rescaling: exactly uniform for true rates at any bin width, and far from it for wrong ones."""

import numpy as np
import pytest
import scipy.stats
import torch

from latentrnn.criticism import time_rescaling
from latentrnn.criticism.calibration import rescaled_intervals
from tests.criticism.fakes import one_step_ahead, poisson_one_step_ahead


def modulated(num_steps=20_000, level=0.3, sequences=1, channels=2):
    time = torch.arange(num_steps, dtype=torch.float64)
    phase = torch.arange(channels, dtype=torch.float64)
    one = level * (1 + 0.9 * torch.sin(2 * torch.pi * time[:, None] / 97 + phase))
    return one.expand(sequences, num_steps, channels).contiguous()


def spikes(rates, seed=0):
    return torch.poisson(rates, generator=torch.Generator().manual_seed(seed))


def test_rescaled_intervals_follow_the_published_formula():
    rng = np.random.default_rng(0)
    hazard, event = rng.uniform(0.05, 0.5, 50), rng.random(50) < 0.3
    z = rescaled_intervals(torch.as_tensor(hazard), torch.as_tensor(event), torch.Generator().manual_seed(5))
    uniform = torch.rand(int(event.sum()), generator=torch.Generator().manual_seed(5), dtype=torch.float64).numpy()
    expected, total, number = [], 0.0, 0
    for q, spike in zip(hazard, event, strict=True):
        if spike:
            delta = -np.log(1 - uniform[number] * (1 - np.exp(-q)))
            expected.append(1 - np.exp(-(total + delta)))
            total, number = 0.0, number + 1
        else:
            total += q
    np.testing.assert_allclose(z, expected, rtol=1e-12)


# at a rate of 2 per bin the uncorrected test fails by far; p < 1e-5 in each of the runs is the failure budget
@pytest.mark.parametrize("level", [0.01, 0.3, 2.0])
def test_true_rates_pass_at_any_bin_width(level):
    rates = modulated(level=level)
    result = time_rescaling(poisson_one_step_ahead(rates, spikes(rates)))
    assert (result.p_value > 5e-6).all()
    for channel, z in enumerate(result.rescaled):
        expected = scipy.stats.kstest(z.numpy(), "uniform", method="exact")
        assert float(result.statistic[channel]) == pytest.approx(expected.statistic)
        assert float(result.p_value[channel]) == pytest.approx(expected.pvalue, rel=1e-6)
        assert abs(float(result.serial_correlation[channel])) < 4.5 / np.sqrt(z.numel())


@pytest.mark.parametrize("wrong", [lambda r: r.mean() + 0 * r, lambda r: 1.3 * r, lambda r: 0.7 * r])
def test_wrong_rates_fail(wrong):
    rates = modulated()
    result = time_rescaling(poisson_one_step_ahead(wrong(rates), spikes(rates)))
    assert (result.p_value < 1e-6).all()
    assert not result.within_99.any()


def test_refractory_spikes_fail_under_a_poisson_rate_and_pass_under_their_own():
    generator = torch.Generator().manual_seed(2)
    uniform = torch.rand(20_000, generator=generator, dtype=torch.float64)
    counts, probability, since = torch.zeros(20_000), torch.zeros(20_000, dtype=torch.float64), 100
    for t in range(20_000):
        probability[t] = 0.2 if since > 4 else 0.01
        counts[t] = float(uniform[t] < probability[t])
        since = 1 if counts[t] else since + 1
    counts, probability = counts.double().reshape(1, -1, 1), probability.reshape(1, -1, 1)

    def bernoulli(p):
        return one_step_ahead(torch.distributions.Bernoulli(p).log_prob(counts), p, counts)

    assert time_rescaling(bernoulli(probability)).p_value > 5e-6
    assert time_rescaling(bernoulli(counts.mean().expand_as(probability))).p_value < 1e-6


def test_family_is_read_off_the_empty_bins():
    rates = modulated(num_steps=500, level=0.5)
    counts = spikes(rates)
    item = poisson_one_step_ahead(rates, counts)
    torch.testing.assert_close(time_rescaling(item).rescaled[0], time_rescaling(item, family="poisson").rescaled[0])
    p = rates.clamp(max=0.9)
    binary = (counts > 0).double()
    item = one_step_ahead(torch.distributions.Bernoulli(p).log_prob(binary), p, binary)
    torch.testing.assert_close(time_rescaling(item).rescaled[0], time_rescaling(item, family="bernoulli").rescaled[0])
    assert not torch.equal(time_rescaling(item).rescaled[0], time_rescaling(item, family="poisson").rescaled[0])


def test_short_sequences_are_not_biased_by_their_ends():
    # on average 0.6 spikes a sequence: dropping each sequence's last interval would leave only the short ones
    rates = torch.full((3000, 20, 1), 0.03, dtype=torch.float64)
    assert time_rescaling(poisson_one_step_ahead(rates, spikes(rates))).p_value > 5e-6


def test_what_is_not_scored_does_not_count():
    rates = modulated(num_steps=2000)
    counts = spikes(rates)
    scored = torch.rand(1, 2000, 2, generator=torch.Generator().manual_seed(1)) > 0.3
    result = time_rescaling(poisson_one_step_ahead(rates, counts, scored=scored))
    junk = poisson_one_step_ahead(rates, torch.where(scored, counts, 7.0), scored=scored)
    junk.log_prob[~scored] = float("nan")
    torch.testing.assert_close(time_rescaling(junk).rescaled[1], result.rescaled[1])
    assert result.num_intervals.tolist() == ((counts > 0) & scored).sum((0, 1)).tolist()


def test_seed_decides_and_the_global_generator_is_left_alone():
    rates = modulated(num_steps=300)
    item = poisson_one_step_ahead(rates, spikes(rates))
    state = torch.get_rng_state()
    first, second, other = time_rescaling(item), time_rescaling(item), time_rescaling(item, seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first.rescaled[0], second.rescaled[0])
    assert not torch.equal(first.rescaled[0], other.rescaled[0])


def test_merged_spikes_are_counted_and_silent_channels_survive():
    counts = torch.zeros(1, 10, 2, dtype=torch.float64)
    counts[0, 3, 0] = 3.0
    result = time_rescaling(poisson_one_step_ahead(torch.full_like(counts, 0.2), counts))
    assert result.num_merged.tolist() == [2, 0]
    assert result.num_intervals.tolist() == [1, 0]
    assert result.statistic[1].isnan()
    assert not result.within_95[1]
    assert "2 spikes shared a bin" in str(result)


def test_impossible_spikes_give_a_misfit_not_nan():
    counts = torch.ones(1, 30, 1, dtype=torch.float64)
    for rate in (0.0, 1e6):
        mean = torch.full_like(counts, rate)
        result = time_rescaling(one_step_ahead(torch.full_like(counts, -1e9), mean, counts), family="poisson")
        assert torch.isfinite(result.rescaled[0]).all()
    certain = torch.ones_like(counts)
    assert torch.isfinite(
        time_rescaling(one_step_ahead(torch.zeros_like(counts), certain, counts), family="bernoulli").rescaled[0]
    ).all()


COUNTS = torch.tensor([[[1.0], [0.0], [2.0]]], dtype=torch.float64)
RATES = torch.full_like(COUNTS, 0.5)
ERRORS = {
    "joint": (one_step_ahead(COUNTS, RATES.expand(1, 3, 2), COUNTS.expand(1, 3, 2)), {}, "log-probability per channel"),
    "continuous": (one_step_ahead(COUNTS, RATES, COUNTS + 0.5), {}, "expected counts"),
    "nothing": (poisson_one_step_ahead(RATES, COUNTS, scored=torch.zeros(1, 3, 1, dtype=torch.bool)), {}, "no scored"),
    "nan": (one_step_ahead(COUNTS * float("nan"), RATES, COUNTS), {}, "NaN in a scored entry"),
    "family": (
        poisson_one_step_ahead(RATES, COUNTS),
        {"family": "gaussian"},
        "family must be one of 'poisson', 'bernoulli'; found 'gaussian'",
    ),
    "probability": (poisson_one_step_ahead(RATES * 4, COUNTS), {"family": "bernoulli"}, "needs probabilities, found 2"),
}


@pytest.mark.parametrize("case", ERRORS)
def test_errors_say_what_is_wrong(case):
    item, options, message = ERRORS[case]
    with pytest.raises(ValueError, match=message):
        time_rescaling(item, **options)


# -- any family of counts: only the probability of no event matters ---------------------------------------------------

NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(60)


def families(rng, shape=(4, 2500, 1)):
    """Counts, exact log-probabilities of them and of zero, and means, (sequence, time, channel), by NumPy alone."""
    drive = np.exp(np.sin(np.arange(shape[1]) / 15))[None, :, None] * np.ones(shape)
    stats = scipy.stats
    rates = 0.5 * drive * np.exp(rng.normal(size=shape) - 0.5)  # random rates, of log standard deviation one
    nodes = 0.5 * drive[..., None] * np.exp(NODES - 0.5)

    def mixture(y):
        return np.log((stats.poisson.pmf(y[..., None], nodes) * WEIGHTS / WEIGHTS.sum()).sum(-1))

    def inflated(y):
        poisson = np.log(0.5) + stats.poisson.logpmf(y, drive)
        return np.where(y == 0, np.log(0.5 + 0.5 * np.exp(-drive)), poisson)

    size, chance = 1.0, 1 / (1 + 0.4 * drive)
    p = 0.5 * drive / drive.max()
    laws = {
        "random rates": (rng.poisson(rates), mixture, 0.5 * drive),
        "negative binomial": (
            rng.negative_binomial(size, chance), lambda y: stats.nbinom.logpmf(y, size, chance), 0.4 * drive
        ),
        "zero-inflated": (rng.poisson(drive) * (rng.random(shape) < 0.5), inflated, 0.5 * drive),
        "binomial": (rng.binomial(3, p), lambda y: stats.binom.logpmf(y, 3, p), 3 * p),
        "beta-binomial": (
            rng.binomial(3, rng.beta(p, 1 - p)),
            lambda y: stats.betabinom.logpmf(y, 3, p, 1 - p),
            3 * p,
        ),
        "poisson": (rng.poisson(0.5 * drive), lambda y: stats.poisson.logpmf(y, 0.5 * drive), 0.5 * drive),
    }  # fmt: skip
    return laws


def ahead_of(y, log_prob, mean, **fields):
    made = one_step_ahead(*(torch.as_tensor(np.asarray(part, dtype=float)) for part in (log_prob(y), mean, y)))
    made.log_prob_zero = torch.as_tensor(log_prob(np.zeros(y.shape)))
    made.standard_error_zero = None
    for name, value in fields.items():
        setattr(made, name, value)
    return made


@pytest.mark.parametrize("family", list(families(np.random.default_rng(0))))
def test_every_family_of_counts_is_calibrated(family):
    """1,500 or more intervals; p < 1e-6 by chance in one of a million. Taking the mean for the hazard fails by far."""
    y, log_prob, mean = families(np.random.default_rng(3))[family]
    found = time_rescaling(ahead_of(y, log_prob, mean))
    assert int(found.num_intervals) > 1000
    assert found.p_value > 1e-6
    if family != "poisson":
        assert time_rescaling(as_poisson(y, mean)).p_value < 1e-6
    if family not in ("poisson", "binomial"):
        assert time_rescaling(ahead_of(y, log_prob, mean), family="poisson").p_value < 1e-6


def as_poisson(y, mean):
    """The control: what a Poisson head of the same mean would say."""
    return ahead_of(y, lambda v: scipy.stats.poisson.logpmf(v, mean), mean)


@pytest.mark.parametrize("repetitions", [80, pytest.param(500, marks=pytest.mark.slow)])
@pytest.mark.parametrize("family", list(families(np.random.default_rng(0))))
def test_right_models_are_rejected_as_often_as_the_level_says(family, repetitions, monkeypatch):
    """Every channel is a repetition; outside of the bound by chance in two of a million."""
    monkeypatch.setattr(scipy.stats.kstwo, "ppf", lambda level, number: np.nan)  # critical values, which take long
    y, log_prob, mean = families(np.random.default_rng(5), (1, 300, repetitions))[family]
    found = time_rescaling(ahead_of(y, log_prob, mean))
    assert (found.num_intervals > 50).all()
    least, most = scipy.stats.binom.ppf([1e-6, 1 - 1e-6], repetitions, 0.05)
    assert least <= int((found.p_value < 0.05).sum()) <= most
    if family != "poisson":
        assert int((time_rescaling(as_poisson(y, mean)).p_value < 0.05).sum()) > most


def test_a_refractory_train_is_rejected_whatever_the_family():
    rng = np.random.default_rng(0)
    y, last = np.zeros((1, 8000, 1)), -9
    for t in range(8000):
        if t - last > 3 and rng.random() < 0.3:
            y[0, t], last = 1, t
    chance = 1 / (1 + y.mean())
    flat = ahead_of(y, lambda v: scipy.stats.nbinom.logpmf(v, 1.0, chance), np.full(y.shape, y.mean()))
    assert time_rescaling(flat).p_value < 1e-6


def test_a_result_without_the_probability_of_no_event_is_read_where_it_tells_and_else_refused():
    rng = np.random.default_rng(1)
    y = rng.negative_binomial(1.0, 1 / 1.4, (2, 400, 1))
    flat = ahead_of(y, lambda v: scipy.stats.nbinom.logpmf(v, 1.0, 1 / 1.4), np.full(y.shape, 0.4))
    known = time_rescaling(flat)
    flat.log_prob_zero = None
    torch.testing.assert_close(time_rescaling(flat).rescaled[0], known.rescaled[0])
    mean = rng.uniform(0.2, 0.6, y.shape)
    moving = ahead_of(y, lambda v: scipy.stats.nbinom.logpmf(v, 1.0, 1 / (1 + mean)), mean, log_prob_zero=None)
    with pytest.raises(ValueError, match="expected log_prob_zero, the log-probability of no event"):
        time_rescaling(moving)


@pytest.mark.parametrize("observation", ["Categorical", "Gaussian"])
def test_a_head_that_counts_no_events_is_refused_by_name(observation):
    values = torch.randint(0, 3, (2, 6, 1)).double()
    item = one_step_ahead(torch.zeros(2, 6, 1).double(), values, values)
    item.family, item.log_prob_zero = observation, None
    with pytest.raises(ValueError, match=f"{observation} does not count events"):
        time_rescaling(item)
    with pytest.raises(TypeError, match="expected a OneStepAhead; found int"):
        time_rescaling(3)


def test_monte_carlo_error_is_told():
    rates = modulated(num_steps=500)
    item = poisson_one_step_ahead(rates, spikes(rates))
    item.standard_error = torch.full_like(item.log_prob, 0.5)
    found = time_rescaling(item)
    # by hand: an interval's errors add up, weighed by its survival
    z, event = found.rescaled[0].numpy(), (item.observed[0, :, 0] > 0).numpy()
    bins = np.diff(np.flatnonzero(event), prepend=-1)
    hazard = np.diff(np.cumsum(rates[0, :, 0].numpy())[event], prepend=0.0)
    assert len(z) == len(bins)
    assert found.monte_carlo_error[0].item() == pytest.approx(np.mean(np.exp(-hazard) * 0.5 * bins))
    assert "may decide the test" in str(found)
