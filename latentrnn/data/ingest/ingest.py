"""From arrays as they were given to the fields of a data set: whatever can be wrong with them is found here."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from latentrnn.data.facts import Fact
from latentrnn.data.identity import content_keys
from latentrnn.data.ingest.arrays import Array
from latentrnn.data.ingest.axes import Named, same_sequences, same_times
from latentrnn.data.ingest.covariates import CovariateArrays, read_covariate
from latentrnn.data.ingest.from_arrays import Arrays
from latentrnn.data.ingest.heads import HeadArrays, observed, read_head, read_totals
from latentrnn.data.ingest.names import read_labels
from latentrnn.data.ingest.narrowing import losses
from latentrnn.data.ingest.padding import continued, fill, padded
from latentrnn.data.ingest.standardisation import standardisation
from latentrnn.data.ingest.time import read_lengths, read_times, refuse_without_frames
from latentrnn.data.spec import CovariateSpec, DataSpec, HeadSpec


def ingest(given: Arrays, *, part: bool = False) -> dict[str, Any]:
    """The fields of a `SequenceData`.

    Where these are `part` of the sequences, the others may be the ones in which a slow head has its frames.
    """
    heads = {name: read_head(name, given) for name in given.observations}
    covariates = {name: read_covariate(name, given) for name in given.covariates}
    stamps = None if given.times is None else read_times(given.times)
    labels = _agreed_names(heads, covariates)
    lengths = read_lengths(heads, covariates, stamps)
    clocks = {name: head.clock for name, head in heads.items()}
    if not part:
        refuse_without_frames(clocks, int(lengths.max()))
    num_steps, count = max(int(lengths.max()), *clocks.values()), len(lengths)
    inputs = {name: item.along(lengths) for name, item in covariates.items()}
    totals = {name: read_totals(name, value, heads[name]) for name, value in given.totals.items()}
    spec = DataSpec(
        {name: _head_spec(name, head, given) for name, head in heads.items()},
        {name: _covariate_spec(name, arrays, covariates[name], given) for name, arrays in inputs.items()},
        given.dt,
        stamps is not None,
    )
    if given.dtype == torch.float32:
        lost = [losses(item.where, spec.heads[n].channel_names, item.values, item.masks) for n, item in heads.items()]
        lost += [losses(c.where, spec.covariates[n].feature_names, c.values, None) for n, c in covariates.items()]
        for words in filter(None, lost):
            warnings.warn(words, UserWarning, stacklevel=4)  # whoever called `from_arrays`
    tensors = _tensors(heads, inputs, totals, num_steps, given.dtype)
    return {
        **tensors,
        "lengths": torch.from_numpy(lengths),  # on the host, whatever torch's default device
        "context": torch.zeros(count, dtype=torch.long, device="cpu"),
        "times": None if stamps is None else torch.from_numpy(continued(stamps, num_steps)),
        "keys": content_keys(_contents(heads, inputs, stamps), lengths),
        "names": read_labels("sequence_names", labels if given.sequence_names is None else given.sequence_names, count),
        "spec": spec,
        "total": count,
        "indices": None,
        "num_steps": num_steps,
        "host_lengths": lengths,
        "host_context": np.zeros(count, dtype=np.int64),
        "gapless": {name: Fact.of(not spec.heads[name].missing, mask) for name, mask in tensors["masks"].items()},
    }


def ingest_again(
    spec: DataSpec,
    arrays: Mapping[str, Mapping[str, list[Array]]],
    num_steps: int,
    dtype: torch.dtype,
    fillers: Mapping[str, torch.Tensor],
) -> dict[str, Any]:
    """The tensors of a stretch of sequences that were ingested before: nothing is checked again.

    Args:
        spec: of the sequences.
        arrays: observations, masks, covariates and totals, one array per sequence, (frame, ...), empty where a
            sequence ended before.
        num_steps: base steps of the stretch.
        dtype: floating type.
        fillers: per head (channel,), what stands where nothing was observed.
    """
    heads = {}
    for name, head in spec.heads.items():
        values = arrays["observations"][name]
        seen = observed(values, arrays["masks"].get(name))
        heads[name] = HeadArrays(f"observations[{name!r}]", values, seen, head.per_step, head.clock, Named(values))
    totals = {name: read_totals(name, value, heads[name]) for name, value in arrays["totals"].items()}
    return {**_tensors(heads, arrays["covariates"], totals, num_steps, dtype, fillers)}


def _agreed_names(heads: Mapping[str, HeadArrays], covariates: Mapping[str, CovariateArrays]) -> tuple[str, ...] | None:
    """The names that arrays give their sequences, on which they must agree, as on the coordinates of their steps."""
    at_base = [(head.where, head.named) for head in heads.values() if head.clock == 1]
    given = [(item.where, item.named) for item in covariates.values()]
    labels = same_sequences([*((head.where, head.named) for head in heads.values()), *given])
    same_times([*at_base, *given])
    return labels


def _head_spec(name: str, head: HeadArrays, given: Arrays) -> HeadSpec:
    channels = head.values[0].shape[1]
    labels = given.channel_names.get(name, head.named.channels)
    names = read_labels(f"channel_names[{name!r}]", labels, channels)
    location, scale = standardisation(head.where, name, given.standardise, names, head.values, head.masks)
    missing = not all(mask.all() for mask in head.masks)
    return HeadSpec(name, channels, names, head.per_step, head.clock, missing, location, scale)


def _covariate_spec(name: str, arrays: list[Array], covariate: CovariateArrays, given: Arrays) -> CovariateSpec:
    features = arrays[0].shape[1]
    labels = given.feature_names.get(name, covariate.named.channels)
    names = read_labels(f"feature_names[{name!r}]", labels, features)
    everything = [np.ones(array.shape, bool) for array in arrays]
    location, scale = standardisation(covariate.where, name, given.standardise, names, arrays, everything)
    return CovariateSpec(name, features, names, location, scale)


def _tensors(
    heads: Mapping[str, HeadArrays],
    inputs: Mapping[str, list[Array]],
    totals: Mapping[str, list[Array]],
    num_steps: int,
    dtype: torch.dtype,
    fillers: Mapping[str, torch.Tensor] | None = None,
) -> dict[str, dict[str, torch.Tensor]]:
    """Observations, masks, covariates and totals, padded; `fillers` are found among the values where not given."""
    observations, masks = {}, {}
    for name, head in heads.items():
        frames = num_steps // head.clock if head.per_step else 1
        mask = padded(head.masks, frames, torch.bool)
        values = fill(padded(head.values, frames, dtype), mask, None if fillers is None else fillers[name])
        observations[name], masks[name] = (values, mask) if head.per_step else (values[:, 0], mask[:, 0])
    return {
        "observations": observations,
        "masks": masks,
        "covariates": {name: padded(arrays, num_steps, dtype) for name, arrays in inputs.items()},
        "totals": {name: padded(sums, num_steps // heads[name].clock, dtype) for name, sums in totals.items()},
    }


def _contents(
    heads: Mapping[str, HeadArrays], inputs: Mapping[str, list[Array]], stamps: list[Array] | None
) -> dict[str, list[Array]]:
    """What identifies the sequences; what is unobserved is no content."""
    contents: dict[str, list[Array]] = {}
    for name, head in sorted(heads.items()):
        contents[f"observations {name}"] = [np.where(m, v, 0) for v, m in zip(head.values, head.masks, strict=True)]
        contents[f"masks {name}"] = head.masks
    contents |= {f"covariates {name}": arrays for name, arrays in sorted(inputs.items())}
    return contents if stamps is None else contents | {"times": stamps}
