"""What is known of each sequence beside its values goes wherever its sequence goes."""

from __future__ import annotations

import datetime
import pickle
from typing import Any

import numpy as np
import pandas as pd
import pytest

import latentrnn as lr

SIDES = ["left", "right", "left", None, "right", "left"]
AGES = [3, 1, 4, 1, 5, 9]


@pytest.fixture(params=[lr.SequenceData, lr.StoredSequences])
def data(request: pytest.FixtureRequest) -> Any:
    counts = np.arange(6 * 8, dtype=float).reshape(6, 8, 1)
    return request.param.from_arrays({"y": counts}, dt=0.1, metadata={"side": SIDES, "age": AGES})


def test_missing_labels_are_empty_and_numbers_keep_their_type(data: Any) -> None:
    assert data.metadata["side"].tolist() == ["left", "right", "left", "", "right", "left"]
    assert data.metadata["age"].dtype == np.int64


def test_it_goes_with_its_sequences(data: Any) -> None:
    assert data[[5, 1]].metadata["age"].tolist() == [9, 1]
    assert data.where(side="left", age=[4, 9]).names == ("2", "5")
    parts = data.split(0.5, 0.25, 0.25, seed=0)
    assert [part.metadata["age"].tolist() for part in parts] == [[AGES[int(n)] for n in part.names] for part in parts]
    batch = data.batch(np.array([2, 0]))
    assert batch.metadata["side"].tolist() == ["left", "left"]
    assert batch.metadata["age"].tolist() == [4, 3]


def test_it_survives_cuts_in_time_copies_and_pickles() -> None:
    data = lr.SequenceData.from_arrays({"y": np.ones((3, 8, 1))}, metadata={"side": ["a", "b", "c"]})
    assert data.windows(4).metadata["side"].tolist() == ["a", "a", "b", "b", "c", "c"]
    assert data.time_slice(2, 5).metadata["side"].tolist() == ["a", "b", "c"]
    for part in data.split(0.5, 0.25, 0.25, along="time"):
        assert part.metadata["side"].tolist() == ["a", "b", "c"]
    assert pickle.loads(pickle.dumps(data)).metadata["side"].tolist() == ["a", "b", "c"]
    assert data.to_xarray().y.side.to_numpy().tolist() == ["a", "b", "c"]
    assert "metadata: side" in repr(data)


def test_a_split_spreads_its_labels() -> None:
    labels = ["rare"] * 10 + ["common"] * 90
    data = lr.SequenceData.from_arrays({"y": np.ones((100, 3, 1))}, metadata={"kind": labels})
    parts = data.split(0.6, 0.2, 0.2, seed=1, stratify="kind")
    assert [int((part.metadata["kind"] == "rare").sum()) for part in parts] == [6, 2, 2]


def test_sessions_are_joined_with_what_is_known_of_them() -> None:
    def session(rows: int, dose: list[float]) -> lr.SequenceData:
        return lr.SequenceData.from_arrays({"y": np.ones((rows, 4, 1))}, metadata={"dose": dose})

    joined = lr.SequenceData.join({"a": session(2, [1, 2]), "b": session(1, [3.5])})
    assert joined.metadata["dose"].tolist() == [1, 2, 3.5]
    other = lr.SequenceData.from_arrays({"y": np.ones((1, 4, 1))}, metadata={"dose": ["high"]})
    with pytest.raises(
        ValueError, match=r"sessions\['b'\].metadata\['dose'\]: expected numbers as in 'a', found labels"
    ):
        lr.SequenceData.join({"a": session(1, [1]), "b": other})
    with pytest.raises(ValueError, match=r"sessions\['b'\].metadata: expected \['dose'\]"):
        lr.SequenceData.join({"a": session(1, [1]), "b": lr.SequenceData.from_arrays({"y": np.ones((1, 4, 1))})})


