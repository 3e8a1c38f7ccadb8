"""JSON that any parser reads, NaN and infinities included."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
import torch

from latentrnn.support.strict_json import dumps, loads


def test_numbers_come_back_exactly() -> None:
    value = {"elbo": [0.1, 1e-300, -math.inf, math.inf], "step": [1, 2**60], "note": None, "kept": True, "name": "NaN"}
    assert loads(dumps(value, "history")) == value
    assert math.isnan(loads(dumps([math.nan], "history"))[0])


def test_any_parser_reads_it() -> None:
    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    json.loads(dumps({"loss": [math.nan, math.inf]}, "history"), parse_constant=refuse)


def test_arrays_tensors_and_tuples_become_lists() -> None:
    value = {"a": np.arange(3), "b": torch.tensor([1.5, 2.0]), "c": (1, np.float64(2.5)), "d": np.bool_(True)}
    assert loads(dumps(value, "settings")) == {"a": [0, 1, 2], "b": [1.5, 2.0], "c": [1, 2.5], "d": True}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (
            {"optimiser": {"callback": print}},
            r"settings\['optimiser'\]\['callback'\]: .* found builtin_function_or_method",
        ),
        ([1, {2, 3}], r"settings\[1\]: .* found set"),
        ({3: "three"}, r"settings: JSON needs keys that are strings .* found 3"),
        ({"$float": 1}, r"settings: JSON needs keys that are strings other than '\$float'; found '\$float'"),
        ({"z": 1j}, r"settings\['z'\]: .* found complex"),
    ],
)
def test_what_json_lacks_is_refused_by_name(value: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        dumps(value, "settings")


@pytest.mark.parametrize("text", ["[NaN]", "[Infinity]", '{"a": ', ""])
def test_what_is_not_json_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        loads(text)
