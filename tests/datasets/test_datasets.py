"""Recordings that packages ship, and files of public formats."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import latentrnn as lr
from latentrnn.datasets.shipped import shipped_by


def test_series_have_their_dates() -> None:
    nile = lr.datasets.nile()
    assert nile.observations["flow"][0, :3, 0].tolist() == [1120, 1160, 963]
    assert str(nile.dates[0, -1])[:10] == "1970-01-01"
    spots = lr.datasets.sunspots()
    assert spots.num_steps == 309
    assert str(spots.dates[0, 0])[:10] == "1700-01-01"
    co2 = lr.datasets.co2()
    assert co2.spec.dt == 7 * 86400
    assert co2.spec.heads["co2"].missing
    assert str(co2.dates[0, 0])[:10] == "1958-03-29"


@pytest.mark.parametrize("number", [1, 2])
def test_grasshopper_is_the_example_s(number: int) -> None:
    from examples.grasshopper.data import load_recording

    expected, found = load_recording(number), lr.datasets.grasshopper(number)
    np.testing.assert_array_equal(found.observations["spikes"][0], expected.counts)
    np.testing.assert_allclose(found.covariates["stimulus"][0], expected.stimulus, rtol=1e-6)
    coarse = lr.datasets.grasshopper(number, dt=0.01)
    assert coarse.observations["spikes"].sum() == found.observations["spikes"].sum()


def test_grasshopper_says_what_it_has() -> None:
    with pytest.raises(ValueError, match="expected recording 1 or 2, found 3"):
        lr.datasets.grasshopper(3)
    for dt in (0.00013, 0.0, "a", 3.0):
        with pytest.raises(ValueError, match="dt must be a multiple of 50 microseconds"):
            lr.datasets.grasshopper(dt=dt)  # type: ignore[arg-type]


def test_a_package_that_is_not_there_is_named() -> None:
    with pytest.raises(
        ModuleNotFoundError, match="nile comes with the package no_such_package, which is not installed"
    ):
        shipped_by("no_such_package", "no_such_package", "nile")


def write(path: Path, **changed: Any) -> Path:
    """A file as lfads-torch reads it: 5 channels of which 3 are seen, 8 steps of which 6 are."""
    rng = np.random.default_rng(0)
    arrays: dict[str, Any] = {}
    for part, trials in (("train", 4), ("valid", 2)):
        recon = rng.poisson(1.0, (trials, 8, 5))
        arrays |= {f"{part}_recon_data": recon, f"{part}_encod_data": recon[:, :6, :3]}
        arrays |= {
            f"{part}_behavior": rng.normal(size=(trials, 8, 2)),
            f"{part}_ext_input": rng.normal(size=(trials, 8, 1)),
        }
    with h5py.File(path, "w") as file:
        for name, array in (arrays | changed).items():
            if array is not None:
                file[name] = array
    return path


def test_a_file_of_lfads(tmp_path: Path) -> None:
    data = lr.datasets.lfads_file(write(tmp_path / "data.h5"), dt=0.02)
    assert {name: head.channels for name, head in data.spec.heads.items()} == {
        "heldin": 3, "heldout": 2, "heldin_forward": 3, "behavior": 2,
    }  # fmt: skip
    assert data.where(part="valid").names == ("valid/0", "valid/1")
    with h5py.File(tmp_path / "data.h5") as file:
        recon, behavior = file["train_recon_data"][()], file["train_behavior"][()]
    train = data.where(part="train")
    seen, ahead = train.masks["heldin"], train.masks["heldin_forward"]
    assert seen[:, :6].all()
    assert not seen[:, 6:].any()
    assert (seen ^ ahead).all()
    np.testing.assert_array_equal(train.observations["heldin"][:, :6], recon[:, :6, :3])
    np.testing.assert_array_equal(train.observations["heldin_forward"][:, 6:], recon[:, 6:, :3])
    np.testing.assert_array_equal(train.observations["heldout"], recon[..., 3:])
    np.testing.assert_allclose(train.observations["behavior"], behavior, rtol=1e-6)


def test_a_plain_file_of_lfads(tmp_path: Path) -> None:
    counts = np.random.default_rng(1).poisson(1.0, (3, 4, 2))
    plain = {f"{part}_{name}": None for part in ("train", "valid") for name in ("behavior", "ext_input")}
    plain |= {
        "train_recon_data": counts,
        "train_encod_data": counts,
        "valid_recon_data": None,
        "valid_encod_data": None,
    }
    data = lr.datasets.lfads_file(write(tmp_path / "data.h5", **plain), dt=0.01)
    assert list(data.observations) == ["heldin"]
    assert not data.covariates
    np.testing.assert_array_equal(data.observations["heldin"], counts)


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no recon": ({"train_recon_data": None}, r"expected train_recon_data \(trial, step, channel\), found none"),
    "one axis": ({"valid_encod_data": np.ones(3)}, r"expected valid_encod_data .* found shape \(3,\)"),
    "other trials": ({"train_encod_data": np.ones((3, 6, 3))}, "to be the beginning of train_recon_data"),
    "other counts": ({"train_encod_data": np.full((4, 6, 3), 9)}, "found other values"),
    "parts that differ": (
        {"valid_encod_data": np.ones((2, 6, 2)), "valid_recon_data": np.ones((2, 8, 5))}, "expected parts alike",
    ),
    "short input": ({"train_ext_input": np.ones((4, 6, 1))}, "expected ext_input at all of 8 steps"),
    "wide behaviour": ({"valid_behavior": np.ones((2, 8, 3))}, r"expected valid_behavior \(trial, step, 2\)"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_damaged_files_are_told(tmp_path: Path, case: str) -> None:
    changed, match = WRONG[case]
    with pytest.raises(ValueError, match=match):
        lr.datasets.lfads_file(write(tmp_path / "data.h5", **changed), dt=0.02)


def test_files_that_are_something_else(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no file"):
        lr.datasets.lfads_file(tmp_path / "none.h5", dt=0.02)
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = np.ones(3)
    with pytest.raises(ValueError, match=r"expected train_encod_data in other.h5, found \['x'\]"):
        lr.datasets.lfads_file(tmp_path / "other.h5", dt=0.02)
