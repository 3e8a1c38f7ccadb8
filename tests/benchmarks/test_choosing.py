"""The script that measures trade-offs, on tiny simulated data in the place of the recordings."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

import latentrnn as lr
from benchmarks import choosing


def tiny(*shapes: tuple[str, tuple[int, ...]], counts: bool = True) -> choosing.Parts:
    """Random heads of 12 sequences; counts have a mean of two and are over-dispersed, with a variance of six."""
    rng = np.random.default_rng(0)
    heads = {
        name: rng.negative_binomial(1.0, 1 / 3, shape).astype(float) if counts else rng.normal(size=shape)
        for name, shape in shapes
    }
    data = lr.SequenceData.from_arrays(heads, dt=0.02)
    return data[:6], data[6:8], data[8:]


@pytest.fixture
def questions(monkeypatch: pytest.MonkeyPatch) -> dict[str, choosing.Question]:
    """All questions, asked of a few short sequences, with two steps for each fit."""
    loads = {
        "signal": lambda: tiny(("signal", (12, 9, 2)), counts=False),
        "cosmoothing": lambda: tiny(("heldin", (12, 9, 3)), ("heldout", (12, 9, 2))),
        "counts": lambda: tiny(("counts", (12, 9, 3))),
        "series": lambda: choosing.weekly(
            np.random.default_rng(0).negative_binomial(1.0, 1 / 3, (260, 2)).astype(float)
        ),
    }
    data = {
        "emg": "signal",
        "ecg": "signal",
        "direction": "cosmoothing",
        "infections": "series",
        "deaths": "series",
        "spikes": "counts",
        "guide": "counts",
    }
    found = {
        name: dataclasses.replace(question, load=loads[data[name]], needs=())
        for name, question in choosing.QUESTIONS.items()
    }
    monkeypatch.setattr(choosing, "QUESTIONS", found)
    monkeypatch.setattr(choosing, "STEPS", dict.fromkeys(choosing.STEPS, 2))
    return found


def test_every_question_fills_its_table(questions: dict[str, choosing.Question]) -> None:
    asked = {name: {arm: [choosing.run((name, arm, 0))] for arm in q.arms} for name, q in questions.items()}
    table = choosing.report(asked, {}, 1, 1.0)
    for name, question in questions.items():
        for arm in question.arms:
            assert f"| {arm} | {asked[name][arm][0].weights:,} |" in table
            for score in asked[name][arm][0].scores.values():
                assert np.isfinite([score.value, score.standard_error]).all()
                assert f" {score.value:.4f} |" in table
    assert table.count("\n## ") == len(questions)
    # the arms of a question differ in what it says they do
    weights = [asked["direction"][arm][0].weights for arm in choosing.ENCODERS]
    assert weights[0] > weights[2] > weights[1]
    assert weights[2] == weights[3]
    cells = {arm: asked["emg"][arm][0].weights for arm in choosing.CELLS}
    assert cells["LSTM 27"] < cells["GRU 32"] < cells["LSTM 32"]


def test_differences_are_paired_by_block_and_averaged_over_seeds() -> None:
    def outcome(gains: list[float]) -> choosing.Outcome:
        values, steps = torch.tensor(gains, dtype=torch.float64), torch.full((3,), 2.0, dtype=torch.float64)
        blocks = tuple((number, 0) for number in range(3))
        score = lr.Score(float(values.sum() / 6), 0.0, "nats/step", 0, 3, values, steps, blocks)
        return choosing.Outcome({"nats": score}, 10, 1.0, 1)

    question = choosing.Question("A or B", "", (), lambda: tiny(), choosing.ask_cell, ("A", "B"))
    first, second = [[10.0, 20.0, 30.0], [12.0, 22.0, 32.0]], [[13.0, 22.0, 32.0], [13.0, 24.0, 36.0]]
    lines = choosing.section(question, {"A": [outcome(g) for g in first], "B": [outcome(g) for g in second]})
    # differences of the means over seeds: 2, 2, 3 of two steps each, so a mean of 7/6 and an error of 1/6
    assert lines[-1] == "| B | 10 | 1.00 | 1, 1 | 11.6667 | +1.1667 | 0.1667 | +1.1667, +1.1667 |"


def test_scatter_tells_a_family_that_is_too_narrow(questions: dict[str, choosing.Question]) -> None:
    """Counts with three times the variance of Poisson counts lie outside of what a Poisson family expects."""
    choosing.STEPS["spikes"] = 60
    notes = {arm: choosing.run(("spikes", arm, 0)).notes for arm in choosing.COUNTS}
    assert notes["Poisson"]["observed"] > 1.5 * notes["Poisson"]["to"]
    assert notes["Poisson"]["from"] < 1 < notes["Poisson"]["to"]
    wide = notes["negative binomial"]
    assert wide["from"] < wide["observed"] < wide["to"]


def test_questions_without_data_are_left_out_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LATENTRNN_SHARED", str(tmp_path))
    monkeypatch.setattr("sys.argv", ["choosing.py", "--out", str(tmp_path / "table.md")])
    choosing.main()
    printed = capsys.readouterr().out
    assert all(f"{name} skipped: no {q.needs[0]}" in printed for name, q in choosing.QUESTIONS.items())
    assert not (tmp_path / "table.md").exists()


def test_loaders_read_what_is_on_disk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    monkeypatch.setenv("LATENTRNN_SHARED", str(tmp_path))
    for name in ("emg_myo", "ecg_beats_ucr", "monkey_reach_bmi"):
        (tmp_path / "data" / name).mkdir(parents=True)
    signal = rng.integers(-40, 40, size=(12_000, 9))
    np.savetxt(tmp_path / "data" / "emg_myo" / "35622-1_0.txt", signal, delimiter=",")
    (tmp_path / "data" / "emg_myo" / "SOURCE.txt").write_text("no recording\n")
    train, valid, test = choosing.load_emg()
    assert [len(part) for part in (train, valid, test)] == [8, 1, 3]  # of 12 sequences
    expected = np.log1p(np.abs(signal[: choosing.EMG_SAMPLES, :8]).mean(0))
    np.testing.assert_allclose(train.observations["signal"][0, 0].numpy(), expected, rtol=1e-5)
    counts, trial = rng.poisson(1.0, size=(30 * 10, 8)), np.repeat(np.arange(1, 31), 10)
    np.savetxt(tmp_path / "data" / "monkey_reach_bmi" / "monkey_features_300.csv", counts, delimiter=",")
    targets = np.concatenate([np.zeros((300, 4)), trial[:, None]], 1)
    np.savetxt(tmp_path / "data" / "monkey_reach_bmi" / "monkey_targets_300.csv", targets, delimiter=",")
    parts = choosing.load_cosmoothing()
    assert sum(len(part) for part in parts) == 30
    assert [parts[0].observations[name].shape[-1] for name in ("heldin", "heldout")] == [6, 2]
    assert sum(float(part.observations["heldout"].sum()) for part in parts) == counts[:, [3, 7]].sum()
