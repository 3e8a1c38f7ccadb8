"""Which sequences go to training, validation and test."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from latentrnn.data.names import check_known

if TYPE_CHECKING:
    from latentrnn.data.sequence_data import SequenceData

Fractions = tuple[float, float, float]
PARTS = ("train", "valid", "test")


def read_fractions(train: float, valid: float, test: float) -> Fractions:
    """The three fractions, all positive and adding up to 1.

    Raises:
        TypeError: one is not a number.
        ValueError: they are out of range, or do not add up.
    """
    for name, fraction in zip(PARTS, (train, valid, test), strict=True):
        if isinstance(fraction, bool) or not isinstance(fraction, int | float | np.number):
            raise TypeError(f"{name}: expected a fraction, found {fraction!r}")
        if not fraction > 0 or not math.isfinite(fraction):
            raise ValueError(f"{name}: expected a fraction above 0, so that no part is empty, found {fraction!r}")
    if not math.isclose(train + valid + test, 1.0, abs_tol=1e-6):
        raise ValueError(f"split: expected fractions that add up to 1, found {train} + {valid} + {test}")
    return float(train), float(valid), float(test)


def read_strata(data: SequenceData, stratify: Any) -> NDArray[np.int64]:
    """One whole number per sequence, equal for equal labels; sequences with a missing label are a stratum."""
    if isinstance(stratify, str):
        check_known("stratify", [stratify], data.observations, "an observation head")
        head = data.spec.heads[stratify]
        if head.per_step or head.channels != 1:
            found = f"{head.channels} channels" + (", per step" if head.per_step else "")
            raise ValueError(f"stratify: expected a per-sequence head with one channel, found {stratify!r} ({found})")
        values = data.observations[stratify][:, 0].cpu().numpy().astype(np.float64)
        labels = np.where(data.masks[stratify][:, 0].cpu().numpy(), values, np.nan)
    else:
        labels = np.asarray(stratify.cpu() if isinstance(stratify, torch.Tensor) else stratify)
        if labels.shape != (len(data),):
            raise ValueError(f"stratify: expected {len(data)} labels, one per sequence, found shape {labels.shape}")
    return np.asarray(np.unique(labels, return_inverse=True)[1], dtype=np.int64)


def assign(
    count: int, fractions: Fractions, seed: int | None, strata: NDArray[np.int64] | None
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Positions of the sequences of each part, in ascending order, at random by `seed`."""
    if count < 3:
        raise ValueError(f'split: expected at least 3 sequences, found {count}; along="time" cuts them in stretches')
    if seed is not None and (isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0):
        raise ValueError(f"seed: expected a whole number from 0 up, found {seed!r}")
    random = np.random.default_rng(seed)
    order = random.permutation(count)
    if strata is None:
        parts = np.repeat(np.arange(3), _sizes(count, fractions))
    else:
        groups = random.permutation(strata.max() + 1)
        order = order[np.argsort(groups[strata[order]], kind="stable")]
        parts = _in_turn(count, fractions)
    chosen = [np.sort(order[parts == part]) for part in range(3)]
    for name, fraction, part in zip(PARTS, fractions, chosen, strict=True):
        if len(part) == 0:
            raise ValueError(f"{name}: expected at least one sequence, found none for {fraction:g} of {count}")
    return chosen[0], chosen[1], chosen[2]


def _sizes(count: int, fractions: Fractions) -> list[int]:
    """Sizes by largest remainder, none of them zero."""
    shares = [fraction * count for fraction in fractions]
    sizes = [math.floor(share + 1e-9) for share in shares]
    for part in sorted(range(3), key=lambda part: sizes[part] - shares[part])[: count - sum(sizes)]:
        sizes[part] += 1
    while 0 in sizes:
        sizes[sizes.index(max(sizes))] -= 1
        sizes[sizes.index(0)] += 1
    return sizes


def _in_turn(count: int, fractions: Fractions) -> NDArray[np.int64]:
    """Parts in an order of which every stretch, so every stratum, has nearly the fractions (largest deficit next)."""
    parts, given = np.empty(count, dtype=np.int64), np.zeros(3)
    for position in range(count):
        part = int(np.argmax(np.array(fractions) * (position + 1) - given))
        parts[position] = part
        given[part] += 1
    return parts
