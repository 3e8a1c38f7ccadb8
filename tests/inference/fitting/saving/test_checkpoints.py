"""Checkpoints: everything comes back, and nothing is destroyed."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from pyro import poutine

import latentrnn as lr
from latentrnn.data import SequenceKey
from latentrnn.inference.fitting.saving import manifest, weights
from latentrnn.inference.fitting.saving.load import load
from latentrnn.inference.fitting.saving.manifest import MANIFEST
from latentrnn.inference.fitting.saving.save import save
from tests.inference.fitting.saving.fits import assert_same, make_data, make_result

# Round trips


def test_everything_comes_back(tmp_path: Path) -> None:
    result = make_result()
    save(result, tmp_path / "runs" / "gru")
    loaded = load(str(tmp_path / "runs" / "gru"))
    assert_same(loaded, result)
    assert all(isinstance(key, SequenceKey) for key in loaded.used)
    assert loaded.spec.covariates["stimulus"].location == result.spec.covariates["stimulus"].location


@pytest.mark.parametrize(
    "parts",
    [
        {"transition": lr.LSTM(3), "latent": lr.InitialState(2)},
        {"transition": lr.VanillaRNN(3), "latent": lr.Innovations(2, initial=3, prior="ar1")},
        {"transition": lr.GRU(3, layers=2), "latent": lr.Deterministic()},
    ],
    ids=lambda parts: repr(parts["transition"]),
)
def test_other_parts_come_back(tmp_path: Path, parts: dict[str, Any]) -> None:
    result = make_result(**parts)
    save(result, tmp_path)
    assert_same(load(tmp_path), result)


def test_double_precision_and_mode_come_back(tmp_path: Path) -> None:
    result = make_result()
    result.model.double().eval()
    save(result, tmp_path)
    loaded = load(tmp_path)
    assert_same(loaded, result)
    assert not loaded.model.training
    assert loaded.guide.training


def test_the_loaded_model_computes_the_same(tmp_path: Path) -> None:
    result, data = make_result(), make_data()
    save(result, tmp_path)
    densities = []
    for fit in (result, load(tmp_path)):
        torch.manual_seed(0)
        densities.append(fit.model(data)["spikes"])
        torch.manual_seed(0)
        densities.append(poutine.trace(fit.model).get_trace(data).log_prob_sum())
    assert torch.equal(densities[0], densities[2])
    assert torch.equal(densities[1], densities[3])


def test_loading_leaves_the_random_generator_alone(tmp_path: Path) -> None:
    save(make_result(), tmp_path)
    before = torch.get_rng_state()
    load(tmp_path)
    assert torch.equal(torch.get_rng_state(), before)


def test_files_are_safetensors_and_json(tmp_path: Path) -> None:
    save(make_result(), tmp_path)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert [name.split("-")[0] for name in names] == ["guide", MANIFEST, "model"]
    for path in tmp_path.glob("*.safetensors"):
        assert safetensors.torch.load_file(path)
    assert json.loads((tmp_path / MANIFEST).read_text())["history"]["elbo"] == [{"$float": "-inf"}, -0.1]


# Saving over something


def test_saving_again_replaces_the_checkpoint_and_nothing_else(tmp_path: Path) -> None:
    save(make_result(), tmp_path)
    (tmp_path / "notes.txt").write_text("keep me")
    second = make_result(hidden=5)
    save(second, tmp_path)
    assert_same(load(tmp_path), second)
    assert (tmp_path / "notes.txt").read_text() == "keep me"
    assert len(list(tmp_path.iterdir())) == 4, "the first checkpoint's weights are gone"
    save(second, tmp_path)
    assert_same(load(tmp_path), second)


@pytest.mark.parametrize("failing_write", [0, 1, 2])
def test_a_failed_save_leaves_the_old_checkpoint_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing_write: int
) -> None:
    first = make_result()
    save(first, tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    replace, calls = os.replace, []

    def full_disk(source: Any, target: Any) -> None:
        calls.append(target)
        if len(calls) > failing_write:
            raise OSError("no space left on device")
        replace(source, target)

    monkeypatch.setattr(os, "replace", full_disk)
    with pytest.raises(OSError, match="no space left"):
        save(make_result(hidden=5), tmp_path)
    monkeypatch.undo()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert_same(load(tmp_path), first)


def test_a_killed_save_leaves_the_old_checkpoint_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is cleaned up when a process is killed: what lies there then must still load, and be replaceable."""
    first, second = make_result(), make_result(hidden=5)
    save(first, tmp_path)
    weights.write_weights(second.model, tmp_path, "model")
    (tmp_path / f".{MANIFEST}.1.tmp").write_text('{"format": "latentrnn che')
    assert_same(load(tmp_path), first)
    save(second, tmp_path)
    assert_same(load(tmp_path), second)


def test_an_interrupt_right_after_the_last_write_keeps_the_new_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    second = make_result(hidden=5)
    save(make_result(), tmp_path)
    replace = os.replace

    def interrupted(source: Path, target: Path) -> None:
        replace(source, target)
        if target.name == MANIFEST:
            raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save(second, tmp_path)
    assert_same(load(tmp_path), second)


# What cannot be saved


def test_what_cannot_be_saved_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    result = make_result()
    with pytest.raises(TypeError, match=r"result\['settings'\]\['schedule'\]: .* found builtin_function_or_method"):
        save(dataclasses.replace(result, settings={"schedule": max}), tmp_path / "gru")
    assert not (tmp_path / "gru").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="file: expected a directory to save to; found a file"):
        save(result, tmp_path / "file")


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    result = make_result()
    name, parameter = next(iter(result.model.named_parameters()))
    with torch.no_grad():
        parameter.view(-1)[0] = math.nan
    with pytest.raises(ValueError, match=rf"model parameter '{name}': expected finite numbers; 1 of"):
        save(result, tmp_path)


# Classes of the user's own, and versions


class OwnCell(lr.GRU):
    """A transition of the user's own."""


def test_a_class_of_the_users_own_comes_back_once_it_is_known(tmp_path: Path) -> None:
    result = make_result(transition=OwnCell(3))
    save(result, tmp_path)
    assert json.loads((tmp_path / MANIFEST).read_text())["own_classes"] == {f"{__name__}:OwnCell": __name__}
    loaded = load(tmp_path)
    assert type(loaded.model.transition) is OwnCell
    assert_same(loaded, result)


def test_the_format_is_known_by_its_number() -> None:
    """Whoever changes what is written raises the number, and says here what became of older files."""
    assert manifest.FORMAT_VERSION == 2  # classes carry their modules; files of format 1 load as before
