"""The rule that every random case is held against: an error of our own, or a sane result.

An error is our own when package code raised it by a `raise` statement, of a kind that users can catch, with a message.
One that comes out of torch, Pyro or NumPy is raw, whatever it says: nobody checked what was asked for.
"""

from __future__ import annotations

import dis
import os
import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import latentrnn as lr

PACKAGE = str(Path(lr.__file__).parent) + os.sep
OURS = (ValueError, TypeError, IndexError, RuntimeError, OSError)
SHORTEST_MESSAGE = 15  # a message names what, what was expected and what came
RAISE = dis.opmap["RAISE_VARARGS"]

TALLY: Counter[str] = Counter()  # cases and calls of this process, and how they ended


class RawError(AssertionError):
    """An error that no check of the package stands behind."""


class Insane(AssertionError):
    """A result that no user would expect."""


class Refused:
    """What came of a call that the package refused."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __repr__(self) -> str:
        return f"Refused({type(self.error).__name__}: {self.error})"


def is_ours(error: BaseException) -> bool:
    """Whether package code raised an error on purpose."""
    if not isinstance(error, OURS) or len(str(error)) < SHORTEST_MESSAGE:
        return False
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None or not trace.tb_frame.f_code.co_filename.startswith(PACKAGE):
        return False
    return trace.tb_frame.f_code.co_code[trace.tb_lasti] == RAISE


def attempt(name: str, call: Callable[[], Any]) -> Any:
    """Return what a call gives, or `Refused` where it is refused.

    Raises:
        RawError: anything else was raised.
    """
    TALLY["calls"] += 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return call()
        except Exception as error:
            if is_ours(error):
                TALLY["refused"] += 1
                return Refused(error)
            raise RawError(f"{name}: {type(error).__name__}: {str(error)[:300]}") from error


def repeat(name: str, call: Callable[[], Any]) -> Any:
    """Return what a call gives, having found that it gives the same again."""
    first, second = attempt(name, call), attempt(name, call)
    if isinstance(first, Refused) != isinstance(second, Refused):
        raise Insane(f"{name}: {first!r:.200} at first, then {second!r:.200}")
    if not isinstance(first, Refused):
        expect_same(name, first, second)
    return first


def expect_same(name: str, first: Any, second: Any) -> None:
    """Raise `Insane` where two results differ in any digit."""
    if isinstance(first, Mapping):
        if first.keys() != second.keys():
            raise Insane(f"{name}: {list(first)} at first, then {list(second)}")
        for key in first:
            expect_same(f"{name}[{key!r}]", first[key], second[key])
    elif isinstance(first, Tensor) and not (
        first.shape == second.shape and torch.equal(torch.nan_to_num(first), torch.nan_to_num(second))
    ):
        raise Insane(f"{name}: two calls gave different numbers")


def expect(name: str, value: Tensor, shape: tuple[int, ...], inside: Tensor | None = None) -> None:
    """Raise `Insane` unless a tensor has a shape, and finite numbers exactly where `inside` says (everywhere if None).

    Args:
        name: of what is looked at.
        value: any tensor of real numbers.
        shape: that it should have.
        inside: booleans that broadcast against `value`; outside of them NaN is expected.
    """
    if tuple(value.shape) != shape:
        raise Insane(f"{name}: shape {tuple(value.shape)}, expected {shape}")
    if value.requires_grad:
        raise Insane(f"{name}: the result requires grad")
    there = torch.ones(shape, dtype=torch.bool) if inside is None else inside.expand(shape)
    if not bool(value[there].isfinite().all()):
        found = value[there]
        raise Insane(f"{name}: {int((~found.isfinite()).sum())} of {found.numel()} numbers are not finite")
    if not bool(value[~there].isnan().all()):
        raise Insane(f"{name}: padding holds numbers")


def as_numbers(value: Any) -> Any:
    """Return arrays as tensors, so that results of every kind are looked at alike."""
    return torch.as_tensor(np.asarray(value)) if isinstance(value, np.ndarray | float | int) else value
