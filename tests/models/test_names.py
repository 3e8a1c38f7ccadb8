"""Where things are found: every part in `latentrnn.models`, what one composes models and guides of in `latentrnn`."""

from __future__ import annotations

import inspect
import pkgutil
from importlib import import_module

import pytest

import latentrnn as lr
from latentrnn import inference, models
from latentrnn.models.component import Component


def parts(room: object) -> dict[str, type[Component]]:
    """Every part that one can make, by name, wherever in the room it is defined."""
    found = {}
    for info in pkgutil.walk_packages(room.__path__, f"{room.__name__}."):  # type: ignore[attr-defined]
        for name, value in vars(import_module(info.name)).items():
            own = inspect.isclass(value) and issubclass(value, Component) and value.__module__ == info.name
            if own and not name.startswith("_") and not inspect.isabstract(value):
                found[name] = value
    return found


MODEL_PARTS, GUIDE_PARTS = parts(models), parts(inference)
# what several parts have in common, and what stands in where a user gives nothing
BASES = {
    "AttentionReadout", "Component", "ExposedCounts", "Fading", "GammaShaped", "HeadUnits", "Identity",
    "LibraryTransition", "LogExposure", "NoReadout", "PositiveLink", "ProjectedInputTransition", "RealLink",
    "SharedTotal", "StepAndSequence", "Symbols", "TimeScaled", "Trials", "UnitLink", "ZeroInflated", "ReadingEncoder",
    "Clamped",
}  # fmt: skip
# what is chosen by name: link="softplus", pooling="mean"
NAMED = {name for name in MODEL_PARTS if name.endswith("Link") and name != "Link"} | {"LastState", "MeanState"}


@pytest.mark.parametrize("name", sorted(set(MODEL_PARTS) - BASES - NAMED))
def test_every_part_of_a_model_is_in_latentrnn_models(name: str) -> None:
    assert getattr(models, name) is MODEL_PARTS[name]
    assert getattr(lr, name) is MODEL_PARTS[name]


@pytest.mark.parametrize("name", sorted(set(GUIDE_PARTS) - BASES))
def test_every_part_of_a_guide_is_in_latentrnn(name: str) -> None:
    assert getattr(inference, name) is GUIDE_PARTS[name]
    assert getattr(lr, name) is GUIDE_PARTS[name]


def test_there_are_parts_to_find() -> None:
    assert {"GRU", "NeuralODE", "Calcium", "CrossAttention", "Population", "RelaxedDiscrete"} <= set(MODEL_PARTS)
    assert {"RNNEncoder", "StepEncoder", "GaussianChain", "Flow"} <= set(GUIDE_PARTS)
