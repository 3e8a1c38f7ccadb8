"""Scores of outcomes against scikit-learn, loops over pairs, and what leaving one out gives."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import brier_score_loss, roc_auc_score

import latentrnn as lr


@pytest.fixture(scope="module")
def stated() -> tuple[np.ndarray, np.ndarray]:
    """Probabilities, some of them equal, and outcomes that follow them."""
    rng = np.random.default_rng(0)
    probability = np.round(rng.beta(2, 3, 60), 1)
    return probability, (rng.random(60) < probability).astype(float)


def harrell(risk: np.ndarray, time: np.ndarray, observed: np.ndarray) -> float:
    right = pairs = 0.0
    for i in range(len(risk)):
        for j in range(len(risk)):
            if observed[i] and time[i] < time[j]:
                pairs += 1
                right += 1.0 if risk[i] > risk[j] else 0.5 if risk[i] == risk[j] else 0.0
    return right / pairs


def left_out(score: Callable[[np.ndarray], float], number: int) -> float:
    """The standard error by leaving one out, by doing so."""
    without = np.array([score(np.delete(np.arange(number), row)) for row in range(number)])
    return math.sqrt((number - 1) / number * ((without - without.mean()) ** 2).sum())


def test_area_under_the_curve(stated: tuple[np.ndarray, np.ndarray]) -> None:
    probability, outcome = stated
    score = lr.auroc(probability, torch.from_numpy(outcome)[:, None].squeeze(-1))
    assert score.value == pytest.approx(roc_auc_score(outcome, probability), abs=1e-12)
    error = left_out(lambda rows: roc_auc_score(outcome[rows], probability[rows]), len(outcome))
    assert score.standard_error == pytest.approx(error, rel=1e-9)
    assert float(score.gains.mean()) == pytest.approx(score.value, abs=1e-12)
    assert str(score).startswith(f"{score.value:.3f} +- {score.standard_error:.3f} AUROC (60 blocks)")


def test_brier_score(stated: tuple[np.ndarray, np.ndarray]) -> None:
    probability, outcome = stated
    score = lr.brier_score(probability[:, None], outcome[:, None])
    assert score.value == pytest.approx(brier_score_loss(outcome, probability), abs=1e-12)
    spread = ((probability - outcome) ** 2).std(ddof=1) / math.sqrt(60)
    assert score.standard_error == pytest.approx(spread, rel=1e-9)


def test_concordance_of_censored_times() -> None:
    rng = np.random.default_rng(1)
    time, observed = np.round(rng.exponential(3.0, 50), 1), rng.random(50) < 0.7
    risk = np.round(-time + rng.normal(size=50), 0)
    score = lr.concordance(risk, time, observed)
    assert score.value == pytest.approx(harrell(risk, time, observed), abs=1e-12)
    error = left_out(lambda rows: harrell(risk[rows], time[rows], observed[rows]), 50)
    assert score.standard_error == pytest.approx(error, rel=1e-9)
    assert lr.concordance(-time, time, observed).value == 1.0
    assert lr.concordance(np.zeros(50), time, observed).value == 0.5


def test_pairing_takes_away_what_both_share(stated: tuple[np.ndarray, np.ndarray]) -> None:
    probability, outcome = stated
    other = np.clip(probability + 0.02 * np.random.default_rng(2).normal(size=60), 0, 1)
    one, two = lr.auroc(probability, outcome), lr.auroc(other, outcome)
    difference = lr.paired_difference(one, two)
    assert float(difference) == pytest.approx(one.value - two.value, abs=1e-12)
    assert difference.standard_error < 0.5 * math.hypot(one.standard_error, two.standard_error)
    same = lr.paired_difference(one, one)
    assert (same.value, same.standard_error) == (0.0, 0.0)


def test_what_is_missing_is_not_scored(stated: tuple[np.ndarray, np.ndarray]) -> None:
    probability, outcome = stated
    gone = outcome.copy()
    gone[::4] = np.nan
    kept = ~np.isnan(gone)
    for score in (lr.auroc, lr.brier_score):
        expected = score(probability[kept], outcome[kept])
        assert score(probability, gone).value == expected.value
        assert score(probability, outcome, kept).value == expected.value


def test_reliability_finds_who_overstates() -> None:
    rng = np.random.default_rng(3)
    probability = rng.random(2000)
    outcome = rng.random(2000) < probability
    honest = lr.reliability(probability, outcome)
    assert honest.counts.tolist() == [200] * 10
    assert ((honest.low <= honest.stated) & (honest.stated <= honest.high)).sum() >= 7  # of ten, at 90%
    assert honest.error < 0.05
    sure = lr.reliability(np.where(probability > 0.5, 0.99, 0.01), outcome, bins=2)
    assert sure.error > 0.2
    assert not bool(((sure.low <= sure.stated) & (sure.stated <= sure.high)).any())
    ax = honest.plot()
    assert ax.get_xlabel() == "stated probability"
    assert len(ax.containers[0][0].get_xdata()) == 10


def test_bits_per_symbol() -> None:
    data = lr.SequenceData.from_arrays({"y": np.random.default_rng(0).integers(0, 4, (6, 20, 1))})
    head = lr.Categorical(4, fixed={"weight": 0.0, "baseline": 0.0})
    model = lr.LatentRNN(data.spec, transition=lr.GRU(1), latent=lr.Deterministic(), observations={"y": head})
    score = lr.bits_per_symbol(lr.Posterior(model, lr.Guide(model), data).one_step_ahead("y"))
    assert score.value == pytest.approx(2.0, abs=1e-6)
    assert score.unit == "bits/symbol"


WRONG: dict[str, tuple[Callable[..., Any], tuple[Any, ...], str]] = {
    "other shapes": (lr.auroc, ([0.1, 0.2], [0, 1, 1]), r"outcome: expected shape \(2,\) as probability"),
    "steps": (lr.auroc, (np.ones((2, 3)), np.ones((2, 3))), "one value per sequence"),
    "no outcome of one kind": (lr.auroc, ([0.1, 0.2, 0.3], [0, 0, 1]), "at least two of 0 and of 1, found 2 and 1"),
    "three outcomes": (lr.brier_score, ([0.1, 0.2, 0.3], [0, 1, 2]), "outcome: expected 0 or 1, found 2"),
    "no probability": (lr.brier_score, ([0.1, 1.2], [0, 1]), "from 0 to 1, found 1.2"),
    "no number": (lr.auroc, ([0.1, np.nan, 0.3, 0.4], [0, 1, 0, 1]), "expected finite numbers"),
    "nothing known": (lr.concordance, ([1, 2], [3, 4], [0, 0]), "expected an event before"),
    "no times": (lr.concordance, ([1, 2], [3], [1, 0]), "time: expected 2 finite numbers"),
    "few": (lr.reliability, ([0.1, 0.2], [0, 1]), "at least as many sequences as bins"),
    "mask": (lr.auroc, ([0.1, 0.2], [0, 1], [1, 1]), "mask: expected 2 booleans"),
}


@pytest.mark.parametrize("case", WRONG)
def test_mistakes_are_named(case: str) -> None:
    call, arguments, match = WRONG[case]
    with pytest.raises(ValueError, match=match):
        call(*arguments)
