"""Batches are read as they are written, and bands are counted as they should be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import latentrnn as lr
from examples.batch_reactor.baselines import by_course, by_regression
from examples.batch_reactor.data import NYLON, nylon, reactors
from examples.batch_reactor.scores import Bands, folds, measured, together
from examples.gallery import SHARED
from examples.simulate import reactor


def test_a_file_of_batches_is_read_as_it_was_written(tmp_path: Path) -> None:
    found = reactor(0, 5)
    data = reactors(found, tmp_path / "batches.csv")
    assert data.spec.dt == pytest.approx(120.0)  # seconds
    np.testing.assert_allclose(data.covariates["added"].numpy(), found.added, atol=1e-4)
    np.testing.assert_allclose(measured(data, "product"), found.product, atol=1e-4)
    np.testing.assert_allclose(measured(data, "purity")[:, 0, 0], found.purity, atol=1e-4)


def test_regression_and_mean_course_of_known_batches(tmp_path: Path) -> None:
    data = reactors(reactor(0, 60), tmp_path / "batches.csv")
    train, test = data[list(range(40))], data[list(range(40, 60))]
    course = by_course(train, test, "product")
    assert by_regression(train, test).error[0] < 0.5 * course.error[0]
    expected = measured(train, "product")[:, 4::5].mean(0)  # of the steps that have samples
    np.testing.assert_allclose(course.mean[0, 4::5], expected, rtol=1e-5)


def test_a_mean_course_goes_by_phase() -> None:
    phases = [[0, 0, 1, 1, 1], [0, 0, 0, 1, 1], [0, 0, 0, 0, 1]]
    values = torch.tensor([[1.0, 2, 7, 8, 9], [3.0, 4, 5, 9, 10], [0.0] * 5])[..., None]
    data = lr.SequenceData.from_arrays({"y": values}, {"phase": np.eye(2)[phases]})
    mean = by_course(data[[0, 1]], data[[2]], "y").mean
    assert mean[0, :, 0].tolist() == [2.0, 3.0, 5.0, 5.0, 8.0]  # the last step that is known of a phase goes on


def test_bands_count_what_was_measured_alone() -> None:
    seen = np.array([[[0.0], [np.nan], [3.0]]])
    bands = Bands(np.full((1, 3, 1), -1.0), np.zeros((1, 3, 1)), np.ones((1, 3, 1)), seen)
    assert bands.holds() == 0.5
    assert bands.holds(slice(0, 2)) == 1.0
    assert bands.error[0] == pytest.approx(np.sqrt(4.5))
    both = together([bands, Bands(*(each[:, :1] for each in bands))])
    assert both.holds() == pytest.approx(2 / 3)
    assert both.by_batch().tolist() == [0.5, 1.0]


def test_every_batch_is_held_out_once(tmp_path: Path) -> None:
    data = reactors(reactor(0, 12), tmp_path / "batches.csv")
    parts = folds(data, 3)
    assert sorted(name for *_, test in parts for name in test.names) == sorted(data.names)
    for part in parts:
        assert sorted(name for each in part for name in each.names) == sorted(data.names)


@pytest.mark.skipif(not (SHARED / NYLON).is_dir(), reason="the recordings of nylon batches are not there")
def test_nylon_batches_have_their_phases() -> None:
    data = nylon(SHARED)
    assert len(data) == 57
    assert sorted({int(n) for n in data.lengths})[0] == 113
    assert data.covariates["phase"].shape[-1] == 5
    assert measured(data, "tags").shape[-1] == 4
