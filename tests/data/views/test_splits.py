"""Training, validation and test share nothing and lose nothing."""

from __future__ import annotations

import numpy as np
import pytest

from latentrnn.data import SequenceData
from tests.data.examples import ragged


def numbered(count: int) -> SequenceData:
    return SequenceData.from_arrays({"y": np.arange(count, dtype=float)[:, None, None] * np.ones((1, 3, 1))})


@pytest.mark.parametrize("count", [3, 4, 10, 101])
@pytest.mark.parametrize("fractions", [(0.7, 0.15, 0.15), (0.98, 0.01, 0.01), (1 / 3, 1 / 3, 1 / 3)])
def test_a_split_is_a_partition_near_its_fractions(count: int, fractions: tuple[float, float, float]) -> None:
    data = numbered(count)
    parts = data.split(*fractions, seed=3)
    assert sorted(key for part in parts for key in part.keys) == sorted(data.keys)
    for fraction, part in zip(fractions, parts, strict=True):
        assert (part.total, part.indices) == (len(part), None)
        assert abs(len(part) - fraction * count) < 2 or len(part) == 1
    assert parts[0].overlaps(parts[1]) == parts[1].overlaps(parts[2]) == parts[0].overlaps(parts[2]) == 0


def test_a_split_follows_its_seed() -> None:
    data = numbered(40)
    first, again, other = (data.split(0.5, 0.25, 0.25, seed=seed)[0].keys for seed in (0, 0, 1))
    assert first == again
    assert first != other
    assert first != data.keys[:20]


@pytest.mark.parametrize("seed", range(5))
def test_strata_are_spread_in_proportion(seed: int) -> None:
    labels = np.array(["common"] * 60 + ["rare"] * 10 + ["middling"] * 30)
    data = numbered(100)
    parts = data.split(0.6, 0.2, 0.2, seed=seed, stratify=labels)
    assert sorted(key for part in parts for key in part.keys) == sorted(data.keys)
    for fraction, part in zip((0.6, 0.2, 0.2), parts, strict=True):
        found = labels[[int(name) for name in part.names]]
        for label, size in (("common", 60), ("rare", 10), ("middling", 30)):
            assert abs((found == label).sum() - fraction * size) <= 2
        assert abs(len(part) - fraction * 100) <= 1


def test_strata_of_two_still_fill_every_part() -> None:
    parts = numbered(20).split(0.7, 0.15, 0.15, seed=0, stratify=np.repeat(np.arange(10), 2))
    assert [len(part) for part in parts] == [14, 3, 3]


def test_strata_by_the_name_of_a_head_with_a_missing_label() -> None:
    labels = np.repeat([0.0, 1.0, np.nan], 10)
    data = SequenceData.from_arrays({"y": np.ones((30, 2, 1)), "z": labels[:, None]}, per_sequence=["z"])
    for part in data.split(0.4, 0.3, 0.3, seed=0, stratify="z"):
        values, seen = part.observations["z"][:, 0], part.masks["z"][:, 0]
        assert all(3 <= count <= 5 for count in ((values[seen] == 0).sum(), (values[seen] == 1).sum(), (~seen).sum()))


@pytest.mark.parametrize("context", [0, 2, 100])
def test_stretches_score_every_step_once_and_in_order(context: int) -> None:
    data = ragged(label=False)
    parts = data.split(0.5, 0.25, 0.25, along="time", context=context)
    for row, length in enumerate(data.host_lengths.tolist()):
        keys = [part.keys[row] for part in parts]
        assert [key.key for key in keys] == [data.keys[row].key] * 3
        assert [keys[0].start, keys[0].stop, keys[1].stop, keys[2].stop][0::3] == [0, length]
        assert (keys[0].stop, keys[1].stop) == (keys[1].start, keys[2].start)
        for key, part in zip(keys, parts, strict=True):
            before = min(context, key.start) if key.start else 0
            assert part.host_context[row] == part.context[row] == before
            stretch = slice(key.start - before, key.stop)
            mine, whole = part.observations["counts"][row], data.observations["counts"][row]
            assert (mine[: before + key.stop - key.start] == whole[stretch]).all()
    scored = sum(int(part.scored("counts").sum()) for part in parts)
    assert scored == int(data.scored("counts").sum())
    assert sum(int(part.scored("slow").sum()) for part in parts) == int(data.scored("slow").sum())


def test_stretches_round_down() -> None:
    data = SequenceData.from_arrays({"y": np.ones((1, 10, 1))})
    assert [part.num_steps for part in data.split(0.7, 0.1, 0.2, along="time")] == [7, 1, 2]
    data = SequenceData.from_arrays({"y": np.ones((1, 19, 1))})
    assert [part.num_steps for part in data.split(0.7, 0.15, 0.15, along="time")] == [13, 3, 3]


def test_stretches_of_a_stretch_keep_to_what_it_scores() -> None:
    data = SequenceData.from_arrays({"y": np.arange(20.0).reshape(1, 20, 1)})
    test = data.split(0.25, 0.25, 0.5, along="time", context=3)[2]
    keys = [part.keys[0] for part in test.split(0.5, 0.2, 0.3, along="time", context=4)]
    assert [(key.start, key.stop) for key in keys] == [(10, 15), (15, 17), (17, 20)]
