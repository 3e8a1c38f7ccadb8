"""Whatever holds numbers means what its own package says that it means, in memory and stored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import torch

import latentrnn as lr

VALUES = np.array([[[0.0, 1.0], [2.0, 0.0], [0.0, 3.0]], [[4.0, 0.0], [0.0, 0.0], [5.0, 1.0]]])
HOLED = VALUES.copy()
HOLED[0, 1, 0] = HOLED[1, 2, 1] = np.nan


def nullable(values: np.ndarray, kind: str) -> pd.DataFrame:
    return pd.DataFrame({name: pd.array(values[:, i], dtype="Float64").astype(kind) for i, name in enumerate("ab")})


def masked(values: np.ndarray, dtype: Any = np.float64) -> np.ma.MaskedArray[Any, Any]:
    """What is missing hidden behind a mask, with nonsense beneath, as netCDF4 hands it out."""
    return np.ma.MaskedArray(np.nan_to_num(values, nan=99).astype(dtype), mask=np.isnan(values))


KINDS: dict[str, tuple[Any, np.ndarray]] = {
    "nullable floats": ([nullable(x, "Float64") for x in HOLED], HOLED),
    "nullable integers": ([nullable(x, "Int64") for x in HOLED], HOLED),
    "nullable integers, none missing": ([nullable(x, "UInt8") for x in VALUES], VALUES),
    "nullable booleans": ([nullable(x, "boolean") for x in np.minimum(HOLED, 1)], np.minimum(HOLED, 1)),
    "pd.NA in lists": ([[[pd.NA if np.isnan(v) else v for v in row] for row in x] for x in HOLED], HOLED),
    "objects": (np.array(VALUES.tolist(), dtype=object), VALUES),
    "masked": (masked(HOLED), HOLED),
    "masked integers": (masked(HOLED, np.int64), HOLED),
    "list of masked": ([masked(x) for x in HOLED], HOLED),
    "lists of masked": ([list(masked(x)) for x in HOLED], HOLED),
    "NaN and a mask": (np.ma.MaskedArray(HOLED, mask=VALUES == 3), np.where(VALUES == 3, np.nan, HOLED)),
    "scipy's sparse": ([scipy.sparse.csr_array(x) for x in VALUES], VALUES),
    "scipy's sparse in coordinates": ([scipy.sparse.coo_array(x) for x in VALUES], VALUES),
    "torch's sparse": (torch.tensor(VALUES).to_sparse(), VALUES),
    "list of torch's sparse": ([torch.tensor(x).to_sparse() for x in VALUES], VALUES),
    "bfloat16": (torch.tensor(VALUES, dtype=torch.bfloat16), VALUES),
    "with gradient": (torch.tensor(VALUES).requires_grad_(), VALUES),
    "tensors in lists": ([[torch.tensor(row) for row in x] for x in VALUES], VALUES),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_container_says_what_it_holds(kind: str) -> None:
    given, expected = KINDS[kind]
    data = lr.SequenceData.from_arrays({"y": given})
    stored = lr.StoredSequences.from_arrays({"y": given}).load()
    for found in (data, stored):
        np.testing.assert_array_equal(found.masks["y"], ~np.isnan(expected))
        np.testing.assert_array_equal(np.where(found.masks["y"], found.observations["y"], np.nan), expected)
    assert data.keys == stored.keys == lr.SequenceData.from_arrays({"y": expected}).keys


@pytest.mark.parametrize("from_arrays", [lr.SequenceData.from_arrays, lr.StoredSequences.from_arrays])
def test_a_masked_covariate_is_missing(from_arrays: Any) -> None:
    with pytest.raises(ValueError, match=r"covariates\['x'\]: expected a value at every step, .* sequence 0, step 1"):
        from_arrays({"y": VALUES}, {"x": masked(HOLED)})


MISTAKES: dict[str, tuple[Any, str]] = {
    "on no device": (torch.ones(2, 3, 1, device="meta"), "found a tensor on the device 'meta', which holds none"),
    "None in lists": ([[[1.0, None]]], "Python objects .*; write NaN where nothing was observed"),
    "a column of words": ([pd.DataFrame({"a": [1.0], "b": ["x"]})], "sequence 0, column 'b': expected real numbers"),
    "categories": ([pd.DataFrame({"a": pd.Categorical(["x"])})], "column 'a': expected real numbers"),
    "a dict": ({"a": 1}, r"found Python objects \(dict\)"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_what_holds_no_numbers_is_refused(name: str) -> None:
    given, message = MISTAKES[name]
    with pytest.raises(TypeError, match=message):
        lr.SequenceData.from_arrays({"y": given})


@pytest.mark.parametrize("given", [5.0, np.float64(1), "a"])
def test_a_number_is_no_file(given: Any) -> None:
    with pytest.raises(TypeError, match=r"\['y'\]: expected an array \(sequence, ...\) or a list of arrays"):
        lr.StoredSequences.from_arrays({"y": given})


def test_what_stays_as_it_is_all_along() -> None:
    lengths = (5, 3)
    data = lr.SequenceData.from_arrays(
        {"y": [np.ones((n, 1)) for n in lengths]}, {"age": np.array([[30.0, 1], [40, 0]])}, per_sequence=["age"]
    )
    assert data.covariates["age"][0].tolist() == [[30, 1]] * 5
    assert data.covariates["age"][1].tolist() == [[40, 0]] * 3 + [[0, 0]] * 2
    with pytest.raises(ValueError, match="name it in per_sequence= when it holds values that stay as they are"):
        lr.SequenceData.from_arrays({"y": np.ones((2, 5, 1))}, {"age": np.ones((2, 1))})
    with pytest.raises(ValueError, match="stored covariates have a value per step"):
        lr.StoredSequences.from_arrays({"y": np.ones((2, 5, 1))}, {"age": np.ones((2, 1))}, per_sequence=["age"])


@pytest.mark.parametrize("offset", [0.0, 1e4, -1e4])
def test_rounding_passes(offset: float) -> None:
    x = np.random.default_rng(0).normal(offset, 1.0, (2, 50, 1))
    assert lr.SequenceData.from_arrays({"y": x}, {"x": x}).dtype == torch.float32


def test_what_single_precision_takes_is_said() -> None:
    since_1970 = 1.7e9 + np.tile(np.arange(50.0), (2, 1))[..., None]
    near = np.random.default_rng(0).normal(1e6, 0.1, (2, 50, 2))
    near[..., 0] = 0.0
    for head, covariate, where in (
        (np.ones((2, 50, 1)), since_1970, r"covariates\['x'\]: float32 changes values by up to .* '0'"),
        (near, np.ones((2, 50, 1)), r"observations\['y'\]: float32 changes values by up to 0.03.* '1'"),
    ):
        with pytest.warns(UserWarning, match=where) as caught:
            lr.SequenceData.from_arrays({"y": head}, {"x": covariate})
        assert [Path(warning.filename).name for warning in caught] == ["test_plain_numbers.py"]
        exact = lr.SequenceData.from_arrays({"y": head}, {"x": covariate}, dtype=torch.float64)
        np.testing.assert_array_equal(exact.covariates["x"], covariate)
