"""Functions that `torch.compile` leaves alone."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import torch

from latentrnn.support.private_symbols import never_traced

P = ParamSpec("P")
R = TypeVar("R")


def uncompiled(function: Callable[P, R]) -> Callable[P, R]:
    """Do as `torch.compiler.disable`, whose import of the compiler takes as long as that of all of torch.

    Until a program compiles something there is nothing to disable, and the function is called as it is.

    Example:
        >>> uncompiled(max)(1, 2)
        2
    """
    disabled: list[Callable[..., Any]] = []

    @functools.wraps(function)
    def alone(*args: P.args, **kwargs: P.kwargs) -> R:
        if "torch._dynamo" not in sys.modules:
            return function(*args, **kwargs)
        if not disabled:
            disabled.append(torch.compiler.disable(function))
        return disabled[0](*args, **kwargs)  # type: ignore[no-any-return]

    never_traced(alone)
    return alone
