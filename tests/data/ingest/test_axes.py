"""Labelled axes are matched by name, and what they are called is kept."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr

import latentrnn as lr
from latentrnn.data.views.horizon import extend
from tests.data.examples import ragged

VALUES = np.arange(24.0).reshape(2, 4, 3)  # (sequence, time, channel)
UNITS, TRIALS = ["n7", "n2", "n9"], [11, 12]


def labelled(*order: str, **coords: Any) -> xr.DataArray:
    names = {"trial": TRIALS, "unit": UNITS} | coords
    array = xr.DataArray(
        VALUES, dims=("trial", "time", "unit"), coords={k: v for k, v in names.items() if v is not None}
    )
    return array.transpose(*order)


@pytest.mark.parametrize("order", [("trial", "time", "unit"), ("trial", "unit", "time"), ("time", "unit", "trial")])
@pytest.mark.parametrize("from_arrays", [lr.SequenceData.from_arrays, lr.StoredSequences.from_arrays])
def test_axes_in_any_order(order: tuple[str, ...], from_arrays: Any) -> None:
    data = from_arrays({"y": labelled(*order)}, {"x": labelled(*order)}, masks={"y": labelled(*order) < 20})
    data = data.load() if isinstance(data, lr.StoredSequences) else data
    assert data.covariates["x"].tolist() == VALUES.tolist()
    assert data.masks["y"].tolist() == (VALUES < 20).tolist()
    assert data.spec.heads["y"].channel_names == ("n7", "n2", "n9")
    assert data.spec.covariates["x"].feature_names == ("n7", "n2", "n9")
    assert data.names == ("11", "12")


def test_the_labelled_data_come_back_as_they_are() -> None:
    data = ragged()
    dataset = data.to_xarray()
    lengths = dataset["num_steps"].to_numpy()

    def cut(name: str, clock: int = 1) -> list[xr.DataArray]:
        return [dataset[name][i, : n // clock] for i, n in enumerate(lengths)]

    again = lr.SequenceData.from_arrays(
        {"counts": cut("counts"), "slow": cut("slow", 2), "label": dataset["label"]},
        {"stimulus": cut("stimulus")},
        clocks={"slow": 2},
        per_sequence=["label"],
        dt=0.01,
        totals={"counts": cut("counts_total")},
    )
    assert again.spec == data.spec
    assert torch.equal(again.observations["counts"], data.observations["counts"])
    assert again.names == data.names


def test_names_given_by_hand_win() -> None:
    data = lr.SequenceData.from_arrays(
        {"y": labelled("trial", "time", "unit")}, channel_names={"y": list("abc")}, sequence_names=["p", "q"]
    )
    assert data.spec.heads["y"].channel_names == ("a", "b", "c")
    assert data.names == ("p", "q")


def test_tables_in_a_list_are_matched_by_their_columns() -> None:
    tables = [pd.DataFrame(VALUES[0], columns=UNITS), pd.DataFrame(VALUES[1], columns=UNITS)[["n9", "n7", "n2"]]]
    for from_arrays in (lr.SequenceData.from_arrays, lr.StoredSequences.from_arrays):
        data = from_arrays({"y": tables}, {"x": tables})
        data = data.load() if isinstance(data, lr.StoredSequences) else data
        assert data.observations["y"].tolist() == VALUES.tolist()
        assert data.spec.heads["y"].channel_names == data.spec.covariates["x"].feature_names == ("n7", "n2", "n9")


def test_a_stored_table_is_cut_by_position() -> None:
    table = pd.DataFrame(VALUES[0], columns=UNITS, index=[0.5, 1.5, 2.5, 3.5])
    stored = lr.StoredSequences.from_arrays({"y": [table, table]})
    assert stored.time_slice(1, 3).observations["y"][0].tolist() == VALUES[0, 1:3].tolist()


MISTAKES: dict[str, tuple[Any, dict[str, Any], str]] = {
    "an axis of another name": (
        labelled("trial", "time", "unit").rename(unit="x"),
        {},
        r"found an axis of another name in \('trial', 'time', 'x'\); write x.rename\(\{'x': ...\}\)",
    ),
    "two axes of one kind": (
        labelled("trial", "time", "unit").rename(trial="bin"),
        {},
        r"found two axes of another name in \('bin', 'time', 'unit'\)",
    ),
    "no sequences": (labelled("trial", "time", "unit")[0], {}, r"write x.expand_dims\('sequence'\) or \[x\]"),
    "no channels": (labelled("trial", "time", "unit")[..., 0], {}, r"write x.expand_dims\('channel'\) for one channel"),
    "one table": (pd.DataFrame(VALUES[0]), {}, r"found shape \(4, 3\); write \[x\] for one sequence"),
    "columns differ": (
        [pd.DataFrame(VALUES[0], columns=UNITS), pd.DataFrame(VALUES[1], columns=["n7", "n2", "n8"])],
        {},
        r"expected the channels or features \['n7', 'n2', 'n9'\] .* found \['n7', 'n2', 'n8'\] at sequence 1",
    ),
    "trials in another order": (
        labelled("trial", "time", "unit"),
        {"covariates": {"x": labelled("trial", "time", "unit")[::-1]}},
        r"covariates\['x'\]: expected the sequences \['11', '12'\] as in observations\['y'\], found \['12', '11'\]",
    ),
    "units of the mask in another order": (
        labelled("trial", "time", "unit"),
        {"masks": {"y": labelled("trial", "time", "unit")[..., ::-1] < 20}},
        r"masks\['y'\]: expected the channels",
    ),
    "other times": (
        labelled("trial", "time", "unit", time=[0.0, 0.1, 0.2, 0.3]),
        {"covariates": {"x": labelled("trial", "time", "unit", time=[0.1, 0.2, 0.3, 0.4])}},
        r"covariates\['x'\]: expected the coordinates in time of observations\['y'\], 0.0 at step 0, found 0.1",
    ),
    "a unit twice": (
        labelled("trial", "time", "unit", unit=["a", "a", "b"]),
        {},
        r"expected every coordinate of 'unit' once, found 'a' twice; drop it with x.drop_vars\('unit'\)",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
@pytest.mark.parametrize("from_arrays", [lr.SequenceData.from_arrays, lr.StoredSequences.from_arrays])
def test_what_cannot_be_matched_is_refused(name: str, from_arrays: Any) -> None:
    given, options, message = MISTAKES[name]
    with pytest.raises(ValueError, match=message):
        from_arrays({"y": given}, **options)


def test_the_future_is_matched_by_name_too() -> None:
    data = lr.SequenceData.from_arrays(
        {"y": VALUES}, {"x": labelled("trial", "time", "unit")}, times=[[0, 1, 2, 3]] * 2
    )
    future = labelled("unit", "time", "trial")[:, :2]
    longer = extend(data, 2, covariates={"x": future}, times=[pd.to_timedelta([4000, 5000], unit="ms")] * 2)
    assert longer.covariates["x"][:, 4:].tolist() == VALUES[:, :2].tolist()
    assert longer.times is not None
    assert longer.times[0].tolist() == [0, 1, 2, 3, 4, 5]
