"""What is ingested is what the user holds, padded and masked."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from latentrnn.data import SequenceData
from tests.data.examples import CLOCK, LENGTHS, ragged

VALUES = np.arange(24).reshape(2, 4, 3)


@pytest.mark.parametrize(
    "given",
    [
        VALUES,
        VALUES.astype(np.float32),
        VALUES.astype(np.uint8),
        torch.as_tensor(VALUES),
        torch.as_tensor(VALUES, dtype=torch.bfloat16),
        torch.as_tensor(VALUES, dtype=torch.float32).requires_grad_(),
        list(VALUES),
        [torch.as_tensor(array) for array in VALUES],
        VALUES.tolist(),
        np.ma.MaskedArray(VALUES, mask=False),
    ],
    ids=[
        "int64",
        "float32",
        "uint8",
        "torch",
        "bfloat16",
        "with gradient",
        "list",
        "list of tensors",
        "nested",
        "masked",
    ],
)
def test_every_container_means_the_same(given: object) -> None:
    data = SequenceData.from_arrays({"y": given})
    expected = SequenceData.from_arrays({"y": VALUES.astype(float)})
    assert data.dtype == torch.float32
    assert torch.equal(data.observations["y"], torch.as_tensor(VALUES, dtype=torch.float32))
    assert data.masks["y"].all()
    assert data.keys == expected.keys
    assert data.spec == expected.spec


def test_missing_entries_are_masked_and_filled_with_a_value_of_their_channel() -> None:
    given = VALUES.astype(float)
    given[0, 0, 0] = np.nan
    given[1, 3, 2] = np.nan
    given[..., 1] = np.nan
    data = SequenceData.from_arrays({"y": given}, dtype=torch.float64)
    assert torch.equal(data.masks["y"], torch.as_tensor(~np.isnan(given)))
    assert torch.equal(data.observations["y"][data.masks["y"]], torch.as_tensor(given[~np.isnan(given)]))
    assert data.observations["y"][0, 0, 0] == given[0, 1, 0]
    assert data.observations["y"][1, 3, 2] == given[0, 0, 2]
    assert (data.observations["y"][..., 1] == 1.0).all()
    assert data.spec.heads["y"].missing


def test_masks_and_nan_combine_and_masked_values_may_be_anything() -> None:
    given = VALUES.astype(float)
    given[0, 0, 0], given[0, 0, 1] = np.nan, np.inf
    mask = np.ones(VALUES.shape, bool)
    mask[0, 0, 1] = mask[1, 1, 1] = False
    data = SequenceData.from_arrays({"y": given}, masks={"y": mask})
    assert (~data.masks["y"]).nonzero().tolist() == [[0, 0, 0], [0, 0, 1], [1, 1, 1]]
    assert torch.isfinite(data.observations["y"]).all()


def test_entries_hidden_by_numpy_are_missing() -> None:
    data = SequenceData.from_arrays({"y": np.ma.MaskedArray(VALUES, mask=VALUES == 5)})
    assert (~data.masks["y"]).nonzero().tolist() == [[0, 1, 2]]


def test_the_users_arrays_stay_as_they_are() -> None:
    given, totals = VALUES.astype(float), VALUES.sum(-1).astype(float)
    given[0, 0, 0], totals[0, 0] = np.nan, np.nan
    before, before_totals = given.copy(), totals.copy()
    data = SequenceData.from_arrays({"y": given}, totals={"y": totals})
    data.observations["y"].zero_()
    np.testing.assert_array_equal(given, before)
    np.testing.assert_array_equal(totals, before_totals)


def test_padding_is_flagged_everywhere() -> None:
    data = ragged()
    assert (data.num_sequences, data.num_steps, len(data), data.total) == (8, 12, 8, 8)
    assert data.padded
    assert data.indices is None
    assert data.lengths.tolist() == list(LENGTHS)
    assert data.valid.sum(1).tolist() == list(LENGTHS)
    for row, length in enumerate(LENGTHS):
        assert not data.masks["counts"][row, length:].any()
        assert data.masks["slow"][row].sum(0).tolist() == [length // CLOCK] * 2
        assert (data.covariates["stimulus"][row, length:] == 0).all()
        assert (data.totals["counts"][row, length:] == 0).all()
    assert data.observations["slow"].shape == (8, 6, 2)
    assert data.masks["label"][:, 0].tolist() == [True, True, False, True, True, True, True, True]
    assert not ragged().spec.heads["slow"].missing
    assert not SequenceData.from_arrays({"y": VALUES}).padded


def test_totals_that_are_not_known_are_told_from_those_that_are_all_that_was_seen() -> None:
    counts = np.array([[[1.0, 2.0], [np.nan, 2.0], [np.nan, 2.0]]])
    data = SequenceData.from_arrays({"y": counts}, totals={"y": np.array([[3.0, np.nan, 7.0]])})
    np.testing.assert_array_equal(data.totals["y"], [[3.0, np.nan, 7.0]])


def test_base_steps_come_from_the_fastest_there_is() -> None:
    slow, slower = np.ones((1, 4, 1)), np.ones((1, 2, 1))
    assert SequenceData.from_arrays({"a": slow, "b": slower}, clocks={"a": 2, "b": 3}).num_steps == 8
    assert SequenceData.from_arrays({"a": slow}, {"x": np.ones((1, 9, 1))}, clocks={"a": 2}).num_steps == 9
    with_label = SequenceData.from_arrays({"z": np.ones((1, 1))}, {"x": np.ones((1, 9, 1))}, per_sequence=["z"])
    assert with_label.num_steps == 9


def test_times_stay_exact_and_go_on_increasing_in_padding() -> None:
    start = 1.7e9  # seconds of today's clocks, of which float32 would lose all but minutes
    data = SequenceData.from_arrays(
        {"y": [np.ones((3, 1)), np.ones((1, 1))]}, times=[start + np.arange(3) / 8, [start]]
    )
    assert data.spec.irregular
    assert data.times is not None
    assert data.times.dtype == torch.float64
    assert (data.times[0] - start).tolist() == [0.0, 0.125, 0.25]
    assert (data.times.diff() > 0).all()
    assert data.to(dtype=torch.float32).times.dtype == torch.float64


def test_standardisation_is_stored_over_observed_entries_and_values_stay() -> None:
    given = np.random.default_rng(0).normal(3.0, 2.0, (4, 50, 2))
    given[0, :10] = np.nan
    ragged_given = [given[0], given[1], given[2], given[3, :20]]
    stimulus = [np.linspace(0.0, row + 1.0, len(array))[:, None] for row, array in enumerate(ragged_given)]
    data = SequenceData.from_arrays({"y": ragged_given}, {"x": stimulus}, standardise=["y", "x"])
    flat = np.concatenate(ragged_given)
    np.testing.assert_allclose(data.spec.heads["y"].location, np.nanmean(flat, 0), rtol=1e-12)
    np.testing.assert_allclose(data.spec.heads["y"].scale, np.nanstd(flat, 0), rtol=1e-12)
    np.testing.assert_allclose(data.spec.covariates["x"].scale, np.concatenate(stimulus).std(0), rtol=1e-12)
    np.testing.assert_allclose(data.observations["y"][1], given[1], rtol=1e-6)
    chosen = SequenceData.from_arrays({"y": given}, standardise={"y": (1.0, [2.0, 3.0])}).spec.heads["y"]
    assert (chosen.location, chosen.scale) == ((1.0, 1.0), (2.0, 3.0))


def test_names_come_back() -> None:
    data = SequenceData.from_arrays(
        {"y": VALUES},
        {"x": VALUES[..., :2]},
        channel_names={"y": ["a", "b", "c"]},
        feature_names={"x": ["left", "right"]},
        sequence_names=["monday", "tuesday"],
    )
    assert data.spec.heads["y"].channel_names == ("a", "b", "c")
    assert data.spec.covariates["x"].feature_names == ("left", "right")
    assert data[1].names == ("tuesday",)


def test_summary_says_what_is_there() -> None:
    assert repr(ragged()) == (
        "SequenceData: 8 sequences of 6 to 12 steps, dt = 0.01 s\n"
        "  observations: counts (3 channels, some missing), slow (2 channels, every 2 steps), "
        "label (1 channel, one value per sequence, some missing)\n"
        "  covariates: stimulus (2 features)"
    )
    assert "irregular times" in repr(ragged(irregular=True))
    assert "batch of a plate of 8" in repr(ragged().batch(torch.tensor([0, 1])))
    assert "up to 2 leading steps are context" in repr(ragged(label=False).windows(4, context=2))
