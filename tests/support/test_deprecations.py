"""Former names work, warn, and say what to write instead."""

from __future__ import annotations

import dataclasses
import inspect
import sys
import warnings
from types import ModuleType
from typing import Any

import pytest

import latentrnn as lr
from latentrnn.models.observations.encoder_input import EncoderInput
from latentrnn.models.rollout import Rollout
from latentrnn.models.transitions.projected_input import ProjectedInputTransition
from latentrnn.support import deprecations
from latentrnn.support.deprecations import FORMER, former_arguments, former_attributes, former_name


@dataclasses.dataclass(frozen=True)
class Bound:
    """An object whose fields were arguments once."""

    particles: int = 1
    label: str = "elbo"


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, str]]:
    rows = {
        "latentrnn": {"Emission": "Observation", "OldGRU": "models.GRU"},
        "Thing": {"amount": "size"},
        "measure()": {"optimiser": "optimizer", "particles": "bound=Bound.particles", "folder": "files=Files.folder"},
    }
    monkeypatch.setattr(deprecations, "FORMER", rows)
    return rows


def measure_with(table: dict[str, Any]) -> Any:
    @former_arguments("measure", files=lambda folder: f"files in {folder}")
    def measure(*, optimizer: str = "adam", bound: Bound = Bound(), files: str | None = None) -> Any:
        """Measure."""
        return optimizer, bound, files

    return measure


def test_a_former_argument_is_the_present_one_and_warns(table: dict[str, Any]) -> None:
    measure = measure_with(table)
    with pytest.warns(DeprecationWarning, match="measure: optimiser= is a former name.*use optimizer=") as seen:
        assert measure(optimiser="sgd") == ("sgd", Bound(), None)
    assert [item.filename for item in seen] == [__file__]  # where the call is
    with pytest.warns(DeprecationWarning, match=r"particles= .* use bound=Bound\(particles=...\)"):
        assert measure(bound=Bound(label="iwae"), particles=5) == ("adam", Bound(5, "iwae"), None)
    with pytest.warns(DeprecationWarning, match="folder"):
        assert measure(folder="runs")[2] == "files in runs"


def test_present_arguments_do_not_warn(table: dict[str, Any]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert measure_with(table)(optimizer="sgd", bound=Bound(3)) == ("sgd", Bound(3), None)


def test_both_names_at_once_are_refused(table: dict[str, Any]) -> None:
    measure = measure_with(table)
    with pytest.raises(TypeError, match=r"optimiser= is the former name of optimizer=, and both are given"):
        measure(optimiser="sgd", optimizer="adam")
    with (
        pytest.warns(DeprecationWarning, match="particles"),
        pytest.raises(TypeError, match=r"particles is given twice"),
    ):
        measure(particles=3, bound=Bound(4))


def test_a_signature_shows_present_arguments_alone(table: dict[str, Any]) -> None:
    measure = measure_with(table)
    assert list(inspect.signature(measure).parameters) == ["optimizer", "bound", "files"]
    assert measure.__doc__ == "Measure."
    with pytest.raises(TypeError, match="unexpected keyword argument 'speed'"):
        measure(speed=3)


def test_a_former_name_of_a_module(table: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    find = former_name("latentrnn")
    with pytest.warns(DeprecationWarning, match=r"latentrnn.Emission .* use latentrnn.Observation"):
        assert find("Emission") is lr.Observation
    with pytest.warns(DeprecationWarning, match=r"use latentrnn.models.GRU"):
        assert find("OldGRU") is lr.GRU
    module = ModuleType("latentrnn")
    monkeypatch.setattr(module, "__getattr__", find, raising=False)
    with pytest.raises(AttributeError, match="module 'latentrnn' has no attribute 'GUR'"):
        module.GUR  # noqa: B018


def test_a_former_attribute(table: dict[str, Any]) -> None:
    @former_attributes
    class Thing:
        size = 3

    with pytest.warns(DeprecationWarning, match=r"Thing.amount .* use Thing.size"):
        assert Thing().amount == 3  # type: ignore[attr-defined]


def test_the_package_refuses_names_that_it_never_had() -> None:
    with pytest.raises(AttributeError, match="module 'latentrnn' has no attribute 'Emmission'"):
        lr.Emmission  # noqa: B018


@pytest.mark.parametrize("former", sorted(FORMER["latentrnn"]))
def test_every_former_name_of_the_package_works(former: str) -> None:
    with pytest.warns(DeprecationWarning, match=former):
        assert getattr(lr, former) is not None


OWNERS = [owner for owner in FORMER if owner.endswith("()")]


@pytest.mark.parametrize("owner", OWNERS)
def test_every_former_argument_has_a_present_one(owner: str) -> None:
    function: Any = lr
    for part in owner.removesuffix("()").split("."):
        function = getattr(function, part)
    parameters = inspect.signature(function).parameters
    if owner == "fit_ensemble()":  # which hands on what it does not know
        parameters = {**inspect.signature(lr.fit).parameters, **parameters}
    for former, present in FORMER[owner].items():
        assert former not in parameters
        argument, _, inside = present.partition("=")
        assert argument in parameters, f"{owner}: {former} is now {present}"
        if inside:
            kind, field = inside.split(".")
            assert field in {each.name for each in dataclasses.fields(getattr(lr, kind))}


@pytest.mark.parametrize("owner", [owner for owner in FORMER if owner != "latentrnn" and not owner.endswith("()")])
def test_every_former_attribute_has_a_present_one(owner: str) -> None:
    handed = {"EncoderInput": EncoderInput, "ProjectedInputTransition": ProjectedInputTransition, "Rollout": Rollout}
    kind = handed[owner] if owner in handed else getattr(lr, owner)
    own = {field.name for field in dataclasses.fields(kind)} if dataclasses.is_dataclass(kind) else set()
    if kind is Rollout:  # whose attributes are instances' own
        own = {"transition_inputs", "feedback_heads", "is_double"}  # see tests/models/test_former_names.py
    for former, present in FORMER[owner].items():
        assert isinstance(vars(kind)[former], property)
        assert hasattr(kind, present) or present in own


def test_the_modules_hook_is_in_place() -> None:
    assert callable(sys.modules["latentrnn"].__getattr__)
