"""A posterior written to a file part by part: draws that together do not fit in memory."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from latentrnn.export.settings import check_posterior, checked
from latentrnn.inference.posterior.draws.predictions import Chunk
from latentrnn.inference.sampling.ensemble_posterior import EnsemblePosterior
from latentrnn.support.arguments import check_path
from latentrnn.support.shortcuts import provides_shortcut

if TYPE_CHECKING:
    from latentrnn.export.groups import SmallGroups
    from latentrnn.inference.posterior.posterior import Posterior

_SAMPLE = ("chain", "draw")
LATENTS = "latents"  # the group, see `groups.py`, whose import takes xarray's time


@provides_shortcut
def to_netcdf(
    posterior: Posterior | EnsemblePosterior,
    path: str | os.PathLike[str],
    *,
    num_samples: int | None = None,
    num_particles: int = 64,
    prior_predictive: bool = True,
    latents: bool = True,
    weights: bool = True,
    pointwise: Literal["one_step_ahead"] | None = None,
    seed: int | None = None,
) -> Path:
    """Write the groups of `to_arviz` to a netCDF file, draws part by part; `arviz.from_netcdf` reads it.

    The numbers are those of `to_arviz`. Memory is that of the data and of one part of the draws, which the
    posterior's `max_elements` and `window` bound.

    Args:
        posterior: what `FitResult.posterior(data)` returned.
        path: of the file, which is written over.
        num_samples, num_particles, prior_predictive, latents, weights, pointwise, seed: see `to_arviz`.

    Returns:
        The path.

    Raises:
        FileNotFoundError: there is no such folder; nothing was drawn yet.
        IsADirectoryError: the path is a folder.
        ValueError: a count below one.
        TypeError: something else than a posterior.
    """
    check_posterior("to_netcdf", posterior)
    settings = checked("to_netcdf", num_samples, num_particles, prior_predictive, latents, weights, pointwise, seed)
    path, seed = check_path("to_netcdf", path), settings["seed"]
    import h5netcdf  # only those who export should wait for it

    from latentrnn.export.groups import small_groups

    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path}: there is no folder {path.parent} to write to; make it first")
    if path.is_dir():
        raise IsADirectoryError(f"{path}: expected a file to write; found a folder")
    posterior = posterior if seed is None else posterior.reseeded(seed)
    latents = settings["latents"]
    replicates = ["posterior_predictive", *(["prior_predictive"] if settings["prior_predictive"] else [])]
    small = small_groups(
        posterior,
        num_samples=settings["num_samples"],
        num_particles=settings["num_particles"],
        latents=latents,
        weights=settings["weights"],
        drawn=replicates,
        pointwise=settings["pointwise"],
    )
    path.unlink(missing_ok=True)
    for name, dataset in small.groups.items():
        dataset.to_netcdf(path, mode="a", group=name, engine="h5netcdf")
    drawn: dict[str, Iterable[Chunk]] = {}
    if latents and not isinstance(posterior, EnsemblePosterior):
        drawn[LATENTS] = posterior.latent_parts(small.num_samples)
    for name in replicates:
        drawn[name] = posterior.replicate_parts(small.num_samples, prior=name == "prior_predictive")
    for group, chunks in drawn.items():
        with h5netcdf.File(path, "a") as file:
            for chunk in chunks:
                _write_chunk(file.groups[group], posterior, small, group, chunk)
    return path


def _write_chunk(
    where: Any, posterior: Posterior | EnsemblePosterior, small: SmallGroups, group: str, chunk: Chunk
) -> None:
    name, value, index, clock = chunk
    steps = [] if clock is None else [posterior.data.num_steps // clock]
    first = 0 if clock is None else index.steps.start // clock
    if group == LATENTS:
        dims: tuple[Any, ...] = ("sequence", *["time" for _ in steps], f"{name}_dim")
    else:
        dims = small.labelled[name].dims
        mask = posterior.data.masks[name].to("cpu")[index.rows]
        if steps:
            mask = mask[:, first : first + value.shape[2]]
        value = value.round().long() if name in small.whole else value.masked_fill(~mask, torch.nan)
    values = value.numpy()
    shape = [len(posterior.data), *steps, *values.shape[2 + len(steps) :]]
    if name not in where.variables:
        _make(where, small, name, dims, shape, values.dtype)
    target, per_chain = where.variables[name], small.num_samples // small.num_chains
    across = [index.rows, *[slice(first, first + values.shape[2]) for _ in steps]]
    for chain in range(small.num_chains):
        start, stop = chain * per_chain, (chain + 1) * per_chain
        low, high = max(start, index.samples.start), min(stop, index.samples.stop)
        if low < high:
            offset = index.samples.start
            target[(chain, slice(low - start, high - start), *across)] = values[low - offset : high - offset]


def _make(where: Any, small: SmallGroups, name: str, dims: tuple[Any, ...], shape: list[int], dtype: Any) -> None:
    """Make a variable, with the dimensions that are not there yet."""
    draws = small.num_chains, small.num_samples // small.num_chains
    for dim, size in zip((*_SAMPLE, *dims), (*draws, *shape), strict=True):
        if dim not in where.dimensions:
            where.dimensions[dim] = size
        if dim not in where.variables:
            where.create_variable(dim, (dim,), np.int64, data=np.arange(size))
    fill = {"fillvalue": np.array(np.nan, dtype)[()]} if dtype.kind == "f" else {}
    where.create_variable(name, (*_SAMPLE, *dims), dtype, **fill)
