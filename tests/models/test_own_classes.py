"""Classes of the user's own: one with a name of the package's stands for itself alone, in models, copies and files."""

from __future__ import annotations

import copy
import json
import pickle
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pyro.distributions as dist
import pytest
import torch

import latentrnn as lr
from latentrnn.inference.fitting.saving.load import load
from latentrnn.inference.fitting.saving.manifest import MANIFEST
from latentrnn.inference.fitting.saving.save import save
from latentrnn.models.component import from_config, saved_name
from tests.inference.fitting.saving.fits import assert_same, make_result

OURS = lr.Poisson, lr.GRU


class Poisson(lr.Poisson):
    """A user's own, which has nothing to do with the package's."""

    def mean(self, distribution: Any) -> torch.Tensor:
        return 0 * super().mean(distribution)


class GRU(lr.Transition):
    """A leaky sum of the inputs, called as the package's."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.hidden_size = self.state_size = hidden_size

    def build(self, input_size: int) -> None:
        self.weight = torch.nn.Parameter(torch.ones(self.hidden_size, input_size))

    def step(self, state: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
        return 0.5 * state + inputs @ self.weight.T


class Holder(lr.Transition):
    """A transition around another, with arguments of every kind."""

    def __init__(self, cell: lr.Transition, notes: dict[str, Any], law: Any = None) -> None:
        super().__init__()
        self.cell, self.notes, self.law = cell.fresh(), notes, law
        self.hidden_size = self.state_size = cell.hidden_size

    def build(self, input_size: int) -> None:
        self.cell.build(input_size)

    def step(self, state: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
        return self.cell.step(state, inputs)


def spec() -> lr.DataSpec:
    return lr.SequenceData.from_arrays({"y": np.ones((2, 4, 1))}, dt=0.1).spec


def model(transition: lr.Transition, head: lr.Observation) -> lr.LatentRNN:
    return lr.LatentRNN(spec(), transition=transition, latent=lr.Innovations(2), observations={"y": head})


def test_the_packages_classes_stay_what_they_are() -> None:
    built = model(lr.GRU(3), lr.Poisson())
    assert (type(built.observations["y"]), type(built.transition)) == OURS
    assert (type(from_config({"class": "Poisson", "arguments": {}})), lr.GRU(3).config()["class"]) == (OURS[0], "GRU")


def test_own_classes_are_what_was_given() -> None:
    built = model(GRU(3), Poisson())
    assert (type(built.observations["y"]), type(built.transition)) == (Poisson, GRU)
    assert built.config()["transition"]["class"] == f"{__name__}:GRU"
    twin = pickle.loads(pickle.dumps(built))
    for other in (twin, copy.deepcopy(built)):
        assert (type(other.observations["y"]), type(other.transition)) == (Poisson, GRU)
    again = lr.LatentRNN.from_config(json.loads(json.dumps(built.config())), built.spec)
    assert (type(again.observations["y"]), type(again.transition)) == (Poisson, GRU)


def test_a_fresh_copy_makes_nested_parts_afresh_and_shares_distributions() -> None:
    prior = dist.Normal(0.0, 1.0)
    part = Holder(GRU(2), {"cells": [lr.GRU(2), {"deep": lr.Linear(2)}]}, law=prior)
    built = model(part, lr.Poisson()).transition
    assert type(built) is Holder
    assert type(built.cell) is GRU
    assert type(built.notes["cells"][0]) is lr.GRU
    assert built.law is prior
    for mine, its in ((part.cell, built.cell), (part.notes["cells"][1]["deep"], built.notes["cells"][1]["deep"])):
        assert mine is not its
        assert not list(mine.parameters())
    assert repr(part.fresh()) == repr(part)


def test_a_cell_of_a_notebook_that_runs_again_replaces_the_class() -> None:
    text = "class Leak(base):\n    version = {}\n"
    module = types.ModuleType("notebook")
    module.base = GRU  # type: ignore[attr-defined]
    for version in (1, 2):
        exec(text.format(version), vars(module))
    config = module.Leak(2).config()  # type: ignore[attr-defined]
    assert config["class"] == "notebook:Leak"
    assert from_config(config).version == 2


def local_class(factor: float) -> type[lr.Transition]:
    class Local(GRU):
        def step(self, state: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
            return factor * super().step(state, inputs)

    return Local


def test_classes_of_one_name_within_functions_stay_apart() -> None:
    first, second = local_class(1.0), local_class(2.0)
    built = [model(kind(2), lr.Poisson()).transition for kind in (first, second)]
    assert [type(part) for part in built] == [first, second]
    assert first(2).config()["class"] == f"{__name__}:local_class.<locals>.Local"


def test_a_class_of_the_script_is_found_where_the_script_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    own = type("Walk", (GRU,), {"__module__": "walks"})
    assert from_config({"class": "__main__:Walk", "arguments": {"hidden_size": 2}}).__class__ is own
    with pytest.raises(ValueError, match=r"unknown component class 'elsewhere:Walk'; import elsewhere, which defines"):
        from_config({"class": "elsewhere:Walk", "arguments": {"hidden_size": 2}})
    type("Walk", (GRU,), {"__module__": "other_walks"})
    with pytest.raises(ValueError, match=r"could be any of \['other_walks:Walk', 'walks:Walk'\]"):
        from_config({"class": "__main__:Walk", "arguments": {"hidden_size": 2}})


def test_a_file_imports_nothing() -> None:
    assert "antigravity" not in sys.modules
    with pytest.raises(ValueError, match="unknown component class 'antigravity:Walk'"):
        from_config({"class": "antigravity:Walk", "arguments": {}})
    assert "antigravity" not in sys.modules


@pytest.mark.parametrize("name", ["Transition", "Component", "LibraryTransition", "Observation"])
def test_bases_are_not_made_from_files(name: str) -> None:
    with pytest.raises(ValueError, match="component"):
        from_config({"class": name, "arguments": {}})


def test_files_with_and_without_modules(tmp_path: Path) -> None:
    result = make_result(transition=GRU(3))
    save(result, tmp_path)
    loaded = load(tmp_path)
    assert_same(loaded, result)
    assert type(loaded.model.transition) is GRU
    assert type(loaded.model.observations["spikes"]) is lr.Poisson
    # as files were before names carried a module
    manifest = json.loads((tmp_path / MANIFEST).read_text())
    manifest["model"]["transition"]["class"] = "GRU"
    manifest |= {"format_version": 1, "own_classes": {"GRU": __name__}}
    manifest.pop("checksum", None)
    (tmp_path / MANIFEST).write_text(json.dumps(manifest))
    assert_same(load(tmp_path), result)


def test_the_packages_names_are_unique() -> None:
    assert saved_name(lr.Poisson) == "Poisson"
    assert saved_name(Poisson) == f"{__name__}:Poisson"
    with pytest.raises(TypeError, match="Poisson"):
        type("Poisson", (lr.Observation,), {"__module__": "latentrnn.models.elsewhere"})
