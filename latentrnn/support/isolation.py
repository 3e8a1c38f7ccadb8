"""Computations on their own: one at a time in a process, with torch as it is out of the box, and their random numbers.

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
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import wraps
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


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

    def __enter__(self) -> bool:
        """Hold the lock within the block, and say whether it is the outermost one."""
        self.lock.acquire()
        self.depth += 1
        return self.depth == 1

    def __exit__(self, *raised: object) -> None:
        self.depth -= 1
        self.lock.release()


_TURNS = _Turns()


@contextmanager
def isolation() -> Iterator[None]:
    """Compute alone within the block: other threads wait, and torch's modes are those that it starts with.

    Gradients are on; inference mode, autocast and default devices are off; the default type is float32. After the block
    everything is as the caller had it. Blocks may be nested: within another one, modes stay what they were made there.
    """
    with _TURNS as outermost:
        aside = _modes_to_set_aside() if outermost else []
        if not aside:
            yield
            return
        with ExitStack() as stack:
            for mode in aside:
                stack.enter_context(mode)
            yield


def _modes_to_set_aside() -> list[AbstractContextManager[object]]:
    """Return a block for each of torch's modes that is not as it starts with; most often there is none."""
    aside: list[AbstractContextManager[object]] = []
    if torch.is_inference_mode_enabled():
        aside.append(torch.inference_mode(False))
    if not torch.is_grad_enabled():
        aside.append(torch.enable_grad())
    aside += [torch.autocast(kind, enabled=False) for kind in ("cpu", "cuda") if torch.is_autocast_enabled(kind)]
    new = torch.empty(0)  # which tells both defaults, in a fraction of the time that torch takes to look one up
    # only where it is needed: a context of torch.device makes every call of torch slower
    if new.device.type != "cpu":
        aside.append(torch.device("cpu"))
    if new.dtype != torch.float32:
        aside.append(_single_precision())
    return aside


@contextmanager
def _single_precision() -> Iterator[None]:
    dtype = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        yield
    finally:
        torch.set_default_dtype(dtype)


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
        with _TURNS as outermost:
            aside = _modes_to_set_aside() if outermost else []
            if not aside:  # most often: written out, as every step online comes by here
                return function(*args, **kwargs)
            with ExitStack() as stack:
                for mode in aside:
                    stack.enter_context(mode)
                return function(*args, **kwargs)

    return alone


class RandomNumbers:
    """Random numbers of one's own: each block goes on where the last one ended, whatever was drawn in between.

    Torch's generators are one set for all of a process. Within a block they are where these numbers have got to, and
    no other thread computes (see `isolation`); after it they are as they were.

    Args:
        seed: of the numbers, which was checked where it was given.
        device: where they are drawn, besides the CPU.
    """

    def __init__(self, seed: int, device: torch.device | str = "cpu") -> None:
        device = torch.device(device)
        self.cuda: int | None = None
        if device.type == "cuda":
            self.cuda = torch.cuda.current_device() if device.index is None else device.index
        # from generators aside: torch.manual_seed would touch those of all devices, and leave them so
        self.states = [torch.Generator("cpu").manual_seed(seed).get_state()]
        if self.cuda is not None:
            self.states.append(torch.Generator(torch.device("cuda", self.cuda)).manual_seed(seed).get_state())

    def _states(self) -> list[Tensor]:
        states = [torch.get_rng_state()]
        return states if self.cuda is None else [*states, torch.cuda.get_rng_state(self.cuda)]

    def _set(self, states: list[Tensor]) -> None:
        torch.set_rng_state(states[0])
        if self.cuda is not None:
            torch.cuda.set_rng_state(states[1], self.cuda)

    @contextmanager
    def drawn(self) -> Iterator[None]:
        """Draw from them within the block."""
        with isolation():
            before = self._states()
            self._set(self.states)
            try:
                yield
            finally:
                self.states = self._states()
                self._set(before)

    def in_parts(self, make: Callable[[], Iterator[T]]) -> Iterator[T]:
        """Yield what an iterator yields, each part drawn in a block: in between, the caller has torch to itself.

        Gradients are off within. Iterators may be read in turns, or left before their end.
        """
        parts = make()
        done = object()
        try:
            while True:
                with self.drawn(), torch.no_grad():
                    part = next(parts, done)
                if part is done:
                    return
                yield part  # type: ignore[misc]
        finally:
            parts.close()  # type: ignore[attr-defined]


def generator(seed: int) -> torch.Generator:
    """Return a generator of its own on the CPU, from a seed that was checked."""
    return torch.Generator("cpu").manual_seed(seed)


@contextmanager
def random_state(seed: int, device: torch.device | str = "cpu") -> Iterator[None]:
    """Seed torch's generators inside the block, and put them back as they were after it.

    Meanwhile no other thread computes, and torch's modes are set aside; see `isolation`.
    """
    with RandomNumbers(seed, device).drawn():
        yield


@contextmanager
def matrix_products(precision: str | None) -> Iterator[None]:
    """Give float32 matrix products within the block torch's matmul precision; None leaves it as it is."""
    if precision is None:
        yield
        return
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
