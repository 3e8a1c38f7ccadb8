"""Which input lies farthest out, for a fit that could not begin."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from latentrnn.data import SequenceData


def farthest_input(data: SequenceData) -> str:
    """Say which head or covariate reaches farthest from zero in the units that the model sees, and what to do about it.

    Args:
        data: training sequences.
    """
    farthest, spread, where, name = max(_reaches(data))
    return (
        f"{where}[{name!r}] reaches {farthest:.3g} (standard deviation {spread:.3g}) as the model sees it, more than "
        f"any other input; standardise it, from_arrays(..., standardise=[{name!r}]), give it in other units, or look "
        "for extreme values in it"
    )


def _reaches(data: SequenceData) -> Iterator[tuple[float, float, str, str]]:
    """Yield how far every input reaches and spreads."""
    for name, values in data.covariates.items():
        covariate = data.spec.covariates[name]
        inside = data.valid.unsqueeze(-1).expand_as(values)
        yield (*_reach(values, inside, covariate.location, covariate.scale), "covariates", name)
    for name, values in data.observations.items():
        head = data.spec.heads[name]
        yield (*_reach(values, data.masks[name], head.location, head.scale), "observations", name)


def _reach(
    values: Tensor, seen: Tensor, location: tuple[float, ...] | None, scale: tuple[float, ...] | None
) -> tuple[float, float]:
    values = values.detach().to("cpu", torch.float64)
    if location is not None and scale is not None:
        values = (values - values.new_tensor(location)) / values.new_tensor(scale)
    values = values[seen.cpu()]
    if not len(values):
        return 0.0, 0.0
    return float(values.abs().max()), float(values.std(correction=0))
