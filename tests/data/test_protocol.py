"""Sequences in memory and in files answer the same questions alike."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import latentrnn as lr
from latentrnn.data import Sequences
from tests.data.stored.test_sequences import assert_same

LENGTHS = (9, 4, 12, 7)


@pytest.fixture
def both() -> tuple[lr.SequenceData, lr.StoredSequences]:
    rng = np.random.default_rng(0)
    arrays = {"y": [rng.poisson(1.0, (n, 3)) for n in LENGTHS]}, {"x": [rng.normal(size=(n, 2)) for n in LENGTHS]}
    return lr.SequenceData.from_arrays(*arrays, dt=0.1), lr.StoredSequences.from_arrays(*arrays, dt=0.1)


def test_what_is_known_without_reading(both: tuple[Sequences, Sequences]) -> None:
    data, stored = both
    for name in ("spec", "keys", "names", "total", "num_sequences", "num_steps", "padded", "dtype", "device"):
        assert getattr(data, name) == getattr(stored, name), name
    assert data.lengths.tolist() == stored.lengths.tolist() == list(LENGTHS)
    assert data.host_context.tolist() == stored.host_context.tolist() == [0] * len(LENGTHS)
    assert (data.in_memory, stored.in_memory) == (True, False)


def test_what_is_read(both: tuple[Sequences, Sequences]) -> None:
    data, stored = both
    assert_same(data.load(), stored.load())
    assert_same(data.for_start(), stored.for_start())
    assert_same(data[1:].load(), stored[1:].load())
    rows = torch.tensor([2, 0])
    for each in both:
        each.expect(rows)
    assert_same(data.batch(rows), stored.batch(rows))
    windows = [each.in_windows().batch(rows) for each in both]
    assert_same(windows[0].load_batch(), windows[1].load_batch())
    for each in both:
        each.close()


def test_everything_is_gone_through_once(both: tuple[Sequences, Sequences]) -> None:
    for each in both:
        parts = list(each.through())
        assert sum(int(part.masks["y"].sum()) for part, _, _ in parts) == 3 * sum(LENGTHS)
        assert parts[0][1:] == (0, 0)


def test_overlaps_are_found_across_both(both: tuple[Sequences, Sequences]) -> None:
    data, stored = both
    assert stored[:2].overlaps(data) == data[:2].overlaps(stored) == 2
    assert stored[:2].overlaps(data[2:]) == 0
