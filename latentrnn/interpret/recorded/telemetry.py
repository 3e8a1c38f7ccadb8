"""Averages of gates and states per sequence, against thresholds of a user's own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from latentrnn.interpret.recorded.traces import trace
from latentrnn.interpret.results.labelled import AnyPosterior
from latentrnn.support.arguments import check_number
from latentrnn.support.isolation import isolated

if TYPE_CHECKING:
    import xarray


@isolated
def telemetry(
    posterior: AnyPosterior,
    *,
    below: Mapping[str, float] | None = None,
    above: Mapping[str, float] | None = None,
    num_samples: int = 100,
) -> xarray.Dataset:
    """Return each sequence's average gate or state, and how probable it is that a threshold is crossed.

    An average is one over the sequence's steps and over units; sessions with little forgetting, or wide open inputs,
    stand out by it.

    Args:
        posterior: of a model, or of an ensemble.
        below, above: threshold by name of what `trace` gives, e.g. below={"forget": 0.5}, above={"input": 0.8}.
        num_samples: number of draws.

    Returns:
        Under each name the averages, (sample, sequence); under "<name>_below" and "<name>_above" the share of draws on
        that side of its threshold, (sequence).

    Raises:
        ValueError: no thresholds, an unknown name, or a threshold that is no finite number.
        TypeError: something that is no posterior, or thresholds that are no dicts.
    """
    given: list[tuple[str, str, float]] = []
    for side, thresholds in (("below", below), ("above", above)):
        if thresholds is not None and not isinstance(thresholds, Mapping):
            raise TypeError(f"telemetry: {side} must be a dict of name to threshold; found {type(thresholds).__name__}")
        for name, threshold in (thresholds or {}).items():
            given.append((side, name, check_number("telemetry", f"{side}[{name!r}]", threshold)))
    if not given:
        raise ValueError("telemetry: expected a threshold, below={...} or above={...}; found none")
    traced = trace(posterior, num_samples)
    found: dict[str, Any] = {}
    for side, name, threshold in given:
        if name not in traced:
            raise ValueError(f"telemetry: unknown name {name!r}; the trace has {sorted(map(str, traced.data_vars))}")
        average = traced[name].mean([dim for dim in traced[name].dims if dim not in ("sample", "sequence")])
        found[name] = average
        share = (average < threshold if side == "below" else average > threshold).mean("sample")
        found[f"{name}_{side}"] = share.assign_attrs(threshold=threshold)
    import xarray

    return xarray.Dataset(found).assign_attrs(traced.attrs)
