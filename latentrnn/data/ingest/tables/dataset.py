"""A dataset of xarray, whose variables have axes and coordinates with names, as the arguments of `from_arrays`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from latentrnn.data.calendar import Calendar
from latentrnn.data.ingest.axes import axis_of, by_name
from latentrnn.data.ingest.plain_numbers import is_labelled
from latentrnn.data.ingest.seconds import SECONDS, read_dt
from latentrnn.data.ingest.tables.clock import read_clock
from latentrnn.data.ingest.tables.table import FromTable
from latentrnn.support.shown import shown

if TYPE_CHECKING:
    import pandas
    import xarray

OWN = ("sequence", "num_steps", "context_steps", "seconds", "date")  # coordinates that `to_xarray` writes


def read_dataset(dataset: Any, observations: Any, covariates: Any, *, dt: Any, sampling: str) -> FromTable:
    """Return the arguments of `from_arrays` that a dataset holds; those here are of `SequenceData.from_xarray`.

    Raises:
        TypeError: it is no dataset.
        ValueError: a variable is not there or has an axis of another name, or steps are not equally long.
    """
    if not hasattr(dataset, "data_vars") or not hasattr(dataset, "coords"):
        raise TypeError(f"from_xarray: expected an xarray.Dataset, found {type(dataset).__name__}")
    heads = _chosen("observations", observations, dataset)
    inputs = _chosen("covariates", covariates, dataset)
    chosen = {**heads, **inputs}
    names = _sequences(dataset, chosen)
    lengths = _lengths(dataset, len(names))
    single = [name for name, array in chosen.items() if _dim(array, name, "time") is None]
    read = {
        name: _read("observations" if name in heads else "covariates", name, array, name in single)
        for name, array in chosen.items()
    }
    base = _base_steps(chosen, single, heads)
    clocks = {
        name: round(base / array.sizes[_dim(array, name, "time")])
        for name, array in heads.items()
        if name not in single and array.sizes[_dim(array, name, "time")] < base
    }
    lengths = np.full(len(names), base) if lengths is None else lengths
    timing, calendar = _timing(dataset, chosen, lengths, clocks, dt, sampling, list(names))
    arrays = {
        "observations": {name: _cut(read[name].values, lengths, clocks.get(name, 1), name in single) for name in heads},
        "covariates": {name: _cut(read[name].values, lengths, 1, name in single) for name in inputs},
        "totals": {
            name: _cut(by_name("", name, dataset[f"{name}_total"], ("sequence", "time")).values, lengths, 1, False)
            for name in heads
            if f"{name}_total" in dataset and name not in single
        },
        **timing,
        "clocks": clocks,
        "per_sequence": single,
        "channel_names": {name: read[name].channels for name in heads if read[name].channels is not None},
        "feature_names": {name: read[name].channels for name in inputs if read[name].channels is not None},
        "sequence_names": names,
        "metadata": _metadata(dataset, chosen) or None,
    }
    return FromTable(arrays, {n: found for n, a in heads.items() if (found := _levels(n, a))}, calendar)


def _chosen(option: str, given: Any, dataset: xarray.Dataset) -> dict[str, Any]:
    if given is None:
        return {}
    named = {given: given} if isinstance(given, str) else given
    if not isinstance(named, Mapping):
        if not isinstance(named, Sequence) or not all(isinstance(name, str) for name in named):
            raise TypeError(
                f"{option}: expected names of variables, or a dict of head to variable, found {shown(given)}"
            )
        named = {name: name for name in named}
    for name, variable in named.items():
        if variable not in dataset.data_vars:
            known = list(dataset.data_vars)
            raise ValueError(
                f"{option}[{name!r}]: expected a variable among {shown(known, 200)}, found {shown(variable)}"
            )
    return {name: _renamed(dataset[variable], str(variable), name) for name, variable in named.items()}


def _renamed(array: Any, variable: str, name: str) -> Any:
    """An array whose axes of its own are called after the head."""
    own = {dim: f"{name}{dim.removeprefix(variable)}" for dim in array.dims if str(dim).startswith(f"{variable}_")}
    return array.rename(own) if variable != name and own else array


def _dim(array: Any, name: str, axis: str) -> Any:
    return next((dim for dim in array.dims if axis_of(str(dim), name) == axis), None)


def _read(kind: str, name: str, array: Any, single: bool) -> Any:
    """The array in the order (sequence, time, channel), with axes of one entry where it has none of that name."""
    assert is_labelled(array)
    if _dim(array, name, "sequence") is None:
        array = array.expand_dims("sequence")
    if _dim(array, name, "channel") is None:
        array = array.expand_dims({f"{name}_channel": [name]}, axis=-1)
    axes = ("sequence", "channel") if single else ("sequence", "time", "channel")
    named = by_name(f"{kind}[{name!r}]", name, array, axes)
    return named._replace(values=np.asarray(named.values.data))


def _levels(name: str, array: Any) -> tuple[tuple[str, ...], ...] | None:
    """What the values of each channel stand for, as `to_xarray` wrote it."""
    written = array.attrs.get("levels")
    if written is None:
        return None
    try:
        return tuple(tuple(str(level) for level in channel) for channel in json.loads(written))
    except (TypeError, ValueError):
        raise ValueError(
            f"observations[{name!r}]: expected names of values as to_xarray writes them, found {shown(written)}"
        ) from None


def _sequences(dataset: xarray.Dataset, chosen: Mapping[str, Any]) -> tuple[str, ...]:
    for name, array in chosen.items():
        dim = _dim(array, name, "sequence")
        if dim is not None:
            labels = dataset.coords[dim].to_numpy() if dim in dataset.coords else np.arange(dataset.sizes[dim])
            return tuple(str(label) for label in labels.tolist())
    return ("0",)


def _lengths(dataset: xarray.Dataset, count: int) -> NDArray[np.int64] | None:
    if "context_steps" in dataset.coords and np.any(dataset.coords["context_steps"].to_numpy()):
        raise ValueError(
            "context_steps: expected sequences all of whose steps are scored, found some that are context; cut the "
            "whole sequences with data.windows or data.split"
        )
    if "num_steps" not in dataset.coords:
        return None
    return np.broadcast_to(dataset.coords["num_steps"].to_numpy().astype(np.int64), (count,))


def _base_steps(chosen: Mapping[str, Any], single: Sequence[str], heads: Mapping[str, Any]) -> int:
    steps = [array.sizes[_dim(array, name, "time")] for name, array in chosen.items() if name not in single]
    if not steps:
        raise ValueError(f"from_xarray: expected a variable with an axis of time, found none among {list(chosen)}")
    return max(steps)


def _cut(values: Any, lengths: NDArray[np.int64], clock: int, single: bool) -> Any:
    values = np.asarray(values)
    return values if single else [row[: int(n) // clock] for row, n in zip(values, lengths, strict=True)]


def _timing(
    dataset: xarray.Dataset,
    chosen: Mapping[str, Any],
    lengths: NDArray[np.int64],
    clocks: Mapping[str, int],
    dt: Any,
    sampling: str,
    names: list[str],
) -> tuple[dict[str, Any], Calendar | None]:
    """`dt` or `times`, and the dates of the steps."""
    import pandas

    per_step = [(n, a, _dim(a, n, "time")) for n, a in chosen.items() if n not in clocks]
    dim = next((dim for _, _, dim in per_step if dim is not None), None)
    if "date" in dataset.coords:
        dates = dataset.coords["date"].transpose("sequence", ...).to_numpy()
        columns = [pandas.Series(row[:n]) for row, n in zip(dates, lengths, strict=True)]
    elif "seconds" in dataset.coords:
        stamps = dataset.coords["seconds"].transpose("sequence", ...).to_numpy()
        columns, sampling = [pandas.Series(row[:n]) for row, n in zip(stamps, lengths, strict=True)], "irregular"
    elif dim is None or dim not in dataset.coords:
        return {"dt": None if dt is None else read_dt(dt), "times": None}, None
    else:
        columns = [_column(dataset.coords[dim], int(n)) for n in lengths]
        unit = dataset.coords[dim].attrs.get("units", "s")
        if unit == "step" and dt is None:
            return {"dt": None, "times": None}, None
    if dt is None and "dt" in dataset.attrs and sampling == "regular":
        dt = float(dataset.attrs["dt"])
    clock = read_clock(columns, [int(n) for n in lengths], dt, sampling, names)
    for length, found, name in zip(lengths.tolist(), clock.lengths, names, strict=True):
        if length != found:
            raise ValueError(
                f"time: expected a coordinate for each of {found} steps of one length, found {length} in sequence "
                f'{name!r}; sampling="irregular" keeps a time for each'
            )
    return {"dt": clock.dt, "times": clock.times}, clock.calendar


def _column(coordinate: Any, length: int) -> pandas.Series:
    import pandas

    values, unit = coordinate.to_numpy()[:length], coordinate.attrs.get("units", "s")
    if values.dtype.kind not in "mM":
        if unit not in SECONDS and unit != "step":
            raise ValueError(f"time: expected a coordinate in a unit of time, found {unit!r}")
        values = values.astype(np.float64) * SECONDS.get(unit, 1.0)
    return pandas.Series(values)


def _metadata(dataset: xarray.Dataset, chosen: Mapping[str, Any]) -> dict[str, Any]:
    dims = {_dim(array, name, "sequence") for name, array in chosen.items()} - {None}
    return {
        str(name): coordinate.to_numpy()
        for name, coordinate in dataset.coords.items()
        if name not in OWN and len(coordinate.dims) == 1 and coordinate.dims[0] in dims and name not in dims
    }
