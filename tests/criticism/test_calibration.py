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
    "family": (poisson_one_step_ahead(RATES, COUNTS), {"family": "gaussian"}, "family: expected 'poisson'"),
    "probability": (poisson_one_step_ahead(RATES * 4, COUNTS), {"family": "bernoulli"}, "needs probabilities, found 2"),
}


@pytest.mark.parametrize("case", ERRORS)
def test_errors_say_what_is_wrong(case):
    item, options, message = ERRORS[case]
    with pytest.raises(ValueError, match=message):
        time_rescaling(item, **options)
