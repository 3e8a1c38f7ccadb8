"""Data come in on the host and stay where they are, whatever torch's default device."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

import latentrnn as lr
from latentrnn.data.views.horizon import extend

VALUES = np.random.default_rng(0).poisson(0.5, (6, 20, 2)).astype(float)
TIMES = np.tile(np.arange(20.0), (6, 1))


@pytest.fixture
def elsewhere() -> Iterator[None]:
    """A default device that is not the host, and on which nothing can be read."""
    torch.set_default_device("meta")
    yield
    torch.set_default_device(None)


def assert_on_the_host(data: lr.SequenceData) -> None:
    named = [data.observations, data.masks, data.covariates, data.totals]
    tensors = [tensor for part in named for tensor in part.values()]
    tensors += [data.lengths, data.context, data.valid]
    tensors += [tensor for tensor in (data.times, data.indices, data.inside) if tensor is not None]
    assert {tensor.device.type for tensor in tensors} == {"cpu"}


@pytest.mark.usefixtures("elsewhere")
def test_data_in_memory() -> None:
    data = lr.SequenceData.from_arrays({"y": VALUES}, {"x": VALUES}, times=TIMES, totals={"y": VALUES.sum(-1)})
    joined = lr.SequenceData.join({"a": data, "b": data})
    owned = joined.has("y_a")
    assert owned is not None
    assert owned.device.type == "cpu"
    shuffled = data.batches(2, generator=torch.Generator("cpu").manual_seed(0))
    for found in (
        data,
        data[:3],
        data.batch([0, 2]),
        *data.batches(4),
        *shuffled,
        *data.split(0.4, 0.3, 0.3, seed=0),
        *data.split(0.4, 0.3, 0.3, along="time", context=2),
        data.windows(6, context=2),
        data.time_slice(2, 9),
        data.mask_entries("y", ~data.masks["y"]),
        joined.session("a"),
        data.to(dtype=torch.float64),
        extend(data, 2, times=TIMES[:, :2] + 20, covariates={"x": VALUES[:, :2]}, totals={"y": np.ones((6, 2))}),
        lr.SequenceData.from_spike_times([[[0.1]]], dt=0.1, duration=1.0),
    ):
        assert_on_the_host(found)


@pytest.mark.usefixtures("elsewhere")
def test_stored_data() -> None:
    stored = lr.StoredSequences.from_arrays({"y": VALUES}, {"x": VALUES}, times=TIMES)
    for found in (
        stored.load(),
        stored.for_start(),
        stored.time_slice(2, 5),
        stored.batch(torch.arange(2, device="cpu")),
    ):
        assert_on_the_host(found)
