"""Computations on their own: one at a time in a process, and with torch as it is out of the box.

Pyro's stack of handlers and torch's global generators belong to the whole process, so that two threads which draw at
the same time would take each other's numbers. Whatever uses them here holds one lock meanwhile. Torch's modes, on the
other hand (`no_grad`, `inference_mode`, `autocast`, the default device and type), are the caller's, and would change
what a computation makes in passing: they are set aside until it is done. What a computation sets itself meanwhile is
left to it: a block within a block only takes its turn again.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec("P")
R = TypeVar("R")


class _Turns:
    """A lock that a thread may take again while it has it, and that a forked process has for itself."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.depth = 0  # of blocks in one another, of the thread that has the lock
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._after_fork)

    def _after_fork(self) -> None:
        # the thread that held it may not exist on this side
        if self.lock.acquire(blocking=False):
            self.lock.release()
        else:
            self.lock, self.depth = threading.RLock(), 0

    @contextmanager
    def taken(self) -> Iterator[bool]:
        """Hold the lock within the block, and say whether it is the outermost one."""
        with self.lock:
            self.depth += 1
            try:
                yield self.depth == 1
            finally:
                self.depth -= 1


_TURNS = _Turns()


@contextmanager
def isolation() -> Iterator[None]:
    """Compute alone within the block: other threads wait, and torch's modes are those that it starts with.

    Gradients are on; inference mode, autocast and default devices are off; the default type is float32. After the block
    everything is as the caller had it. Blocks may be nested: within another one, modes stay what they were made there.
    """
    with _TURNS.taken() as outermost, ExitStack() as stack:
        if outermost:
            _set_modes_aside(stack)
        yield


def _set_modes_aside(stack: ExitStack) -> None:
    if torch.is_inference_mode_enabled():
        stack.enter_context(torch.inference_mode(False))
    if not torch.is_grad_enabled():
        stack.enter_context(torch.enable_grad())
    for kind in ("cpu", "cuda"):
        if torch.is_autocast_enabled(kind):
            stack.enter_context(torch.autocast(kind, enabled=False))
    # only where it is needed: a context of torch.device makes every call of torch slower
    if torch.get_default_device().type != "cpu":
        stack.enter_context(torch.device("cpu"))
    if (dtype := torch.get_default_dtype()) != torch.float32:
        torch.set_default_dtype(torch.float32)
        stack.callback(torch.set_default_dtype, dtype)


def isolated(function: Callable[P, R]) -> Callable[P, R]:
    """Run every call of a function in `isolation`.

    Example:
        >>> import torch
        >>> @isolated
        ... def slope(value):
        ...     (3 * value).backward()
        ...     return float(value.grad)
        >>> with torch.no_grad():
        ...     slope(torch.ones((), requires_grad=True))
        3.0
    """

    @wraps(function)
    def alone(*args: P.args, **kwargs: P.kwargs) -> R:
        with isolation():
            return function(*args, **kwargs)

    return alone
