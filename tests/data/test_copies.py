"""Copies and pickles hold the data, whatever was done with them before, and making them changes nothing."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import latentrnn as lr
from tests.data.examples import ragged
from tests.data.stored.test_sequences import assert_same


def through_torch(thing: Any) -> Any:
    buffer = io.BytesIO()
    torch.save(thing, buffer)
    return torch.load(io.BytesIO(buffer.getvalue()), weights_only=False)


WAYS: dict[str, Callable[[Any], Any]] = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "pickle": lambda thing: pickle.loads(pickle.dumps(thing)),
    "torch.save": through_torch,
}


def used() -> lr.SequenceData:
    """Data about which everything was found out."""
    data = ragged()
    assert data.padded
    assert data.valid.any()
    assert data.inside is not None
    assert not data.complete("counts")
    return data.with_constant("counts", torch.ones(8))


@pytest.mark.parametrize("way", WAYS)
def test_data_after_use(way: str) -> None:
    data = used()
    again = WAYS[way](data)
    assert_same(data, again)
    assert again.constant("counts") is None  # what is known belongs to the tensors of which it is
    assert not again.complete("counts")
    assert data.constant("counts") is not None


def test_a_pickle_is_no_larger_after_use() -> None:
    assert len(pickle.dumps(used())) == len(pickle.dumps(ragged()))


def test_data_after_a_fit() -> None:
    data = lr.SequenceData.from_arrays({"y": np.random.default_rng(0).poisson(0.5, (6, 5, 2))})
    before = pickle.dumps(data)
    model = lr.LatentRNN(data.spec, transition=lr.GRU(2), latent=lr.Innovations(1), observations={"y": lr.Poisson()})
    lr.fit(model, lr.Guide(model, encoder=lr.RNNEncoder(2)), data, steps=2, reporting=lr.Reporting(progress=False))
    assert pickle.dumps(data) == before
    assert_same(copy.deepcopy(data), data)


@pytest.mark.parametrize("way", WAYS)
def test_stored_data_after_use(way: str, tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(5, 400, 10))
    np.save(tmp_path / "values.npy", values)
    stored = lr.StoredSequences.from_arrays({"y": np.load(tmp_path / "values.npy", mmap_mode="r")})
    stored.expect(torch.arange(2))
    stored.batch(torch.arange(2))
    again = WAYS[way](stored)
    assert_same(stored[1:3].load(), again[1:3].load())
    assert len(pickle.dumps(stored)) < values.nbytes / 50  # the file travels by name
    stored.close()


def test_a_part_of_a_mapped_file_travels_by_content(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(5, 4, 2))
    np.save(tmp_path / "values.npy", values)
    stored = lr.StoredSequences.from_arrays({"y": np.load(tmp_path / "values.npy", mmap_mode="r")[1:3]})
    assert_same(pickle.loads(pickle.dumps(stored)).load(), stored.load())
