"""The labelled dataset holds all that the user gave, and gives it back."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from latentrnn.data import SequenceData
from tests.data.examples import CLOCK, ragged


@pytest.mark.parametrize("irregular", [False, True])
def test_round_trip(irregular: bool) -> None:
    data = ragged(irregular=irregular)
    dataset = data.to_xarray()
    lengths = dataset["num_steps"].to_numpy()

    def sequences(name: str, clock: int = 1) -> list[np.ndarray]:
        return [array[: length // clock] for array, length in zip(dataset[name].to_numpy(), lengths, strict=True)]

    again = SequenceData.from_arrays(
        {"counts": sequences("counts"), "slow": sequences("slow", CLOCK), "label": dataset["label"].to_numpy()},
        {"stimulus": sequences("stimulus")},
        clocks={"slow": CLOCK},
        per_sequence=["label"],
        totals={"counts": sequences("counts_total")},
        times=sequences("seconds") if irregular else None,
        dt=dataset.attrs.get("dt"),
        sequence_names=dataset["sequence"].to_numpy().tolist(),
    )
    assert again.spec == data.spec
    assert again.names == data.names
    for mine, yours in (
        (again.observations, data.observations),
        (again.masks, data.masks),
        (again.totals, data.totals),
    ):
        assert all(torch.equal(mine[name], yours[name]) for name in yours)
    if irregular:
        assert torch.equal(again.times[data.valid], data.times[data.valid])


def test_axes_and_coordinates() -> None:
    dataset = ragged().to_xarray()
    assert dataset["counts"].dims == ("sequence", "time", "counts_channel")
    assert dataset["slow"].dims == ("sequence", "slow_time", "slow_channel")
    assert dataset["label"].dims == ("sequence", "label_channel")
    assert dataset["stimulus"].dims == ("sequence", "time", "stimulus_feature")
    np.testing.assert_allclose(dataset["time"], np.arange(12) * 0.01)
    np.testing.assert_allclose(dataset["slow_time"], np.arange(6) * 0.02)
    assert dataset["time"].attrs["units"] == "s"
    assert np.isnan(dataset["counts"].sel(sequence="2").values[5, 1])
    assert np.isnan(dataset["stimulus"].sel(sequence="1").values[6:]).all()


def test_steps_without_dt() -> None:
    dataset = SequenceData.from_arrays({"y": np.ones((1, 3, 1))}).to_xarray()
    assert dataset["time"].values.tolist() == [0, 1, 2]
    assert dataset["time"].attrs["units"] == "step"
    assert "dt" not in dataset.attrs
