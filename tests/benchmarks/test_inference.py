"""The script that holds guides against exact answers, at a fraction of its steps and of a recording."""

from __future__ import annotations

import dataclasses

import pytest

from benchmarks import inference
from tests.linear_gaussian import Problem, Recording, needs_files

STEPS = 20  # of the recording


@needs_files
@pytest.mark.slow
@pytest.mark.parametrize("cut", ["missing"])
def test_a_gaussian_chain_reaches_the_exact_posterior(cut: str, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = inference.problem("lgssm_small", cut)
    (recording,) = whole.recordings
    beginning = Recording(recording.y[:STEPS], recording.u[:STEPS], recording.missing[:STEPS])
    monkeypatch.setattr(inference, "problem", lambda name, cut: Problem(whole.model, (beginning,)))
    short = dataclasses.replace(inference.RECIPES["Gaussian chain"], steps=600, refinement=300)
    monkeypatch.setitem(inference.RECIPES, "Gaussian chain", short)
    amortised, refined = inference.judge(("lgssm_small", cut, "Gaussian chain"))
    for row in (amortised, refined):
        assert -4 * row.gap_error < row.gap < 0.01
    assert refined.mean_rmse < 0.02
    assert refined.variance_rms < 0.02


@needs_files
def test_a_short_training_is_seen_to_be_short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: hardly trained, no figure is within its bound."""
    short = dataclasses.replace(inference.RECIPES["Gaussian chain"], steps=5, refinement=0)
    monkeypatch.setitem(inference.RECIPES, "Gaussian chain", short)
    (row,) = inference.judge(("lgssm_small", "complete", "Gaussian chain"))
    assert row.gap > 0.1
    assert row.mean_rmse > 0.05
    assert row.variance_rms > 0.05
