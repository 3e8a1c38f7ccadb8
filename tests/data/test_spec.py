"""The spec survives JSON and judges other data by what matters."""

from __future__ import annotations

import json

import numpy as np

from latentrnn.data import DataSpec, SequenceData
from tests.data.examples import ragged


def test_json_round_trip() -> None:
    data = SequenceData.from_arrays(
        {"y": np.arange(8.0).reshape(1, 4, 2)}, {"x": np.arange(4.0).reshape(1, 4, 1)}, dt=1 / 3, standardise=["y", "x"]
    )
    for spec in (data.spec, ragged().spec, ragged(irregular=True).spec):
        assert DataSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec


def test_missing_entries_and_standardisation_may_differ() -> None:
    values = np.arange(8.0).reshape(1, 4, 2)
    missing = np.where(values == 3, np.nan, values)
    train = SequenceData.from_arrays({"y": values}, dt=0.1, standardise=["y"])
    test = SequenceData.from_arrays({"y": missing}, dt=0.3 - 0.2)
    train.spec.check_compatible(test.spec)
    test.spec.check_compatible(train.spec)
    train.spec.check_compatible(train.windows(2).spec)
