"""Variables of exported groups: which names the axes of draws have, and what is left out of them."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from latentrnn.inference.posterior.draws.stored_draws import Chains
from latentrnn.models.sites import parameter_site

if TYPE_CHECKING:
    from latentrnn.data import SequenceData

SAMPLE = ("chain", "draw")
# parameters of a head whose first axis is its outputs
_PER_OUTPUT = ("readout.weight", "readout.baseline", "readout.loading", "gain.beta", "covariate_weight")
_EXACT_INTEGER = 2**53  # beyond it, a float64 no longer tells neighbouring integers apart

Variable = tuple[tuple[Hashable, ...], np.ndarray]  # dims and values


def source() -> dict[str, str]:
    """Return who made a group, as its attributes: the names under which ArviZ looks for library and version."""
    return {"inference_library": "latentrnn", "inference_library_version": _version()}


def drawn_dataset(variables: Mapping[str, Variable], labelled: xr.Dataset, chains: Chains | None) -> xr.Dataset:
    """Return variables whose leading axis is the draws, chain by chain, with the data's coordinates on shared dims."""
    count = 1 if chains is None else chains.num_chains
    arrays = {
        name: ((*SAMPLE, *dims), values.reshape(count, -1, *values.shape[1:]))
        for name, (dims, values) in variables.items()
    }
    dataset = xr.Dataset(arrays)
    return dataset.assign_coords(
        {
            dim: labelled[dim].variable if dim in labelled.indexes else np.arange(size)
            for dim, size in dataset.sizes.items()
        }
    )


def of_sites(model: Any, sites: Mapping[str, Tensor]) -> dict[str, Variable]:
    """Name the axes of global sites: by the head's channels, as their components declare them, or as ArviZ does."""
    return {name: (_dims(model, name, values.shape[1:]), values.numpy()) for name, values in sites.items()}


def names_on_axes(model: Any, drawn: xr.Dataset) -> dict[str, list[str]]:
    """Name what parameters run over besides channels: features of covariates, channels again, tensors of networks."""
    # with other inputs beside covariates there are more of them than names, and they are counted
    found = {f"{parameter_site('transition', 'input_weight')}_input": model.features.names}
    for head, observation in model.observations.items():
        found[f"{parameter_site(head, 'correlation_factor')}_channel_before"] = list(observation.head.channel_names)
        if observation.covariates:
            found[f"{parameter_site(head, 'covariate_weight')}_feature"] = observation.reader.names
    known = {dim: names for dim, names in found.items() if drawn.sizes.get(dim) == len(names)}
    return known | _stimuli(model, drawn) | _tensors(model, drawn)


def _dims(model: Any, site: str, shape: tuple[int, ...]) -> tuple[str, ...]:
    """Return the names of a parameter's axes."""
    owner, declared = model.parameter_axes().get(site, ("", ()))
    if len(declared) != len(shape):
        declared = tuple(f"dim {axis}" for axis in range(len(shape)))
    dims = [f"{site}_{dim.replace(' ', '_')}" for dim in declared]
    if not dims or owner not in model.observations:
        return tuple(dims)
    of_outputs = site in [parameter_site(owner, path) for path in _PER_OUTPUT]
    per_channel = of_outputs and model.observations[owner].outputs_per_channel == 1
    if per_channel or (declared[0] == "channel" and shape[0] == model.spec.heads[owner].channels):
        dims[0] = f"{owner}_channel"
    if site == parameter_site(owner, "gain.beta"):
        dims[-1] = f"{owner}_stimulus"
    return tuple(dims)


def _tensors(model: Any, drawn: xr.Dataset) -> dict[str, list[str]]:
    """Name the tensors whose scales the sites of a `NetworkPrior` are."""
    scales = {group.site_of(part): names for group in model.networks.values() for part, names in group.names.items()}
    return {f"{site}_dim_0": names for site, names in scales.items() if f"{site}_dim_0" in drawn.dims}


def _stimuli(model: Any, drawn: xr.Dataset) -> dict[str, list[str]]:
    """Name what each head's gain listens to: the features of its stimulus, and with several lags how old they are."""
    named = {}
    for head, observation in model.observations.items():
        if observation.gain is None or f"{head}_stimulus" not in drawn.dims:
            continue
        features = model.spec.covariates[observation.gain.stimulus].feature_names
        lags = [f", {lag} ago" if lag else "" for lag in range(observation.gain.lags)]
        named[f"{head}_stimulus"] = [f"{feature}{lag}" for lag in lags for feature in features]
    return named


def of_latents(latents: Mapping[str, Tensor]) -> dict[str, Variable]:
    """Name the axes of the latents: (sample, sequence, time, dim), and no time for the initial state."""
    axes = {4: ("sequence", "time"), 3: ("sequence",)}
    return {name: ((*axes[values.dim()], f"{name}_dim"), values.numpy()) for name, values in latents.items()}


def of_replicates(
    data: SequenceData, heads: Mapping[str, Tensor], whole: set[str], labelled: xr.Dataset
) -> dict[str, Variable]:
    """Name the axes of the replicates as the observed heads' are, and remove what is unobserved there."""
    variables: dict[str, Variable] = {}
    for name, values in heads.items():
        if name in whole:
            values = values.to(torch.int64)
        else:
            values = values.masked_fill(~data.masks[name], torch.nan)
        variables[name] = (labelled[name].dims, values.numpy())
    return variables


def observed(labelled: xr.Dataset, heads: Iterable[str], whole: Iterable[str]) -> xr.Dataset:
    """Return the recorded values of the heads that are modelled, some as whole numbers."""
    # az.plot_ppc pairs every observed variable with its replicates
    found = labelled.reset_coords()[list(heads)]
    return found.assign({head: found[head].astype(np.int64) for head in whole})


def is_whole(data: SequenceData, head: str) -> bool:
    """Whether a head is observed everywhere and holds whole numbers."""
    return bool(data.masks[head].all()) and are_whole(data.observations[head])


def are_whole(values: Tensor) -> bool:
    """Whether all numbers of a tensor of any shape are whole, and small enough for a double to tell neighbours apart.

    NaN and infinity are not.
    """
    return bool(((values == values.round()) & (values.abs() < _EXACT_INTEGER)).all())


def constants(data: SequenceData, heads: list[str], labelled: xr.Dataset) -> xr.Dataset:
    """Return what the model conditions on: covariates, totals, lengths, masks and the step."""
    constants = labelled.reset_coords().drop_vars(list(data.observations))
    ours: dict[str, Any] = {f"{name}_mask": (labelled[name].dims, data.masks[name].numpy()) for name in heads}
    if data.spec.dt is not None:
        ours["dt"] = ((), np.asarray(data.spec.dt), {"units": "s"})
    return constants.assign(ours).drop_attrs(deep=False)


def _version() -> str:
    try:
        return version("latentrnn")
    except PackageNotFoundError:
        return "unknown"  # run from a source tree that is not installed
