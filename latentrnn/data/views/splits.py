"""Which sequences go to training, validation and test."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from latentrnn.data.ingest.names import check_known
from latentrnn.data.record import SequenceRecord
from latentrnn.support.arguments import is_integer, is_number

Fractions = tuple[float, float, float]
PARTS = ("train", "valid", "test")


def read_fractions(train: float, valid: float, test: float) -> Fractions:
    """The three fractions, all positive and adding up to 1.

    Raises:
        TypeError: one is not a number.
        ValueError: they are out of range, or do not add up.
    """
    for name, fraction in zip(PARTS, (train, valid, test), strict=True):
        if not is_number(fraction):
            raise TypeError(f"{name}: expected a fraction, found {fraction!r}")
        if not fraction > 0 or not math.isfinite(fraction):
            raise ValueError(f"{name}: expected a fraction above 0, so that no part is empty, found {fraction!r}")
    if not math.isclose(train + valid + test, 1.0, abs_tol=1e-6):
        raise ValueError(f"split: expected fractions that add up to 1, found {train} + {valid} + {test}")
    return float(train), float(valid), float(test)


def read_strata(data: SequenceRecord, stratify: Any) -> NDArray[np.int64]:
    """One whole number per sequence, equal for equal labels; sequences with a missing label are a stratum."""
    if isinstance(stratify, str) and stratify in data.metadata:
        return strata_of(data.metadata[stratify], len(data))
    if isinstance(stratify, str):
        known = [*data.observations, *data.metadata]
        check_known("stratify", [stratify], known, "an observation head or metadata")
        head = data.spec.heads[stratify]
        if head.per_step or head.channels != 1:
            found = f"{head.channels} channels" + (", per step" if head.per_step else "")
            raise ValueError(f"stratify: expected a per-sequence head with one channel, found {stratify!r} ({found})")
        values = data.observations[stratify][:, 0].cpu().numpy().astype(np.float64)
        labels = np.where(data.masks[stratify][:, 0].cpu().numpy(), values, np.nan)
        return strata_of(labels, len(data))
    return strata_of(stratify, len(data))


def strata_of(stratify: Any, count: int) -> NDArray[np.int64]:
    """One whole number per sequence, equal for equal labels; missing ones (NaN, None, NaT, pd.NA) are equal.

    Raises:
        TypeError: labels that cannot be told apart from each other, such as lists.
        ValueError: not one label per sequence.
    """
    try:
        labels = np.asarray(stratify.cpu() if isinstance(stratify, torch.Tensor) else stratify)
    except ValueError as error:
        raise ValueError(f"stratify: expected {count} labels, one per sequence, found lists of them") from error
    except (TypeError, NotImplementedError):  # sparse; on the device meta
        raise TypeError(f"stratify: expected {count} labels, one per sequence, found {stratify!r:.80}") from None
    if labels.shape != (count,):
        raise ValueError(f"stratify: expected {count} labels, one per sequence, found shape {labels.shape}")
    if labels.dtype == object:
        labels = _comparable(labels.tolist())
    return np.asarray(np.unique(labels, return_inverse=True)[1], dtype=np.int64)


def _comparable(items: list[Any]) -> NDArray[Any]:
    """Python objects as labels that can be sorted: as what they print, where some are missing or of another type."""
    if any(isinstance(item, list | dict | set | np.ndarray) for item in items):
        raise TypeError(f"stratify: expected numbers or strings as labels, found {items!r:.80}")
    missing = [item is None or type(item).__name__ in ("NAType", "NaTType") or item != item for item in items]
    if not any(missing) and len({type(item) for item in items}) == 1 and not isinstance(items[0], tuple):
        return np.array(items)
    texts = [f"{type(item).__name__} {item}" for item in items]
    return np.array(["" if none else text for text, none in zip(texts, missing, strict=True)])


def assign(
    count: int, fractions: Fractions, seed: int | None, strata: NDArray[np.int64] | None
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Positions of the sequences of each part, in ascending order, at random by `seed`."""
    if count < 3:
        raise ValueError(f'split: expected at least 3 sequences, found {count}; along="time" cuts them in stretches')
    if seed is not None and (not is_integer(seed) or seed < 0):
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
