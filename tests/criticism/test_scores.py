"""Scores against scipy and against the benchmark's definition written out with numpy."""

import numpy as np
import pytest
import scipy.stats
import torch

from latentrnn.criticism import (
    bits_per_spike,
    bits_per_spike_by_block,
    held_out_log_likelihood,
    one_step_ahead_bits_per_spike,
    one_step_ahead_log_likelihood,
    paired_difference,
    r2,
)
from latentrnn.data import SequenceKey
from tests.criticism.fakes import FakePosterior, counts_data, one_step_ahead, poisson_one_step_ahead


@pytest.fixture
def recording():
    rng = np.random.default_rng(0)
    rates = rng.gamma(2.0, 0.3, size=(4, 50, 3))
    return rates, rng.poisson(rates).astype(float)


def benchmark(rates, counts):
    """The metric as the Neural Latents Benchmark defines it; NaN counts are left out."""
    seen = ~np.isnan(counts)
    null = np.broadcast_to(np.nanmean(counts, axis=(0, 1)), counts.shape)
    model, mean = (scipy.stats.poisson.logpmf(counts[seen], r[seen]).sum() for r in (np.maximum(rates, 1e-9), null))
    return (model - mean) / np.nansum(counts) / np.log(2)


def test_bits_per_spike_is_the_benchmark(recording):
    rates, counts = recording
    assert bits_per_spike(rates, counts) == pytest.approx(benchmark(rates, counts), abs=1e-10)
    rates[0, 3, 1] = 0.0
    assert bits_per_spike(rates, counts) == pytest.approx(benchmark(rates, counts), abs=1e-10)
    tensors = torch.as_tensor(rates, dtype=torch.float32), torch.as_tensor(counts, dtype=torch.float32)
    assert bits_per_spike(*tensors) == pytest.approx(benchmark(rates, counts), abs=1e-5)


def test_mask_and_nan_leave_entries_out_of_score_and_null(recording):
    rates, counts = recording
    mask = np.random.default_rng(1).random(counts.shape) > 0.3
    holes = np.where(mask, counts, np.nan)
    expected = benchmark(rates, holes)
    assert bits_per_spike(rates, holes) == pytest.approx(expected, abs=1e-10)
    assert bits_per_spike(np.where(mask, rates, np.nan), counts, mask) == pytest.approx(expected, abs=1e-10)
    steps = mask[..., 0]
    expected = benchmark(rates, np.where(steps[..., None], counts, np.nan))
    assert bits_per_spike(rates, counts, steps) == pytest.approx(expected, abs=1e-10)


def test_mean_rates_score_zero_and_better_rates_more(recording):
    rates, counts = recording
    null = np.broadcast_to(counts.mean((0, 1)), counts.shape)
    assert bits_per_spike(null, counts) == pytest.approx(0, abs=1e-12)
    assert bits_per_spike(rates, counts) > 0.05
    assert bits_per_spike(rates[::-1], counts) < 0


def test_one_step_ahead_score_is_the_same_number_for_the_same_rates(recording):
    rates, counts = (torch.as_tensor(a) for a in recording)
    score = one_step_ahead_bits_per_spike(poisson_one_step_ahead(rates, counts), block_length=10)
    assert float(score) == pytest.approx(bits_per_spike(rates, counts), abs=1e-10)
    assert (score.num_blocks, score.num_spikes) == (20, int(counts.sum()))
    outside = bits_per_spike_by_block(rates, counts, block_length=10)
    assert outside.value == pytest.approx(score.value)
    assert outside.standard_error == pytest.approx(score.standard_error)
    assert float(paired_difference(score, outside)) == pytest.approx(0, abs=1e-12)


