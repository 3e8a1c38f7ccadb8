"""The data as a labelled xarray dataset, for looking at it and for saving it as netCDF."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from latentrnn.data.record import SequenceRecord
from latentrnn.support.clock import step_length

if TYPE_CHECKING:
    import xarray


def to_xarray(data: SequenceRecord) -> xarray.Dataset:
    """Observations, covariates and totals with named axes; NaN where unobserved and in padding."""
    # importing xarray takes most of a second, which only those who export should wait for
    import xarray

    unit = step_length(data.spec.dt)
    units = "step" if data.spec.dt is None else "s"
    coords: dict[str, Any] = {
        "sequence": ("sequence", list(data.names)),
        "time": ("time", np.arange(data.num_steps) * unit, {"units": units}),
        "num_steps": ("sequence", data.host_lengths, {"long_name": "base steps of the sequence"}),
        "context_steps": ("sequence", data.host_context, {"long_name": "leading base steps that are not scored"}),
    }
    variables: dict[str, Any] = {}
    if data.times is not None:
        stamps = np.where(_numpy(data.valid), _numpy(data.times), np.nan)
        coords["seconds"] = (("sequence", "time"), stamps, {"units": "s"})
    for name, head in data.spec.heads.items():
        values = np.where(_numpy(data.masks[name]), _numpy(data.observations[name]), np.nan)
        coords[f"{name}_channel"] = (f"{name}_channel", list(head.channel_names))
        levels = {} if head.levels is None else {"levels": json.dumps(head.levels)}  # files hold no nested lists
        if not head.per_step:
            variables[name] = (("sequence", f"{name}_channel"), values, levels)
            continue
        time = "time"
        if head.clock > 1:
            time = f"{name}_time"
            start = np.arange(values.shape[1]) * head.clock * unit
            coords[time] = (time, start, {"units": units, "long_name": f"start of frames of {head.clock} steps"})
        variables[name] = (("sequence", time, f"{name}_channel"), values, levels)
        if name in data.totals:
            inside = np.arange(values.shape[1]) < (data.host_lengths // head.clock)[:, None]
            variables[f"{name}_total"] = (("sequence", time), np.where(inside, _numpy(data.totals[name]), np.nan))
    for name, covariate in data.spec.covariates.items():
        values = np.where(_numpy(data.valid)[..., None], _numpy(data.covariates[name]), np.nan)
        coords[f"{name}_feature"] = (f"{name}_feature", list(covariate.feature_names))
        variables[name] = (("sequence", "time", f"{name}_feature"), values)
    coords |= {name: ("sequence", values) for name, values in data.metadata.items()}
    if data.calendar is not None:
        coords["date"] = (("sequence", "time"), data.dates)
    attributes = {} if data.spec.dt is None else {"dt": data.spec.dt}
    return xarray.Dataset(variables, coords, attributes)


def _numpy(tensor: Tensor) -> np.ndarray[Any, Any]:
    return tensor.cpu().numpy()
