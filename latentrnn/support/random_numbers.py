"""Seeds without global state."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor

from latentrnn.support.arguments import check_seed
from latentrnn.support.isolation import isolation

T = TypeVar("T")


class RandomNumbers:
    """Random numbers of one's own: each block goes on where the last one ended, whatever was drawn in between.

    Torch's generators are one set for all of a process. Within a block they are where these numbers have got to, and
    no other thread computes (see `isolation`); after it they are as they were.

    Args:
        seed: of the numbers.
        device: where they are drawn, besides the CPU.
    """

    def __init__(self, seed: int, device: torch.device | str = "cpu") -> None:
        device, seed = torch.device(device), check_seed("random numbers", seed)
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