def test_bernoulli_heads_are_scored_against_a_bernoulli_mean():
    p = torch.rand(2, 200, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 0.6
    counts = torch.bernoulli(p, generator=torch.Generator().manual_seed(1))
    score = one_step_ahead_bits_per_spike(
        one_step_ahead(torch.distributions.Bernoulli(p).log_prob(counts), p, counts), block_length=50
    )
    null = torch.distributions.Bernoulli(counts.mean((0, 1))).log_prob(counts)
    gain = torch.distributions.Bernoulli(p).log_prob(counts) - null
    assert score.value == pytest.approx(float(gain.sum() / counts.sum() / np.log(2)))


def test_standard_error_is_the_jackknife_over_blocks(recording):
    rates, counts = recording
    score = bits_per_spike_by_block(rates, counts, block_length=20)
    assert score.num_blocks == 12  # 20, 20 and 10 steps of each of four sequences
    gain = scipy.stats.poisson.logpmf(counts, rates) - scipy.stats.poisson.logpmf(counts, counts.mean((0, 1)))
    pairs = [(gain[s, t : t + 20].sum(), counts[s, t : t + 20].sum()) for s in range(4) for t in range(0, 50, 20)]
    g, n = np.array(pairs).T
    leave_out = (g.sum() - g) / (n.sum() - n) / np.log(2)
    assert score.standard_error == pytest.approx(np.sqrt(11 / 12 * ((leave_out - leave_out.mean()) ** 2).sum()))
    assert [start for _, start in score.blocks] == [0, 20, 40] * 4


def test_standard_errors_cover_the_spread_over_recordings():
    rng = np.random.default_rng(5)
    values, errors = [], []
    for _ in range(100):
        rates = rng.gamma(2.0, 0.2, size=(1, 1000, 1))
        score = bits_per_spike_by_block(rates, rng.poisson(rates), block_length=50)
        values.append(score.value)
        errors.append(score.standard_error)
    # the spread of 100 values is known to 7%; a factor of 1.5 is beyond 5 standard errors of it
    assert 1 / 1.5 < np.mean(errors) / np.std(values) < 1.5


def test_paired_difference_is_sharper_than_its_parts(recording):
    rates, counts = recording
    a = bits_per_spike_by_block(rates, counts, block_length=10)
    b = bits_per_spike_by_block(rates * 1.05, counts, block_length=10)
    difference = paired_difference(a, b)
    assert difference.value == pytest.approx(a.value - b.value)
    assert difference.standard_error < 0.3 * a.standard_error
    assert difference.in_standard_errors == pytest.approx(difference.value / difference.standard_error)


def test_log_likelihood_per_step_sums_channels_and_takes_joint_densities():
    observed = torch.randn(2, 30, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    log_prob = torch.distributions.Normal(0.0, 1.0).log_prob(observed)
    scored = torch.ones_like(log_prob, dtype=torch.bool)
    scored[1, 20:] = False
    score = one_step_ahead_log_likelihood(one_step_ahead(log_prob, observed, observed, scored=scored), block_length=5)
    expected = log_prob[scored].sum() / 50
    assert score.value == pytest.approx(float(expected))
    assert score.num_blocks == 10
    joint = one_step_ahead(log_prob.sum(-1, keepdim=True), observed, observed, scored=scored[..., :1])
    assert one_step_ahead_log_likelihood(joint, block_length=5).value == pytest.approx(float(expected))


def test_r2_is_sklearns(recording):
    metrics = pytest.importorskip("sklearn.metrics")
    rates, counts = recording
    mask = np.random.default_rng(2).random(counts.shape) > 0.3
    result = r2(rates, counts, mask)
    expected = [metrics.r2_score(counts[..., c][mask[..., c]], rates[..., c][mask[..., c]]) for c in range(3)]
    np.testing.assert_allclose(result.per_channel, expected)
    pooled = r2(rates, counts)
    assert float(pooled) == pytest.approx(
        metrics.r2_score(counts.reshape(-1, 3), rates.reshape(-1, 3), multioutput="variance_weighted")
    )
    constant = counts.copy()
    constant[..., 0] = 2.0
    assert r2(rates, constant).per_channel.isnan().tolist() == [True, False, False]
    assert np.isfinite(float(r2(rates, constant)))


def test_held_out_log_likelihood_refuses_what_the_fit_has_seen():
    data = counts_data(torch.arange(12.0).reshape(3, 4, 1))
    values = torch.tensor([-3.0, -5.0, -10.0])
    score = held_out_log_likelihood(FakePosterior(data, log_evidence=values))
    assert score.value == pytest.approx(-6.0)
    assert score.standard_error == pytest.approx(float(values.std() / np.sqrt(3)), rel=1e-6)
    seen = FakePosterior(data, log_evidence=values, used=frozenset(data.keys[:1]))
    with pytest.raises(ValueError, match="1 of 3 sequences were used to fit it"):
        held_out_log_likelihood(seen)
    unknown = FakePosterior(data, log_evidence=values, used=None)
    with pytest.raises(ValueError, match="cannot tell what it was fitted on"):
        held_out_log_likelihood(unknown)
    assert held_out_log_likelihood(unknown, held_out=True).value == pytest.approx(-6.0)
    with pytest.raises(ValueError, match="1 of 3 sequences"):  # what is known is not overruled by a promise
        held_out_log_likelihood(seen, held_out=True)


def test_later_stretches_of_a_fitted_recording_are_held_out():
    data = counts_data(torch.arange(12.0).reshape(3, 4, 1))
    train, _, later = data.split(0.5, 0.25, 0.25, along="time")
    posterior = FakePosterior(later, log_evidence=torch.zeros(3), used=frozenset(train.keys))
    assert held_out_log_likelihood(posterior).value == 0
    key = later.keys[0]
    overlapping = frozenset({SequenceKey(key.key, 0, key.start + 1)})
    with pytest.raises(ValueError, match="1 of 3"):
        held_out_log_likelihood(FakePosterior(later, log_evidence=torch.zeros(3), used=overlapping))


X = torch.full((2, 4, 1), 0.5)
Y = torch.tensor([0.0, 1.0, 0.0, 2.0]).reshape(1, 4, 1).expand(2, 4, 1)
ONE = poisson_one_step_ahead(X, Y)
SILENT = poisson_one_step_ahead(X, torch.zeros_like(Y))
BLOCKS = bits_per_spike_by_block(X, Y)
ERRORS = {
    "shape": (lambda: bits_per_spike(X, Y[:, :3]), ValueError, r"rates: expected .* got \(2, 4, 1\) and \(2, 3, 1\)"),
    "flat": (lambda: bits_per_spike(X[0], Y[0]), ValueError, r"expected \(sequence, time, channel\)"),
    "negative rate": (lambda: bits_per_spike(-X, Y), ValueError, "rates: expected non-negative.*found -0.5"),
    "nan rate": (lambda: bits_per_spike(X * float("nan"), Y), ValueError, "rates: expected finite"),
    "no spikes": (lambda: bits_per_spike(X, Y * 0), ValueError, "no spike in the scored entries"),
    "not counts": (lambda: bits_per_spike(X, Y + 0.5), ValueError, "non-negative integers"),
    "nothing": (lambda: bits_per_spike(X, Y, Y < 0), ValueError, "nothing is scored"),
    "mask type": (lambda: bits_per_spike(X, Y, Y), TypeError, "mask: expected booleans"),
    "mask shape": (lambda: bits_per_spike(X, Y, Y[:, :2] > 0), ValueError, r"mask: expected shape \(2, 4, 1\)"),
    "one block": (lambda: bits_per_spike_by_block(X[:1], Y[:1]), ValueError, "needs at least 2"),
    "block length": (
        lambda: one_step_ahead_bits_per_spike(ONE, block_length=0),
        ValueError,
        "block_length must be a positive integer; found 0",
    ),
    "silent": (lambda: one_step_ahead_bits_per_spike(SILENT), ValueError, "of 'spikes': no spike"),
    "other blocks": (
        lambda: paired_difference(BLOCKS, bits_per_spike_by_block(X, Y, block_length=2)),
        ValueError,
        "blocks differ, 2 and 4",
    ),
    "other data": (
        lambda: paired_difference(BLOCKS, bits_per_spike_by_block(X, Y + 1)),
        ValueError,
        "different events",
    ),
    "other units": (
        lambda: paired_difference(BLOCKS, one_step_ahead_log_likelihood(ONE)),
        ValueError,
        "units differ",
    ),
    "no variance": (lambda: r2(X, Y * 0), ValueError, "no variance"),
}


@pytest.mark.parametrize("case", ERRORS)
def test_errors_say_what_is_wrong(case):
    call, error, message = ERRORS[case]
    with pytest.raises(error, match=message):
        call()
