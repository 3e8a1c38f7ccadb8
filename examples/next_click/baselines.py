"""Markov chains of any order, smoothed by those of lower orders."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from examples.simulate import Array

GRID = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)


class MarkovChain:
    """p_k(y | last k) = (n(last k, y) + a_k p_{k-1}(y | last k - 1)) / (n(last k) + a_k), p_{-1} uniform.

    Before the first click lies a symbol of its own, so that the start of a visit is a context too.

    Args:
        sequences: that are counted, of codes 0 to symbols - 1.
        symbols: their number.
        smoothing: a_0, ..., a_k, as many as the order and one more.

    References:
        MacKay, Peto. A hierarchical Dirichlet language model. 1995.
    """

    def __init__(self, sequences: Sequence[NDArray[np.int_]], symbols: int, smoothing: Sequence[float]) -> None:
        self.symbols, self.smoothing, self.order = symbols, tuple(smoothing), len(smoothing) - 1
        self.counts = [defaultdict[tuple[int, ...], Array](lambda: np.zeros(symbols)) for _ in self.smoothing]
        for sequence in sequences:
            for past, code in self._pasts(sequence):
                for k, counts in enumerate(self.counts):
                    counts[past[len(past) - k :]][code] += 1

    @property
    def parameters(self) -> int:
        """Free probabilities of a chain of this order."""
        return int(self.symbols**self.order * (self.symbols - 1))

    def log_prob(self, sequence: NDArray[np.int_]) -> Array:
        """Return log p(y_t | y_{<t}), nats, (click,)."""
        found = []
        for past, code in self._pasts(sequence):
            probability = 1.0 / self.symbols
            for k, (counts, weight) in enumerate(zip(self.counts, self.smoothing, strict=True)):
                if (seen := counts.get(past[len(past) - k :])) is None:
                    break  # nor has any longer context been seen
                probability = (seen[code] + weight * probability) / (seen.sum() + weight)
            found.append(np.log(probability))
        return np.array(found)

    def _pasts(self, sequence: NDArray[np.int_]) -> list[tuple[tuple[int, ...], int]]:
        padded = (self.symbols,) * self.order + tuple(int(code) for code in sequence)
        return [(padded[t - self.order : t], padded[t]) for t in range(self.order, len(padded))]


def bits(chain: MarkovChain, sequences: Sequence[NDArray[np.int_]]) -> float:
    """Return bits per click."""
    return -float(np.concatenate([chain.log_prob(sequence) for sequence in sequences]).mean() / np.log(2))


def chains(
    train: Sequence[NDArray[np.int_]], validation: Sequence[NDArray[np.int_]], symbols: int, orders: int
) -> list[MarkovChain]:
    """Return chains of orders 0, 1, ..., each smoothed as validation sequences say, and otherwise as the one before."""
    found: list[MarkovChain] = []
    for _ in range(orders + 1):
        before = found[-1].smoothing if found else ()
        tried = [MarkovChain(train, symbols, (*before, weight)) for weight in GRID]
        found.append(min(tried, key=lambda chain: bits(chain, validation)))
    return found
