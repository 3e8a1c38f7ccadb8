"""What an encoder sees, and what it must not."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import latentrnn as lr
from latentrnn.inference.objectives.coordinated_dropout import coordinated_dropout
from latentrnn.models.observations import EncoderInput
from tests.registry import OBSERVATIONS, make_data, make_model, shake

DIRECTIONS = ("causal", "backward", "bidirectional")
CELLS = ("gru", "lstm", "tanh", "relu")


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
    encoder.build(data.spec, {name: EncoderInput(data.spec.heads[name].channels) for name in heads})
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
@pytest.mark.parametrize("cell", CELLS)
def test_directions(direction: str, cell: str) -> None:
    """Which steps' features change when the observation (or covariate) at step 3 does."""
    data = two_heads()
    encoder = make_encoder(data, direction=direction, cell=cell)
    for name, parameter in encoder.named_parameters():  # or units that are never active hide what changes
        if cell == "relu" and "bias" in name:
            parameter.detach().abs_().add_(1.0)
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


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("layers", [1, 2])
def test_step_by_step_it_says_the_same(cell: str, layers: int) -> None:
    data = two_heads()
    encoder = make_encoder(data, direction="causal", cell=cell, layers=layers)
    whole, memory = encoder(data), None
    encoder.start_streaming()
    for t in range(data.num_steps):
        step, memory = encoder.advance(data.time_slice(t, t + 1), memory)
        for n, length in enumerate(data.lengths.tolist()):
            if t < length:
                torch.testing.assert_close(step.steps[n, 0], whole.steps[n, t], rtol=0, atol=1e-12)


@pytest.mark.parametrize("cell", CELLS)
def test_an_encoder_with_another_cell_is_fitted_and_saved(cell: str, tmp_path: Path) -> None:
    data = make_data(OBSERVATIONS["poisson"])
    model, _ = make_model("gru", "innovations", "poisson", data)
    guide = lr.Guide(model, encoder=lr.RNNEncoder(4, cell=cell))
    assert ("cell=" in repr(guide.encoder)) == (cell != "gru")
    result = lr.fit(
        model, guide, data, steps=3, reporting=lr.Reporting(progress=False), compute=lr.Compute(device="cpu")
    )
    untrained = result.guide.encoder.fresh()
    assert untrained.cell == cell
    before = dict(guide.named_parameters())
    assert all((p != before[name]).any() for name, p in result.guide.named_parameters() if "weight" in name)
    result.save(tmp_path / "fit")
    loaded = lr.load(tmp_path / "fit")
    assert repr(loaded.guide) == repr(result.guide)
    assert torch.equal(loaded.guide.encoder(data).steps, result.guide.encoder(data).steps)


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


def symbols(**options: object) -> tuple[lr.SequenceData, lr.Guide]:
    """Two channels of four symbols with holes, beside counts."""
    rng = np.random.default_rng(1)
    codes = [rng.integers(0, 4, (n, 2)).astype(float) for n in (7, 5)]
    codes = [np.where(rng.random(each.shape) < 0.3, np.nan, each) for each in codes]
    counts = [rng.poisson(2.0, (n, 1)) for n in (7, 5)]
    data = lr.SequenceData.from_arrays({"letter": codes, "n": counts}, dtype=torch.float64)
    model = lr.LatentRNN(
        data.spec,
        transition=lr.GRU(3),
        latent=lr.Innovations(2),
        observations={"letter": lr.Categorical(4), "n": lr.Poisson()},
    )
    guide = lr.Guide(model, encoder=lr.RNNEncoder(4, **options))
    guide.initialise(model, data)
    return data, guide.double()


def test_symbols_are_shown_as_indicators_and_missing_ones_as_none() -> None:
    data, guide = symbols()
    found = guide.encoder.inputs(data)
    letters, mask = data.observations["letter"].numpy(), data.masks["letter"].numpy()
    expected = np.zeros((2, 7, 2, 4))
    for index in np.ndindex(letters.shape):
        if mask[index]:
            expected[(*index, int(letters[index]))] = 1.0
    assert expected.sum() == mask.sum() > 10
    np.testing.assert_array_equal(found[..., :8], expected.reshape(2, 7, 8))
    np.testing.assert_array_equal(found[..., 8:10], mask)
    assert found.shape[-1] == 11  # and the counts, as the number that they are


@pytest.mark.parametrize("read_in", [None, 5])
def test_the_names_of_symbols_do_not_matter(read_in: int | None) -> None:
    """Other codes for the same symbols, the weights moved with them, give the same features."""
    data, guide = symbols(read_in=read_in)
    before = guide.encoder(data)
    turn = torch.tensor([2, 0, 3, 1])
    renamed = data.with_observations({"letter": turn[data.observations["letter"].long()].double()})
    assert not torch.allclose(guide.encoder(renamed).steps, before.steps)
    columns = torch.cat([turn, 4 + turn])
    for name, weight in guide.encoder.named_parameters():
        if ("letter.weight" in name) if read_in else ("weight_ih" in name):
            moved = weight.detach().clone()
            moved[:, columns] = weight.detach()[:, :8]
            weight.data = moved
    torch.testing.assert_close(guide.encoder(renamed).steps, before.steps)


def test_hidden_symbols_are_shown_as_none() -> None:
    data, guide = symbols()
    shown, scored, _ = coordinated_dropout(data, 0.4, ["letter"], symbols=["letter"])
    found = guide.encoder.inputs(shown)[..., :8].unflatten(-1, (2, 4)).sum(-1).bool()
    hidden = scored.masks["letter"]
    assert torch.equal(found, data.masks["letter"] & ~hidden)
    assert hidden.any()
    assert found.any()


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
