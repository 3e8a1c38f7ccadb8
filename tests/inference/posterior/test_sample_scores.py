"""Intervals of samples cover what they say, for any number of samples."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import latentrnn as lr
from latentrnn.inference.posterior.sample_scores import quantiles


@pytest.mark.parametrize("count", [1, 2, 5, 20, 50, 199])
@pytest.mark.parametrize("level", [0.5, 0.9, 0.95])
def test_the_average_is_the_level_whatever_the_number_of_samples(count: int, level: float) -> None:
    """Eighteen averages of 20,000 at five standard errors: a chance of 1e-5 to fail by accident."""
    rng = np.random.default_rng(count)
    drawn = torch.as_tensor(rng.standard_t(3, (count, 1, 20_000, 1)))
    truth = torch.as_tensor(rng.standard_t(3, (1, 20_000, 1)))
    found = lr.coverage(drawn, truth, level=level)
    assert abs(float(found.mean()) - level) < 5 * (level * (1 - level) / 20_000) ** 0.5
    assert ((found >= 0) & (found <= 1)).all()
    if count < 60:  # negative control: ends interpolated as torch has it cover too little
        ends = torch.quantile(drawn, torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64), 0)
        naive = ((truth >= ends[0]) & (truth <= ends[1])).double().mean()
        assert level - float(naive) > 5 * (level * (1 - level) / 20_000) ** 0.5


def test_quantiles_are_those_that_numpy_calls_weibull() -> None:
    samples = torch.as_tensor(np.random.default_rng(0).normal(size=(23, 4)))
    p = [0.0, 0.05, 0.31, 0.5, 0.95, 1.0]
    np.testing.assert_allclose(quantiles(samples, p), np.quantile(samples.numpy(), p, axis=0, method="weibull"))


def test_quantiles_beside_infinite_samples() -> None:
    samples = torch.tensor([0.0, 1.0, 2.0, torch.inf, torch.inf])
    assert quantiles(samples, [0.0, 0.5, 0.9]).tolist() == [0.0, 2.0, torch.inf]
    assert quantiles(-samples, [0.1, 0.5]).tolist() == [-torch.inf, -2.0]
    assert quantiles(samples[:4], [0.7]).tolist() == [torch.inf]  # between a number and what lies at infinity


@pytest.mark.parametrize(("count", "level"), [(2, 0.05), (2, 0.3), (4, 0.1), (10, 0.05)])
def test_narrow_intervals_of_few_samples_cover_their_level(count: int, level: float) -> None:
    """Exactly: a new value falls into each of the gaps between samples alike."""
    drawn = torch.arange(count).double().reshape(-1, 1, 1, 1).expand(-1, 1, count + 1, 1)
    places = (torch.arange(count + 1).double() - 0.5).reshape(1, -1, 1)
    assert float(lr.coverage(drawn, places, level=level).mean()) == pytest.approx(level, abs=1e-12)


def test_ends_belong_to_the_interval_and_far_outside_counts_for_little() -> None:
    samples = torch.zeros(39, 1, 3, 1)
    samples[::2] = 2.0
    observed = torch.tensor([[[0.0], [2.0], [5.0]]])
    assert lr.coverage(samples, observed, level=0.9).flatten().tolist() == [1.0, 1.0, 0.0]
