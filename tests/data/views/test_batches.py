"""Batches visit every sequence once and change nothing but padding."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from latentrnn.data import SequenceData
from tests.data.examples import CLOCK, ragged


def assert_same_sequence(part: SequenceData, row: int, whole: SequenceData, index: int) -> None:
    length = int(whole.host_lengths[index])
    assert part.keys[row] == whole.keys[index]
    assert part.names[row] == whole.names[index]
    assert part.lengths[row] == part.host_lengths[row] == length
    for name, head in whole.spec.heads.items():
        stop = length // head.clock if head.per_step else None
        assert torch.equal(part.observations[name][row, :stop], whole.observations[name][index, :stop])
        assert torch.equal(part.masks[name][row, :stop], whole.masks[name][index, :stop])
    assert torch.equal(part.covariates["stimulus"][row, :length], whole.covariates["stimulus"][index, :length])
    assert torch.equal(part.totals["counts"][row, :length], whole.totals["counts"][index, :length])
    if whole.times is not None and part.times is not None:
        assert torch.equal(part.times[row, :length], whole.times[index, :length])


@pytest.mark.parametrize("irregular", [False, True])
def test_a_batch_is_a_trimmed_sub_sample(irregular: bool) -> None:
    data = ragged(irregular=irregular)
    batch = data.batch(torch.tensor([4, 0, 1]))
    assert (batch.total, batch.num_steps, batch.num_sequences) == (8, 9, 3)
    assert batch.indices is not None
    assert batch.indices.tolist() == [4, 0, 1]
    assert batch.observations["counts"].shape == (3, 9, 3)
    assert batch.observations["slow"].shape == (3, 9 // CLOCK, 2)
    assert batch.observations["label"].shape == (3, 1)
    for row, index in enumerate((4, 0, 1)):
        assert_same_sequence(batch, row, data, index)
    again = batch.batch(torch.tensor([2, 1]))
    assert again.total == 8
    assert again.indices is not None
    assert again.indices.tolist() == [1, 0]
    assert not data.batch(torch.tensor([2, 5])).padded


@pytest.mark.parametrize("batch_size", [1, 3, 8, 100])
@pytest.mark.parametrize("seed", [None, 0])
def test_batches_visit_every_sequence_once(batch_size: int, seed: int | None) -> None:
    data = ragged()
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    visited = [int(i) for batch in data.batches(batch_size, generator=generator) for i in batch.indices]
    assert sorted(visited) == list(range(8))
    assert seed is not None or visited == list(range(8))


def test_batches_follow_their_generator() -> None:
    data = SequenceData.from_arrays({"y": np.ones((50, 2, 1))})

    def visit(seed: int) -> list[int]:
        generator = torch.Generator().manual_seed(seed)
        return [int(i) for _ in range(2) for batch in data.batches(7, generator=generator) for i in batch.indices]

    assert visit(1) == visit(1)
    assert visit(1) != visit(2)
    assert visit(1)[:50] != visit(1)[50:]


def test_batches_hold_similar_lengths() -> None:
    lengths = np.random.default_rng(0).integers(1, 100, 256)
    data = SequenceData.from_arrays({"y": [np.ones((n, 1)) for n in lengths]})
    generator = torch.Generator().manual_seed(0)
    padded = sum(batch.num_steps * len(batch) for batch in data.batches(8, generator=generator))
    unsorted = sum(batch.num_steps * len(batch) for batch in data.batches(8))
    assert padded < 1.25 * lengths.sum() < 0.9 * unsorted
    longest = [batch.num_steps for batch in data.batches(8, generator=generator)]
    assert longest != sorted(longest)


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        (2, [2]),
        (-1, [7]),
        (np.int64(3), [3]),
        (slice(None, None, 3), [0, 3, 6]),
        (slice(-2, None), [6, 7]),
        ([1, 0, -1], [1, 0, 7]),
        (torch.tensor([4, 4]), [4, 4]),
        ([True, False, False, True, False, False, False, False], [0, 3]),
        (torch.arange(8) > 5, [6, 7]),
    ],
)
def test_indexing_gives_a_plate_of_its_own(item: object, expected: list[int]) -> None:
    data = ragged()
    chosen = data[item]
    assert (chosen.total, chosen.indices) == (len(expected), None)
    assert chosen.num_steps == max(data.host_lengths[expected])
    for row, index in enumerate(expected):
        assert_same_sequence(chosen, row, data, index)


def test_sequences_without_a_frame_still_make_a_batch() -> None:
    data = SequenceData.from_arrays(
        {"y": [np.ones((9, 1)), np.ones((2, 1))], "slow": [np.ones((2, 1)), np.ones((0, 1))]}, clocks={"slow": 4}
    )
    short = data[1]
    assert (short.num_steps, short.padded, short.observations["slow"].shape) == (4, True, (1, 1, 1))
    assert not short.masks["slow"].any()
    assert short.windows(4).observations["slow"].shape == (1, 1, 1)


def test_iteration_ends() -> None:
    assert [one.names[0] for one in ragged()] == list(ragged().names)  # type: ignore[attr-defined]
