"""Sequences are known by what they contain, wherever they went since."""

from __future__ import annotations

import numpy as np
import torch

from latentrnn.data import SequenceData, SequenceKey
from tests.data.examples import ragged


def test_keys_depend_on_content_only() -> None:
    data, order = ragged(), [3, 0, 7, 1]
    lists = [data.observations["counts"][i, : data.host_lengths[i]].numpy() for i in order]
    again = SequenceData.from_arrays({"counts": lists})
    alone = SequenceData.from_arrays({"counts": lists[:1]}, dtype=torch.float64)
    assert again.keys[0] == alone.keys[0]
    assert len({key.key for key in ragged().keys}) == len(data)
    assert data.keys == ragged().keys


def test_any_difference_changes_the_key() -> None:
    values, stimulus = np.arange(8.0).reshape(1, 4, 2), np.arange(4.0).reshape(1, 4, 1)
    mask = np.ones(values.shape, bool)
    mask[0, 1, 1] = False
    changed = values.copy()
    changed[0, 3, 1] += 1
    variants = [
        SequenceData.from_arrays({"y": values}, {"x": stimulus}),
        SequenceData.from_arrays({"y": changed}, {"x": stimulus}),
        SequenceData.from_arrays({"y": values}, {"x": stimulus + 1}),
        SequenceData.from_arrays({"y": values}, {"x": stimulus}, masks={"y": mask}),
        SequenceData.from_arrays({"y": values}),
        SequenceData.from_arrays({"y": values}, {"x": stimulus}, times=[np.arange(4.0)]),
        SequenceData.from_arrays({"y": values.reshape(1, 2, 4)}),
    ]
    assert len({data.keys[0] for data in variants}) == len(variants)


def test_what_is_hidden_is_no_content() -> None:
    values, other = np.ones((1, 4, 1)), np.ones((1, 4, 1))
    other[0, 2] = 5.0
    mask = np.array([1, 1, 0, 1], bool).reshape(1, 4, 1)
    first, second = (SequenceData.from_arrays({"y": array}, masks={"y": mask}) for array in (values, other))
    assert first.keys == second.keys


def test_sequences_with_equal_content_are_told_apart() -> None:
    data = SequenceData.from_arrays({"y": np.zeros((3, 4, 1))})
    first, second, third = (key.key for key in data.keys)
    assert (second, third) == (f"{first}#2", f"{first}#3")
    train, _, test = data.split(0.34, 0.33, 0.33, seed=0)
    assert train.overlaps(test) == 0


def test_keys_overlap_where_scored_steps_do() -> None:
    key = SequenceKey("a", 4, 8)
    assert key.overlaps(SequenceKey("a", 7, 9))
    assert not key.overlaps(SequenceKey("a", 8, 9))
    assert not key.overlaps(SequenceKey("b", 4, 8))


def test_overlap_and_its_removal() -> None:
    data = ragged(label=False)
    first, rest = data[:3], data[2:]
    assert (first.overlaps(rest), rest.overlaps(first), first.overlaps(data[3:])) == (1, 1, 0)
    assert first.without(rest).keys == data.keys[:2]
    assert first.without(data[5:]).keys == first.keys
    windows = data.windows(4, context=2)
    assert windows.overlaps(first) == sum(-(-int(length) // 4) for length in first.host_lengths)
    assert windows.without(first).overlaps(first) == 0


def test_context_is_no_overlap() -> None:
    train, _, test = ragged(label=False).split(0.5, 0.25, 0.25, along="time", context=2)
    assert test.host_context.tolist() == [2] * len(test)
    assert test.overlaps(train) == train.overlaps(test) == 0


def test_an_observed_zero_is_not_a_missing_one() -> None:
    zeros, missing = np.zeros((1, 4, 1)), np.zeros((1, 4, 1))
    missing[0, 2] = np.nan
    assert SequenceData.from_arrays({"y": zeros}).keys != SequenceData.from_arrays({"y": missing}).keys
    assert SequenceData.from_arrays({"y": zeros}).keys == SequenceData.from_arrays({"y": -zeros}).keys


def test_keys_see_differences_that_float32_would_not() -> None:
    ones = np.ones((1, 4, 1))
    assert SequenceData.from_arrays({"y": ones}).keys != SequenceData.from_arrays({"y": ones + 1e-12}).keys
