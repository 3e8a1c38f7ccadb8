"""What an encoder sees, and what it must not."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import Tensor

import latentrnn as lr
from tests.registry import OBSERVATIONS, make_data, make_model, shake

DIRECTIONS = ("causal", "backward", "bidirectional")


def two_heads(**options: object) -> lr.SequenceData:
    rng = np.random.default_rng(0)
    lengths = (9, 6, 7)
    return lr.SequenceData.from_arrays(
        {
            "shown": [rng.normal(5.0, 2.0, (n, 2)) for n in lengths],
            "hidden": [rng.poisson(1.0, (n, 3)) for n in lengths],
            "label": rng.integers(0, 2, (3, 1)),
        },
        {"drive": [rng.normal(size=(n, 1)) for n in lengths]},
        per_sequence=["label"],
        dtype=torch.float64,
        **options,
    )


def make_encoder(data: lr.SequenceData, heads: tuple[str, ...] = ("shown", "hidden", "label"), **options: object):
    encoder = lr.RNNEncoder(4, **options)
    encoder.build(data.spec, heads)
    shake(encoder)
    encoder.double()
    encoder.initialise(data)
    return encoder


def with_other(data: lr.SequenceData, head: str, where: Tensor | None = None) -> lr.SequenceData:
    values = data.observations[head]
    changed = values + 3.0
    return data.with_observations({head: changed if where is None else torch.where(where, changed, values)})


def test_by_default_it_sees_every_per_step_head_and_never_a_label() -> None:
    data = two_heads()
    encoder = make_encoder(data)
    assert encoder.visible == ["shown", "hidden"]
    before = encoder(data)
    for head in ("shown", "hidden"):
        assert not torch.allclose(encoder(with_other(data, head)).steps, before.steps)
    after = encoder(with_other(data, "label"))
    assert torch.equal(after.steps, before.steps)
    assert torch.equal(after.summary, before.summary)


def test_it_does_not_see_what_it_is_not_told_to() -> None:
    data = two_heads()
    encoder = make_encoder(data, observes=["shown"])
    before, after = encoder(data), encoder(with_other(data, "hidden"))
    assert torch.equal(after.steps, before.steps)
    assert torch.equal(after.summary, before.summary)
    assert lr.RNNEncoder(4, observes="shown").observes == ["shown"]


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_directions(direction: str) -> None:
    """Which steps' features change when the observation (or covariate) at step 3 does."""
    data = two_heads()
    encoder = make_encoder(data, direction=direction)
    where = torch.zeros_like(data.masks["shown"])
    where[:, 3] = True
    covariates = {"drive": data.covariates["drive"].clone()}
    covariates["drive"][:, 3] += 1.0
    before = encoder(data)
    for changed in (with_other(data, "shown", where), dataclasses.replace(data, covariates=covariates)):
        after = encoder(changed)
        moved = (after.steps - before.steps).abs().amax(-1) > 1e-12
        expected = {
            "causal": torch.arange(9) >= 3,
            "backward": torch.arange(9) <= 3,
            "bidirectional": torch.ones(9, dtype=torch.bool),
        }[direction]
        assert torch.equal(moved & data.valid, expected.expand_as(moved) & data.valid)
        informed = (after.summary != before.summary).any(-1)
        assert informed.all() if direction != "causal" else not informed.any()


def test_missing_entries_are_told_apart_from_average_ones() -> None:
    data = two_heads()
    where = torch.zeros_like(data.masks["shown"])
    where[:, 2, 0] = True
    centre = data.observations["shown"][data.masks["shown"].any(-1)].mean(0)
    average = data.with_observations({"shown": torch.where(where, centre, data.observations["shown"])})
    missing = data.mask_entries("shown", where)
    encoder = make_encoder(data, mask_input=True)
    assert not torch.allclose(encoder(average).steps, encoder(missing).steps)
    # and the value under a mask does not matter
    assert torch.equal(encoder(with_other(missing, "shown", where)).steps, encoder(missing).steps)


def test_an_encoder_that_cannot_be_told_of_missing_entries_says_so() -> None:
    data = two_heads()
    encoder = make_encoder(data)
    encoder(data)
    hidden = data.mask_entries("shown", torch.rand(data.masks["shown"].shape) < 0.3)
    with pytest.raises(ValueError, match=r"observations\['shown'\]: entries are missing.*mask_input=True"):
        encoder(hidden)
    make_encoder(hidden)(hidden)  # built from data with missing entries, it is told
    make_encoder(data, observes=["hidden"])(hidden)  # it does not look at that head anyway


def test_it_sees_standard_units() -> None:
    """Data in other units give the same features, after the encoder has taken its scales."""
    data = two_heads()
    encoder = make_encoder(data)
    expected = encoder(data)
    other = data.with_observations({"shown": 1000.0 + 50.0 * data.observations["shown"]})
    encoder.initialise(other)
    torch.testing.assert_close(encoder(other).steps, expected.steps)


def test_a_frame_is_known_at_its_last_step_only() -> None:
    data = make_data(OBSERVATIONS["clocked"], (8, 8))
    _, guide = make_model("gru", "innovations", "clocked", data, direction="causal")
    where = torch.zeros_like(data.masks["y"])
    where[:, 1] = True  # frame 1 summarises steps 2 and 3
    observed = dataclasses.replace(data, masks={"y": torch.ones_like(where)})
    moved = (guide.encoder(with_other(observed, "y", where)).steps - guide.encoder(observed).steps).abs().amax((0, 2))
    assert (moved > 1e-12).tolist() == [False, False, False, True, True, True, True, True]


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_sizes(direction: str, layers: int) -> None:
    data = two_heads()
    encoder = make_encoder(data, direction=direction, layers=layers)
    encoding = encoder(data)
    assert encoding.steps.shape == (3, 9, encoder.step_size)
    assert encoding.summary.shape == (3, encoder.summary_size)


def test_covariates_alone_are_enough() -> None:
    data = two_heads().select(heads=["label"])
    encoder = make_encoder(data, ("label",))
    assert encoder.visible == []
    assert encoder(data).steps.shape == (3, 9, 8)
