"""The script that locates pulses into a chaotic network, at tiny sizes; its score is held against written-out cases."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks import chaotic


def test_trials_keep_the_protocol() -> None:
    train, test = chaotic.simulate(0, (8, 6))
    assert train.counts.shape == (8 * chaotic.TRIALS, 100, 50)
    assert test.counts.shape == (6 * chaotic.TRIALS, 100, 50)
    assert (test.pulses.reshape(6, -1) == test.pulses[:: chaotic.TRIALS, None]).all()
    assert train.pulses.min() >= 20
    assert train.pulses.max() < 80
    assert train.rates.max() <= chaotic.BIN * chaotic.LARGEST_RATE
    # the rates move most where the pulse is, so that the planted times are those of the simulation
    change = np.linalg.norm(np.diff(test.rates, axis=1, prepend=test.rates[:, :1]), axis=-1)
    np.testing.assert_array_equal(change.argmax(1), test.pulses)


def test_the_score_of_written_out_cases() -> None:
    scores = np.array([[0.0, 1, 0, 0, 3, 0, 0, 2, 0, 0]])
    windows, truth = chaotic.located(scores, np.array([4]), 1)
    np.testing.assert_array_equal(windows[0], [1, 1, 1, 3, 3, 3, 2, 2, 2, 0])
    np.testing.assert_array_equal(truth[0], [0, 0, np.nan, np.nan, 1, np.nan, np.nan, 0, 0, 0])
    assert chaotic.auc(windows, truth) == 1
    assert chaotic.auc(*chaotic.located(scores, np.array([7]), 0)) == pytest.approx(8 / 9)
    # found a bin too late: right with a tolerance, wrong without one
    assert chaotic.auc(*chaotic.located(scores, np.array([3]), 1)) == 1
    assert chaotic.auc(*chaotic.located(scores, np.array([3]), 0)) < 0.5


def test_scores_without_knowledge_are_at_chance() -> None:
    (trials,) = chaotic.simulate(1, (60,))
    noise = np.random.default_rng(0).normal(size=trials.counts.shape[:2])
    assert chaotic.judge("noise", noise, trials).auc == pytest.approx(0.5, abs=0.1)
    change = np.linalg.norm(np.diff(trials.rates, axis=1, prepend=trials.rates[:, :1]), axis=-1)
    assert chaotic.judge("truth", change, trials).auc > 0.99
    assert chaotic.judge_shuffled("truth", change, trials).auc == pytest.approx(0.5, abs=0.05)


def test_from_fits_to_the_table(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    sets = chaotic.simulate(0, (4, 2, 4), units=6, steps=30)
    monkeypatch.setattr(chaotic, "simulate", lambda seed, conditions: sets)
    out = tmp_path / "chaotic.md"
    monkeypatch.setattr("sys.argv", ["chaotic.py", "--seeds", "2", "--steps", "3", "--out", str(out)])
    chaotic.main()
    table = out.read_text()
    assert sum(line.startswith("| innovations, seed ") for line in table.splitlines()) == 2
    assert table.count("| the same, pulses of other conditions |") == 2
    assert "Mean AUC over 2 seeds" in table
