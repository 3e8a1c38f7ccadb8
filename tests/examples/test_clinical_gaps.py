"""Charts are read, laid out and summarised as said, and areas under curves are those of scikit-learn."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from examples.clinical_gaps.baselines import auroc, by_regression, resampled, summaries
from examples.clinical_gaps.data import FOLDER, Units, as_sequences, load, split
from examples.simulate import Stays, stays

NAN = np.nan


def toy() -> Stays:
    """Two stays of four hours and two channels."""
    charts = np.full((2, 4, 2), NAN)
    charts[0, 1] = [1.0, NAN]
    charts[0, 3] = [2.0, -1.0]
    charts[1, 0] = [NAN, 3.0]
    return Stays(charts, np.array([[0.5], [-0.5]]), np.array([[1.0], [0.0]]))


def test_charts_are_averages_of_hours_without_what_was_mistyped(tmp_path: Path) -> None:
    folder = tmp_path / FOLDER
    folder.mkdir()
    head = "Time,Parameter,Value\n00:00,RecordID,{0}\n00:00,Age,61\n00:00,Age,77\n00:00,Gender,1\n00:00,Height,-1\n"
    charts = {
        11: "00:00,Weight,80\n00:05,HR,70\n00:45,HR,90\n01:10,HR,999\n02:00,Urine,99\n48:00,pH,7.4\n",
        12: "00:00,Weight,-1\n03:30,Temp,37\n",
    }
    with tarfile.open(folder / "set-a.tar.gz", "w:gz") as files:
        for patient, rows in charts.items():
            content = (head.format(patient) + rows).encode()
            found = tarfile.TarInfo(f"set-a/{patient}.txt")
            found.size = len(content)
            files.addfile(found, io.BytesIO(content))
    (folder / "Outcomes-a.txt").write_text("RecordID,a,b,c,d,In-hospital_death\n12,0,0,0,0,1\n11,0,0,0,0,0\n")
    found = load(tmp_path)
    assert found.charts.shape == (2, 48, 5)  # HR, Temp, Urine, Weight, pH
    assert found.died.tolist() == [[0.0], [1.0]]
    np.testing.assert_array_equal(found.who, [[61, 1, NAN, 80], [61, 1, NAN, NAN]])
    assert found.charts[0, 0, 0] == 80.0
    assert np.isnan(found.charts[0, 1, 0])  # no heart beats so fast
    assert found.charts[0, 2, 2] == pytest.approx(np.log(100))
    assert found.charts[0, 47, 4] == 7.4
    assert np.isfinite(found.charts).sum() == 5


def test_a_step_is_told_what_was_charted_in_the_one_before() -> None:
    data = as_sequences(toy())
    assert data.lengths.tolist() == [3, 2]
    assert data.times[0].tolist() == [1.0, 3.0, 4.0]
    assert data.covariates["value"][0].tolist() == [[0, 0], [1, 0], [2, -1]]
    assert data.covariates["seen"][0].tolist() == [[0, 0], [1, 0], [1, 1]]
    assert data.masks["chart"][0].tolist() == [[True, False], [True, True], [False, False]]
    assert data.observations["died"].tolist() == [[1.0], [0.0]]
    assert not as_sequences(toy(), outcome_alone=True).masks["chart"].any()
    other = as_sequences(toy(), ~np.isnan(toy().charts[[1, 0]]))
    assert other.covariates["value"].equal(data.covariates["value"])
    assert other.covariates["seen"][0].tolist() == [[0, 0], [0, 0], [0, 0]]
    assert other.covariates["seen"][1, 1].tolist() == [0, 0]


def test_summaries_are_mean_last_least_largest_and_number() -> None:
    found = summaries(toy())
    np.testing.assert_allclose(found[0], [1.5, -1, 2, -1, 1, -1, 2, -1, np.log(3), np.log(2), 0.5])
    np.testing.assert_allclose(found[1], [0, 3, 0, 3, 0, 3, 0, 3, 0, np.log(2), -0.5])


def test_units_are_those_of_training_patients() -> None:
    rng = np.random.default_rng(0)
    train = Stays(rng.normal(3, 2, (50, 9, 2)), rng.normal(size=(50, 2)), np.zeros((50, 1)))
    train.who[:9, 1] = NAN
    units = Units(train)
    found = units(Stays(np.array([[[3.0, 99.0]]]), np.array([[NAN, NAN]]), np.zeros((1, 1))))
    middle = (3.0 - train.charts[..., 0].mean()) / train.charts[..., 0].std()
    np.testing.assert_allclose(found.charts, [[[middle, 6.0]]])
    assert found.who.tolist() == [[0.0, 0.0, 1.0]]  # what was always known in training has no mark


def test_areas_are_those_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    died, risk = (rng.random(200) < 0.3).astype(float), rng.integers(10, size=200) / 10
    assert auroc(risk, died) == pytest.approx(roc_auc_score(died, risk), abs=1e-12)
    draws = resampled({"a": risk, "b": risk, "c": -risk}, died, 50)
    np.testing.assert_array_equal(draws["a"], draws["b"])
    np.testing.assert_allclose(draws["c"], 1 - draws["a"])
    assert abs(draws["a"].mean() - auroc(risk, died)) < 5 * draws["a"].std() / 50**0.5


def test_regression_finds_what_gaps_say_where_they_say_something() -> None:
    areas = []
    for informative in (1.5, 0.0):
        learn, choose, judge = split(stays(0, 1500, informative=informative))
        bare = [part._replace(charts=np.where(np.isnan(part.charts), NAN, 1.0)) for part in (learn, choose, judge)]
        areas.append(auroc(by_regression(*bare), judge.died[:, 0]))
    assert areas[0] > 0.75  # of how often something was charted alone
    assert areas[1] < 0.65
