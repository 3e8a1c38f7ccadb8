"""Fewer heads, fewer entries, other values, other places."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

import latentrnn as lr
from tests.data.examples import ragged


@pytest.mark.parametrize("kind", [lr.SequenceData, lr.StoredSequences])
def test_what_was_selected_can_be_fitted(kind: type[lr.SequenceData] | type[lr.StoredSequences]) -> None:
    """What is known of the masks of heads that were left out is left out, too."""
    data = kind.from_arrays({"y": np.zeros((3, 4, 1)), "z": np.ones((3, 4, 2))}).select(heads=["y"])
    if isinstance(data, lr.SequenceData):
        data.check_gapless()
        assert data.complete("y")
    model = lr.LatentRNN(data.spec, transition=lr.GRU(1), latent=lr.Deterministic(), observations={"y": lr.Gaussian()})
    assert lr.fit(model, lr.Guide(model), data, steps=1, reporting=lr.Reporting(progress=False)).best_step == 0


def test_selection_drops_everything_of_the_rest() -> None:
    data = ragged().select(heads=["slow"], covariates=[])
    assert (list(data.observations), list(data.masks), list(data.spec.heads)) == (["slow"], ["slow"], ["slow"])
    assert (data.covariates, data.totals, data.spec.covariates) == ({}, {}, {})
    assert (data.num_steps, data.keys) == (12, ragged().keys)
    assert list(ragged().select(covariates=["stimulus"]).observations) == ["counts", "slow", "label"]


def test_hidden_entries_are_gone() -> None:
    data = ragged().select(heads=["slow"])
    hide = torch.zeros_like(data.masks["slow"])
    hide[0, 0, 0] = hide[2, :, 1] = True
    hidden = data.mask_entries("slow", hide)
    assert torch.equal(hidden.masks["slow"], data.masks["slow"] & ~hide)
    assert torch.equal(
        hidden.observations["slow"][hidden.masks["slow"]], data.observations["slow"][hidden.masks["slow"]]
    )
    seen = set(data.observations["slow"][hidden.masks["slow"]].tolist())
    assert set(hidden.observations["slow"].flatten().tolist()) <= seen
    assert hidden.spec.heads["slow"].missing
    assert not data.spec.heads["slow"].missing
    assert hidden.keys == data.keys


def test_hiding_padding_is_no_missing_entry() -> None:
    data = ragged().select(heads=["slow"])
    assert not data.mask_entries("slow", ~data.masks["slow"]).spec.heads["slow"].missing


def test_replicates_keep_masks() -> None:
    data = ragged()
    replicate = data.with_observations({"slow": torch.zeros(8, 6, 2)})
    assert (replicate.observations["slow"] == 0).all()
    assert replicate.masks["slow"] is data.masks["slow"]
    assert replicate.observations["counts"] is data.observations["counts"]
    assert (data.observations["slow"] != 0).any()


def test_moving_changes_types_of_values_only() -> None:
    data = ragged(irregular=True).to(dtype=torch.float64)
    assert data.dtype == data.covariates["stimulus"].dtype == data.totals["counts"].dtype == torch.float64
    assert data.masks["counts"].dtype == torch.bool
    assert data.lengths.dtype == data.context.dtype == torch.long
    assert data.to("cpu").dtype == torch.float64
    assert data.to("meta").device.type == "meta"


def test_nothing_on_the_hot_path_waits_for_the_device() -> None:
    # tensors on "meta" have no values: whatever needed one would fail
    data = ragged(label=False, irregular=True).windows(4, context=2)
    away = data.to("meta")
    batch = next(away.batches(2, generator=torch.Generator().manual_seed(0)))
    part = batch.time_slice(2, 4).with_observations({}).to(dtype=torch.float64)
    assert part.padded in (True, False)
    assert part.valid.shape == (2, 2)
    assert part.scored("counts").shape == (2, 2, 3)
    assert away.select(heads=["slow"]).num_steps == data.num_steps
    assert repr(away) == repr(data)


def test_data_cannot_be_changed_by_accident() -> None:
    data = ragged()
    with pytest.raises(dataclasses.FrozenInstanceError):
        data.total = 3  # type: ignore[misc]
