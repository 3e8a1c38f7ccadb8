"""Data sets in the files that lfads-torch reads, those of the Neural Latents Benchmark among them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latentrnn.data import SequenceData
from latentrnn.support.shown import shown

PARTS = ("train", "valid", "test")
REQUIRED = ("encod_data", "recon_data")


def lfads_file(path: str | os.PathLike[str], *, dt: float) -> SequenceData:
    """Read a data set of lfads-torch: HDF5 with `train_encod_data`, `train_recon_data`, `valid_...`, `test_...`.

    All trials become one data set, with the metadata `part`: `data.where(part="train")`. Counts that the encoder may
    see are the head `heldin`; channels of `recon_data` beyond them are `heldout`, and where `recon_data` has more
    steps, in which nothing may be seen, what comes of the first channels there is `heldin_forward` (all heads have all
    steps, unobserved where they are not told). `ext_input` is a covariate of this name, and `behavior` a head.

    Args:
        path: of the file.
        dt: seconds per bin, which the file does not say.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it holds no such arrays, or arrays that do not go together.

    References:
        A. Sedler, C. Pandarinath (2023), lfads-torch: a modular and extensible implementation of latent factor analysis
        via dynamical systems. F. Pei et al. (2021), Neural Latents Benchmark '21: evaluating latent variable models of
        neural population activity.
    """
    import h5py

    where = Path(path)
    if not where.is_file():
        raise FileNotFoundError(f"lfads_file: no file {where}")
    with h5py.File(where) as file:
        arrays = {str(name): np.asarray(item[()]) for name, item in file.items() if isinstance(item, h5py.Dataset)}
    there = [part for part in PARTS if f"{part}_encod_data" in arrays]
    if not there:
        raise ValueError(
            f"lfads_file: expected {PARTS[0]}_encod_data in {where.name}, found {shown(sorted(arrays), 200)}"
        )
    counts = [_counts(arrays, part) for part in there]
    seen_channels, channels = counts[0][0].shape[2], counts[0][1].shape[2]
    shapes = [(seen.shape[1:], recon.shape[1:]) for seen, recon in counts]
    if len(set(shapes)) > 1:
        raise ValueError(f"lfads_file: expected parts alike in steps and channels, found {shapes}")
    recon = np.concatenate([recon for _, recon in counts])
    steps, seen_steps = recon.shape[1], counts[0][0].shape[1]
    inside = np.arange(steps)[:, None] < seen_steps
    heads: dict[str, Any] = {"heldin": np.where(inside, recon[..., :seen_channels], np.nan)}
    if channels > seen_channels:
        heads["heldout"] = recon[..., seen_channels:]
    if steps > seen_steps:
        heads["heldin_forward"] = np.where(inside, np.nan, recon[..., :seen_channels])
    if (behaviour := _joined(arrays, there, "behavior", steps)) is not None:
        heads["behavior"] = behaviour
    given = _joined(arrays, there, "ext_input", steps)
    if given is not None and np.isnan(given).any():
        raise ValueError(f"lfads_file: expected ext_input at all of {steps} steps, found {seen_steps}")
    sizes = [len(seen) for seen, _ in counts]
    return SequenceData.from_arrays(
        heads,
        None if given is None else {"ext_input": given},
        dt=dt,
        sequence_names=[f"{part}/{row}" for part, size in zip(there, sizes, strict=True) for row in range(size)],
        metadata={"part": np.repeat(there, sizes)},
    )


def _counts(arrays: dict[str, NDArray[Any]], part: str) -> tuple[NDArray[Any], NDArray[Any]]:
    """What an encoder sees of a part, and what is to be reconstructed; the first is the beginning of the second."""
    for name in REQUIRED:
        array = arrays.get(f"{part}_{name}")
        if array is None or array.ndim != 3:
            found = "none" if array is None else f"shape {array.shape}"
            raise ValueError(f"lfads_file: expected {part}_{name} (trial, step, channel), found {found}")
    seen, recon = (arrays[f"{part}_{name}"].astype(np.float64) for name in REQUIRED)
    steps, channels = seen.shape[1:]
    if len(seen) != len(recon) or steps > recon.shape[1] or channels > recon.shape[2]:
        raise ValueError(
            f"lfads_file: expected {part}_encod_data {seen.shape} to be the beginning of {part}_recon_data, found "
            f"{recon.shape}"
        )
    if not np.array_equal(seen, recon[:, :steps, :channels], equal_nan=True):
        raise ValueError(
            f"lfads_file: expected {part}_encod_data to be the first steps and channels of {part}_recon_data, found "
            "other values"
        )
    return seen, recon


def _joined(arrays: dict[str, NDArray[Any]], parts: list[str], name: str, steps: int) -> NDArray[Any] | None:
    """An array of all parts, NaN beyond its last step; None where a file has none."""
    found = [arrays.get(f"{part}_{name}") for part in parts]
    given = [array for array in found if array is not None]
    if not given:
        return None
    width = given[0].shape[-1]
    full = []
    for part, array in zip(parts, found, strict=True):
        if array is None:
            array = np.full((len(arrays[f"{part}_encod_data"]), 0, width), np.nan)
        if array.ndim != 3 or array.shape[1] > steps or array.shape[2] != width:
            raise ValueError(f"lfads_file: expected {part}_{name} (trial, step, {width}), found shape {array.shape}")
        full.append(
            np.pad(array.astype(np.float64), ((0, 0), (0, steps - array.shape[1]), (0, 0)), constant_values=np.nan)
        )
    return np.concatenate(full)
