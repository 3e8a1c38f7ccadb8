"""Arguments of another kind are refused by name."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import latentrnn as lr

WRONG: dict[str, tuple[Callable[[], Any], str]] = {
    "an infinite decay": (lambda: lr.Calcium(math.inf), "Calcium: decay must be finite; found inf"),
    "a decay in words": (lambda: lr.Calcium("0.1"), "Calcium: decay must be positive; found '0.1'"),
    "no totals": (lambda: lr.Binomial(""), "Binomial: total_count must be a positive integer; found ''"),
    "an empty list of totals": (
        lambda: lr.Binomial([]),
        r"Binomial: total_count must be a positive integer; found \[\]",
    ),
    "sizes in words": (lambda: lr.StepEncoder(""), "StepEncoder: hidden_sizes must be a list of sizes; found ''"),
    "priors in words": (lambda: lr.Poisson(priors="weight"), "Poisson: priors must be a dict of priors by parameter"),
    "a huge size": (lambda: lr.GRU(10**30), "GRU: hidden_size must be a positive integer of at most 2147483647"),
    "inputs as a number": (
        lambda: lr.LatentRNN(
            lr.SequenceData.from_arrays({"y": np.ones((2, 4, 1))}).spec,
            transition=lr.GRU(2),
            latent=lr.Deterministic(),
            observations={"y": lr.Poisson()},
            inputs=3,
        ),
        "LatentRNN: inputs must be covariate names or features; found 3",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_arguments_of_another_kind_are_refused(case: str) -> None:
    make, message = WRONG[case]
    with pytest.raises((TypeError, ValueError), match=message):
        make()


def test_sizes_of_numpy_are_plain_integers() -> None:
    assert type(lr.GRU(np.int64(8)).config()["arguments"]["hidden_size"]) is int
