"""Numbers of NumPy are numbers; booleans, strings and NaN are not; errors say what was expected and what came."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from latentrnn.support.arguments import (
    check_choice,
    check_flag,
    check_integer,
    check_number,
    check_seed,
    check_size,
    check_text,
)

TAKEN: dict[str, tuple[Callable[[], Any], Any]] = {
    "a size of NumPy": (lambda: check_size("fit", "steps", np.uint8(3)), 3),
    "an integer at its limit": (lambda: check_integer("fit", "times", 0), 0),
    "a float of NumPy": (lambda: check_number("fit", "rate", np.float32(0.5), above=0), 0.5),
    "an integer as a number": (lambda: check_number("fit", "rate", np.int16(2), least=0), 2.0),
    "infinity where it may be": (lambda: check_number("fit", "limit", math.inf, above=0, finite=False), math.inf),
    "a flag of NumPy": (lambda: check_flag("fit", "progress", np.bool_(False)), False),
    "a word": (lambda: check_choice("fit", "kind", np.str_("a"), ["a", "b"]), "a"),
    "text": (lambda: check_text("fit", "name", "x"), "x"),
    "a seed of NumPy": (lambda: check_seed("fit", np.int64(5)), 5),
    "the largest seed": (lambda: check_seed("fit", 2**64 - 1), 2**64 - 1),
}


@pytest.mark.parametrize("case", TAKEN, ids=str)
def test_what_is_taken_comes_back_as_pythons(case: str) -> None:
    call, expected = TAKEN[case]
    assert call() == expected
    assert type(call()) is type(expected)


REFUSED: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "zero": (lambda: check_size("GRU", "size", 0), ValueError, "GRU: size must be a positive integer; found 0"),
    "NumPy's zero": (lambda: check_size("GRU", "size", np.int64(0)), ValueError, "positive integer; found 0"),
    "a boolean": (lambda: check_size("GRU", "size", True), ValueError, "positive integer; found True"),
    "NumPy's boolean": (lambda: check_size("GRU", "size", np.bool_(True)), ValueError, "positive integer; found True"),
    "a whole float": (lambda: check_size("GRU", "size", 2.0), ValueError, "positive integer; found 2.0"),
    "a string": (lambda: check_size("GRU", "size", "8"), ValueError, "positive integer; found '8'"),
    "too large": (lambda: check_size("GRU", "size", 10**30), ValueError, "of at most 2147483647; found 1000000"),
    "beyond all floats": (lambda: check_number("fit", "rate", 10**400), ValueError, "must be finite; found 1000"),
    "below": (lambda: check_integer("fit", "n", 1, least=2), ValueError, "n must be an integer of at least 2; found 1"),
    "no number": (lambda: check_number("fit", "rate", "1"), ValueError, "fit: rate must be a number; found '1'"),
    "none": (lambda: check_number("fit", "rate", None, above=0), ValueError, "rate must be positive; found None"),
    "NaN": (lambda: check_number("fit", "rate", np.float64("nan")), ValueError, "rate must be a number; found nan"),
    "NaN in a range": (lambda: check_number("f", "r", math.nan, least=0), ValueError, "not be negative; found nan"),
    "infinite": (lambda: check_number("fit", "rate", math.inf, least=0), ValueError, "must be finite; found inf"),
    "open below": (lambda: check_number("f", "r", 0, above=0, most=1), ValueError, "r must be in (0, 1]; found 0"),
    "open above": (lambda: check_number("f", "r", 1, least=0, below=1), ValueError, "r must be in [0, 1); found 1"),
    "at least": (lambda: check_number("f", "r", 1, least=2), ValueError, "must be a number of at least 2; found 1"),
    "a flag in words": (lambda: check_flag("fit", "resume", "no"), TypeError, "must be True or False; found 'no'"),
    "a flag in numbers": (lambda: check_flag("fit", "resume", 1), TypeError, "resume must be True or False; found 1"),
    "another word": (lambda: check_choice("fit", "on", "x", ["a"]), ValueError, "on must be one of 'a'; found 'x'"),
    "no word": (lambda: check_choice("fit", "on", [], ["a"]), ValueError, "on must be one of 'a'; found []"),
    "no text": (lambda: check_text("OneHot", "covariate", 3), TypeError, "covariate must be a string; found 3"),
    "empty text": (lambda: check_text("OneHot", "covariate", ""), ValueError, "covariate must not be empty"),
    "a seed in words": (lambda: check_seed("fit", "a"), TypeError, "fit: seed must be an integer, or None"),
    "half a seed": (lambda: check_seed("fit", 1.5), TypeError, "seed must be an integer, or None"),
    "a long seed": (lambda: check_seed("fit", 2**64), ValueError, "seed must be an integer of at most 64 bits"),
    "something long": (lambda: check_flag("fit", "on", "x" * 999), TypeError, "..."),
}


@pytest.mark.parametrize("case", REFUSED, ids=str)
def test_what_is_refused_is_named(case: str) -> None:
    call, kind, message = REFUSED[case]
    with pytest.raises(kind, match=re.escape(message)) as caught:
        call()
    assert len(str(caught.value)) < 200


def test_no_seed_is_a_fresh_one_each_time() -> None:
    assert len({check_seed("fit", None) for _ in range(10)}) > 5
