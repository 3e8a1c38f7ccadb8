"""What is found of a posterior as labelled xarray datasets: the same dimensions and coordinates throughout."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from latentrnn.data import SequenceData
from latentrnn.inference.posterior.posterior import Posterior
from latentrnn.inference.sampling.ensemble_posterior import EnsemblePosterior
from latentrnn.support.arguments import check_size

if TYPE_CHECKING:
    import xarray

AnyPosterior: TypeAlias = Posterior | EnsemblePosterior
Variable: TypeAlias = tuple[Sequence[str], Tensor | np.ndarray[Any, Any]]


def labelled(
    data: SequenceData,
    variables: Mapping[str, Variable],
    *,
    coords: Mapping[str, Any] | None = None,
    attributes: Mapping[str, Any] | None = None,
) -> xarray.Dataset:
    """Return arrays with names on their axes; sequences and time are labelled as in `data.to_xarray()`.

    Args:
        data: what the sequences are; "time" is its base clock.
        variables: name to its dims and values.
        coords: of other dims.
        attributes: of the dataset.
    """
    import xarray  # takes most of a second to import, which only those who ask should wait for

    known = data.to("cpu").to_xarray()
    dims = {dim for names, _ in variables.values() for dim in names}
    found: dict[str, Any] = {dim: known[dim] for dim in sorted(dims) if dim in known.coords}
    if dims >= {"sequence", "time"} and "seconds" in known.coords:
        found["seconds"] = known["seconds"]
    arrays = {
        name: (tuple(names), values.detach().cpu().numpy() if isinstance(values, Tensor) else values)
        for name, (names, values) in variables.items()
    }
    shared = {"time_unit": "step" if data.spec.dt is None else "s", **(attributes or {})}
    return xarray.Dataset(arrays, {**found, **(coords or {})}, shared)


def pooled(
    owner: str, posterior: AnyPosterior, num_samples: int, of_one: Callable[[Posterior, int], xarray.Dataset]
) -> xarray.Dataset:
    """Return what is found of a posterior; of an ensemble, its members' draws after one another, each saying whose.

    Where members have different sizes (units, fixed points), the smaller ones have NaN in the places that they lack.

    Args:
        owner: who asks, for error messages.
        posterior: of one model, or of an ensemble.
        num_samples: draws in all.
        of_one: of a posterior and a number of draws, a dataset with the dim "sample".

    Raises:
        TypeError: something that is no posterior.
        ValueError: no draws, members of which not all can be asked this, or in which different things are found.
    """
    check_size(owner, "num_samples", num_samples)
    if isinstance(posterior, Posterior):
        return of_one(posterior, num_samples)
    if not isinstance(posterior, EnsemblePosterior):
        raise TypeError(f"{owner}: expected a posterior; found {type(posterior).__name__}")
    import xarray

    members = posterior.members_of_draws(num_samples)
    parts = [
        of_one(member, count)
        for number, member in enumerate(posterior.posteriors)
        if (count := int((members == number).sum()))
    ]
    parts = _alike(owner, parts)
    joined = xarray.concat(parts, "sample", join="outer", combine_attrs="override", data_vars="minimal")
    return joined.assign_coords(member=("sample", members.sort().values.numpy()))


def _alike(owner: str, parts: Sequence[xarray.Dataset]) -> list[xarray.Dataset]:
    """Return datasets of the same sizes along all dims but "sample"; those with labels are joined by these later."""
    names = [sorted(map(str, part.data_vars)) for part in parts]
    if any(found != names[0] for found in names):
        told = "; ".join(", ".join(found) for found in names)
        raise ValueError(f"{owner}: members of the ensemble have different variables ({told}); ask `posteriors` singly")
    plain = {dim for part in parts for dim in part.dims if dim not in part.coords} - {"sample"}
    most = {dim: max(part.sizes[dim] for part in parts) for dim in plain}
    lacking = [{dim: (0, size - part.sizes[dim]) for dim, size in most.items()} for part in parts]
    return [
        part.pad(lacks) if any(after for _, after in lacks.values()) else part
        for part, lacks in zip(parts, lacking, strict=True)
    ]


def in_rows(parts: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Return tensors (sample, sequence, ...) of chunks of the sequences put together, on the CPU."""
    return {name: torch.cat([part[name].detach().cpu() for part in parts], 1) for name in parts[0]}


def without_padding(value: Tensor, data: SequenceData) -> Tensor:
    """Return (sample, sequence, time, ...) with NaN in padding."""
    valid = data.valid.to(value.device).reshape(*data.valid.shape, *[1] * (value.dim() - 3))
    return torch.where(valid, value, torch.nan)