def test_rows_of_a_table_are_found_by_the_names_of_the_sequences() -> None:
    table = pd.DataFrame({"side": ["right", "left"]}, index=["monday", "sunday"])
    data = lr.SequenceData.from_arrays({"y": np.ones((2, 3, 1))}, sequence_names=["sunday", "monday"], metadata=table)
    assert data.metadata["side"].tolist() == ["left", "right"]
    with pytest.raises(ValueError, match="expected the sequences"):
        lr.SequenceData.from_arrays({"y": np.ones((2, 3, 1))}, sequence_names=["a", "b"], metadata=table)
    with pytest.raises(ValueError, match="sequences have no names"):
        lr.SequenceData.from_arrays({"y": np.ones((2, 3, 1))}, metadata=table)


KINDS = {
    "floats with a gap": ([1.5, None], np.array([1.5, np.nan])),
    "booleans": ([True, False], np.array([True, False])),
    "dates": ([datetime.date(2024, 1, 2), None], np.array(["2024-01-02", "NaT"], "datetime64[ns]")),
    "zoned": (
        [datetime.datetime(2024, 1, 2, 1, tzinfo=datetime.timezone(datetime.timedelta(hours=1))), None],
        np.array(["2024-01-02", "NaT"], "datetime64[ns]"),
    ),
    "durations": ([datetime.timedelta(hours=1), None], np.array([3600 * 10**9, "NaT"], "timedelta64[ns]")),
    "pandas integers with a gap": (pd.Series([1, None], dtype="Int64"), np.array([1.0, np.nan])),
    "pandas text with a gap": (pd.Series(["a", None]), np.array(["a", ""])),
    "pandas categories": (pd.Series(["a", "b"], dtype="category"), np.array(["a", "b"])),
}


@pytest.mark.parametrize("case", KINDS)
def test_kinds_of_values(case: str) -> None:
    given, expected = KINDS[case]
    found = lr.SequenceData.from_arrays({"y": np.ones((2, 3, 1))}, metadata={"x": given}).metadata["x"]
    assert found.dtype.kind == expected.dtype.kind
    np.testing.assert_array_equal(found, expected)


WRONG = {
    "no dict": (3, TypeError, "expected a dict"),
    "text": ({"x": "ab"}, TypeError, "expected one value per sequence"),
    "too few": ({"x": [1]}, ValueError, "expected 2 values, one per sequence"),
    "two axes": ({"x": np.ones((2, 2))}, ValueError, "one per sequence, found shape"),
    "mixed": ({"x": ["a", 1]}, TypeError, "found 'a' and 1"),
    "complex": ({"x": np.ones(2) * 1j}, TypeError, "expected numbers, labels"),
    "lists": ({"x": [[1], [2]]}, TypeError, "expected labels alone"),
    "a head's name": ({"y": [1, 2]}, ValueError, "expected another name"),
    "an axis's name": ({"time": [1, 2]}, ValueError, "expected another name"),
    "an export's name": ({"y_channel": [1, 2]}, ValueError, "expected another name"),
    "no name": ({3: [1, 2]}, TypeError, "expected strings as names"),
}


@pytest.mark.parametrize("case", WRONG)
def test_mistakes_are_named(case: str) -> None:
    given, error, match = WRONG[case]
    with pytest.raises(error, match=match):
        lr.SequenceData.from_arrays({"y": np.ones((2, 3, 1))}, metadata=given)


def test_what_is_not_known_is_not_chosen_by() -> None:
    data = lr.SequenceData.from_arrays({"y": np.ones((2, 3, 1))}, metadata={"side": ["l", "r"]})
    with pytest.raises(ValueError, match=r"where: expected metadata among \['side'\], found 'hand'"):
        data.where(hand="l")
    with pytest.raises(ValueError, match=r"where: expected side among \['l', 'r'\], found 'left'"):
        data.where(side="left")
    with pytest.raises(ValueError, match="where: expected a value of one of"):
        data.where()
    with pytest.raises(ValueError, match="stratify: expected an observation head or metadata"):
        data.split(0.4, 0.3, 0.3, stratify="hand")
