"""Windows and slices in time."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch

from latentrnn.data import SequenceData
from tests.data.examples import CLOCK, ragged


@pytest.mark.parametrize("irregular", [False, True])
@pytest.mark.parametrize(("length", "context"), [(2, 0), (4, 2), (6, 8), (100, 4)])
def test_windows_score_every_step_exactly_once(length: int, context: int, irregular: bool) -> None:
    data = ragged(label=False, irregular=irregular)
    windows = data.windows(length, context=context)
    row_of = {key.key: row for row, key in enumerate(data.keys)}
    steps: Counter[tuple[int, int]] = Counter()
    frames = {"counts": 1, "slow": CLOCK}
    for piece, key in enumerate(windows.keys):
        row, before = row_of[key.key], int(windows.context[piece])
        assert key.stop - key.start <= length
        assert before == min(context, key.start)
        assert windows.lengths[piece] == windows.host_lengths[piece] == before + key.stop - key.start
        steps.update((row, step) for step in range(key.start, key.stop))
        begin, size = key.start - before, int(windows.lengths[piece])
        for name, clock in frames.items():
            whole = slice(begin // clock, begin // clock + size // clock)
            assert torch.equal(windows.observations[name][piece, : size // clock], data.observations[name][row, whole])
            assert torch.equal(windows.masks[name][piece, : size // clock], data.masks[name][row, whole])
            assert not windows.masks[name][piece, size // clock :].any()
        assert torch.equal(
            windows.covariates["stimulus"][piece, :size], data.covariates["stimulus"][row, begin : key.stop]
        )
        assert (windows.covariates["stimulus"][piece, size:] == 0).all()
        assert torch.equal(windows.totals["counts"][piece, :size], data.totals["counts"][row, begin : key.stop])
        if data.times is not None and windows.times is not None:
            assert torch.equal(windows.times[piece, :size], data.times[row, begin : key.stop])
            assert (windows.times.diff() > 0).all()
    assert steps == Counter((row, step) for row, n in enumerate(data.host_lengths) for step in range(n))
    for name in frames:
        assert windows.scored(name).sum() == data.scored(name).sum()
    assert (windows.total, windows.indices) == (len(windows), None)
    assert len(set(windows.names)) == len(windows)
    assert windows.spec == data.spec


def test_values_in_padding_of_windows_stay_in_the_support() -> None:
    data = SequenceData.from_arrays({"y": np.full((1, 5, 1), 3.0)})
    assert (data.windows(4, context=2).observations["y"] == 3.0).all()


def test_windows_of_windows_keep_count() -> None:
    data = SequenceData.from_arrays({"y": np.arange(20.0).reshape(1, 20, 1)})
    twice = data.windows(10, context=4).windows(5, context=4)
    assert [(key.start, key.stop) for key in twice.keys] == [(0, 5), (5, 10), (10, 15), (15, 20)]
    assert twice.host_context.tolist() == [0, 4, 4, 4]
    assert twice.names == ("0[0:10][0:5]", "0[0:10][5:10]", "0[10:20][10:15]", "0[10:20][15:20]")


def test_scored_leaves_out_context_and_missing() -> None:
    data = ragged(label=False).windows(4, context=2)
    for name, clock in (("counts", 1), ("slow", CLOCK)):
        scored, first = data.scored(name), torch.arange(data.masks[name].shape[1]) * clock
        assert torch.equal(scored, data.masks[name] & (first >= data.context[:, None])[..., None])
    assert ragged().scored("label").sum() == 7


def test_a_slice_is_a_view_with_its_own_count() -> None:
    data = ragged()
    part = data.time_slice(6, 10)
    assert part.num_steps == 4
    assert part.lengths.tolist() == part.host_lengths.tolist() == [3, 0, 4, 2, 1, 4, 1, 4]
    assert torch.equal(part.observations["counts"], data.observations["counts"][:, 6:10])
    assert torch.equal(part.observations["slow"], data.observations["slow"][:, 3:5])
    assert torch.equal(part.observations["label"], data.observations["label"])
    assert part.observations["counts"].data_ptr() == data.observations["counts"][:, 6:].data_ptr()
    assert torch.equal(part.valid, data.valid[:, 6:10])
    assert (part.keys[0].start, part.keys[0].stop) == (6, 9)
    assert part.keys[1].start == part.keys[1].stop
    assert data.time_slice(0, 99).num_steps == 12


def test_slices_of_windows_keep_context_apart() -> None:
    data = SequenceData.from_arrays({"y": np.arange(20.0).reshape(1, 20, 1)})
    window = data.windows(10, context=4)[1]
    first, second = window.time_slice(0, 6), window.time_slice(6, 14)
    assert (first.context.tolist(), second.context.tolist()) == ([4], [0])
    assert (first.keys[0].start, first.keys[0].stop, second.keys[0].start, second.keys[0].stop) == (10, 12, 12, 20)
    assert int(first.scored("y").sum() + second.scored("y").sum()) == 10
    all_context = window.time_slice(0, 2)
    assert not all_context.scored("y").any()
    assert all_context.overlaps(data) == 0
