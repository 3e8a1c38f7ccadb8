"""Location and scale of heads and covariates, stored at ingestion and applied by the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from latentrnn.data.ingest.arrays import Array
from latentrnn.data.ingest.plain_numbers import to_numpy

Pair = tuple[tuple[float, ...], tuple[float, ...]]


def standardisation(
    where: str,
    name: str,
    standardise: Sequence[str] | Mapping[str, tuple[Any, Any]],
    channel_names: tuple[str, ...],
    values: list[Array],
    masks: list[Array],
) -> Pair:
    """Location and scale per channel of one head or covariate that is to be standardised.

    Raises:
        ValueError: when a channel is constant or never observed, or a given scale is not positive.
    """
    if isinstance(standardise, Mapping):
        return _given(name, standardise[name], len(channel_names))
    location, scale = [], []
    for channel, label in enumerate(channel_names):
        seen = np.concatenate([v[m[:, channel], channel] for v, m in zip(values, masks, strict=True)])
        seen = seen.astype(np.float64)
        if seen.size == 0:
            raise ValueError(f"standardise: expected observed values in {where}, channel {label!r}, found none")
        if seen.min() == seen.max():
            raise ValueError(
                f"standardise: expected values that vary in {where}, channel {label!r}, found only {seen[0]:g}; "
                "leave the channel out, or give (location, scale)"
            )
        location.append(float(seen.mean()))
        scale.append(float(seen.std()))
    return tuple(location), tuple(scale)


def _given(name: str, pair: Any, channels: int) -> Pair:
    where = f"standardise[{name!r}]"
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        raise TypeError(f"{where}: expected (location, scale), found {pair!r}")
    read = []
    for label, value in zip(("location", "scale"), pair, strict=True):
        array = to_numpy(f"{where}, {label}", value).astype(np.float64)
        if array.shape not in ((), (channels,)):
            raise ValueError(f"{where}: expected a {label} or one for each of {channels} channels, found {value!r}")
        if not np.isfinite(array).all() or (label == "scale" and not (array > 0).all()):
            expected = "positive and finite" if label == "scale" else "finite"
            raise ValueError(f"{where}: expected {label} to be {expected}, found {value!r}")
        read.append(tuple(float(item) for item in np.broadcast_to(array, (channels,))))
    return read[0], read[1]
