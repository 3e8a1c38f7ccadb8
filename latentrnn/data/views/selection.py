"""Fewer heads, covariates or observed entries of the same sequences."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from latentrnn.data.ingest.names import check_known
from latentrnn.data.ingest.padding import fill
from latentrnn.data.record import Record
from latentrnn.data.spec import DataSpec


def select(data: Record, heads: Sequence[str] | None, covariates: Sequence[str] | None) -> Record:
    """The named heads and covariates only; None keeps all.

    Raises:
        ValueError: a name that the data do not have.
    """
    spec = select_spec(data.spec, heads, covariates)
    return dataclasses.replace(
        data,
        observations={name: data.observations[name] for name in spec.heads},
        masks={name: data.masks[name] for name in spec.heads},
        covariates={name: data.covariates[name] for name in spec.covariates},
        totals={name: total for name, total in data.totals.items() if name in spec.heads},
        gapless={name: known for name, known in data.gapless.items() if name in spec.heads},
        spec=spec,
    )


def select_spec(spec: DataSpec, heads: Sequence[str] | None, covariates: Sequence[str] | None) -> DataSpec:
    """The spec of the named heads and covariates alone.

    Raises:
        ValueError: a name that is not there, or no head.
    """
    heads = list(spec.heads) if heads is None else heads
    covariates = list(spec.covariates) if covariates is None else covariates
    check_known("heads", heads, spec.heads, "an observation head")
    check_known("covariates", covariates, spec.covariates, "a covariate")
    if len(heads) == 0:
        raise ValueError("heads: expected at least one head, found none")
    return dataclasses.replace(
        spec,
        heads={name: spec.heads[name] for name in heads},
        covariates={name: spec.covariates[name] for name in covariates},
    )


def mask_entries(data: Record, name: str, hide: Any) -> Record:
    """More entries of a head unobserved, and their values dropped so that nothing can peep."""
    check_known("mask_entries", [name], data.observations, "an observation head")
    mask = data.masks[name]
    if not isinstance(hide, Tensor) or hide.dtype != torch.bool:
        found = hide.dtype if isinstance(hide, Tensor) else type(hide).__name__
        raise TypeError(f"mask_entries[{name!r}]: expected a tensor of booleans, found {found}")
    if hide.shape != mask.shape:
        raise ValueError(f"mask_entries[{name!r}]: expected shape {tuple(mask.shape)}, found {tuple(hide.shape)}")
    hide = hide.to(data.device)
    kept = mask & ~hide
    head = data.spec.heads[name]
    head = dataclasses.replace(head, missing=head.missing or bool((mask & hide).any()))
    return dataclasses.replace(
        data,
        observations={**data.observations, name: fill(data.observations[name], kept)},
        masks={**data.masks, name: kept},
        spec=dataclasses.replace(data.spec, heads={**data.spec.heads, name: head}),
    )
