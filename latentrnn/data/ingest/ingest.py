"""From arrays as users give them to the fields of a data set: whatever can be wrong with them is found here."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Self

import numpy as np
import torch

from latentrnn.data.identity import content_keys
from latentrnn.data.ingest.agreement import agreed_names, read_lengths, refuse_without_frames
from latentrnn.data.ingest.arrays import Array, Arrays, check_dtype, losses
from latentrnn.data.ingest.axes import Named
from latentrnn.data.ingest.covariates import CovariateArrays, read_covariate
from latentrnn.data.ingest.heads import HeadArrays, observed, read_head, read_totals
from latentrnn.data.ingest.names import check_known, check_mapping, check_names, read_labels
from latentrnn.data.ingest.padding import continued, fill, padded
from latentrnn.data.ingest.seconds import read_dt, read_times
from latentrnn.data.ingest.standardisation import standardisation
from latentrnn.data.record import Fact
from latentrnn.data.spec import CovariateSpec, DataSpec, HeadSpec


class FromArrays(ABC):
    """Sequences that are made from arrays: the one signature of `from_arrays`, in memory and in files."""

    @staticmethod
    @abstractmethod
    def _ingest(given: Arrays) -> dict[str, Any]:
        """The fields of the sequences, from arrays that are read and checked."""

    @classmethod
    def from_arrays(
        cls,
        observations: Mapping[str, Any],
        covariates: Mapping[str, Any] | None = None,
        *,
        dt: float | None = None,
        times: Any = None,
        masks: Mapping[str, Any] | None = None,
        totals: Mapping[str, Any] | None = None,
        clocks: Mapping[str, int] | None = None,
        per_sequence: Sequence[str] = (),
        channel_names: Mapping[str, Sequence[str]] | None = None,
        feature_names: Mapping[str, Sequence[str]] | None = None,
        sequence_names: Sequence[str] | None = None,
        metadata: Any = None,
        standardise: Sequence[str] | Mapping[str, tuple[Any, Any]] = (),
        dtype: torch.dtype = torch.float32,
    ) -> Self:
        """Read arrays, tensors or ragged lists of real numbers, checking everything once.

        Axes that have names (xarray, tables with columns) are matched by them, and names of channels, features and
        sequences are kept. Times may have any unit of time; other numbers with a unit are refused.

        Args:
            observations: per head an array (sequence, time, channel) or a list of (time_i, channel); for a head
                named in `per_sequence` an array (sequence, channel). Missing is what is NaN, masked or pandas' NA.
            covariates: per covariate an array (sequence, time, feature) or a list of (time_i, feature), complete; for
                one named in `per_sequence` (sequence, feature), which stays as it is all along.
            dt: seconds per base step; None for unit steps.
            times: instead of `dt`, seconds of every step, (sequence, time) or a list of (time_i,), increasing.
            masks: per head booleans in the shape of its observations, True where observed.
            totals: per head (sequence, time) or a list of (time_i,), the sum over all channels of every step, the
                missing ones included; NaN where a channel is missing and the total unknown.
            clocks: per slow head the base steps per frame; it then has floor(steps / clock) frames.
            per_sequence: heads with one value per sequence, and covariates with one row per sequence.
            channel_names: per head one name per channel.
            feature_names: per covariate one name per feature.
            sequence_names: one name per sequence.
            metadata: what else is known of each sequence, a dict of name to one value per sequence (labels, numbers,
                booleans, dates), or a table of one row per sequence.
            standardise: heads and covariates whose mean and standard deviation over observed entries go to the
                spec, for the model to apply; or a dict of name to (location, scale), e.g. of training data.
            dtype: torch.float32, with a warning where it changes values by more than rounding, or torch.float64.

        Returns:
            The data, all values in the units in which they came.

        Raises:
            TypeError: when something is of the wrong type, e.g. strings for numbers.
            ValueError: when something is impossible or inconsistent, naming it, what was expected and what came.

        Example:
            >>> import numpy as np
            >>> from latentrnn.data import SequenceData
            >>> SequenceData.from_arrays({"spikes": [np.ones((5, 2)), np.zeros((3, 2))]}, dt=0.001)
            SequenceData: 2 sequences of 3 to 5 steps, dt = 0.001 s
              observations: spikes (2 channels)
        """
        covariates = {} if covariates is None else covariates
        check_names(observations, covariates)
        names = [*observations, *covariates]
        standardise = () if standardise is None else standardise
        check_known("per_sequence", per_sequence, names, "a head or covariate")
        check_known("standardise", standardise, names, "a head or covariate")
        check_dtype(dtype)
        dt = None if dt is None else read_dt(dt)
        if dt is not None and times is not None:
            raise ValueError(f"dt: expected either dt or times, found both (dt={dt:g})")
        of_heads = partial(check_mapping, known=observations, what="an observation head")
        fields = cls._ingest(
            Arrays(
                observations=observations,
                covariates=covariates,
                dt=dt,
                times=times,
                masks=of_heads("masks", masks),
                totals=of_heads("totals", totals),
                clocks=of_heads("clocks", clocks),
                per_sequence=per_sequence,
                channel_names=of_heads("channel_names", channel_names),
                feature_names=check_mapping("feature_names", feature_names, covariates, "a covariate"),
                sequence_names=sequence_names,
                metadata=metadata,
                standardise=standardise,
                dtype=dtype,
            )
        )
        return cls(**fields)


def ingest(given: Arrays, *, part: bool = False) -> dict[str, Any]:
    """The fields of a `SequenceData`.

    Where these are `part` of the sequences, the others may be the ones in which a slow head has its frames.
    """
    heads = {name: read_head(name, given) for name in given.observations}
    covariates = {name: read_covariate(name, given) for name in given.covariates}
    stamps = None if given.times is None else read_times(given.times)
    labels = agreed_names(heads, covariates)
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
            warnings.warn(words, UserWarning, stacklevel=3)  # whoever called `from_arrays`
    tensors = _tensors(heads, inputs, totals, num_steps, given.dtype)
    own_names = labels if given.sequence_names is None else given.sequence_names
    names = read_labels("sequence_names", own_names, count)
    return {
        **tensors,
        "lengths": torch.from_numpy(lengths),  # on the host, whatever torch's default device
        "context": torch.zeros(count, dtype=torch.long, device="cpu"),
        "times": None if stamps is None else torch.from_numpy(continued(stamps, num_steps)),
        "keys": content_keys(_contents(heads, inputs, stamps), lengths),
        "names": names,
        "metadata": {} if given.metadata is None else given.read_metadata(names, own_names is not None),
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


def _head_spec(name: str, head: HeadArrays, given: Arrays) -> HeadSpec:
    channels = head.values[0].shape[1]
    labels = given.channel_names.get(name, head.named.channels)
    names = read_labels(f"channel_names[{name!r}]", labels, channels)
    location = scale = None
    if name in given.standardise:
        location, scale = standardisation(head.where, name, given.standardise, names, head.values, head.masks)
    missing = not all(mask.all() for mask in head.masks)
    return HeadSpec(name, channels, names, head.per_step, head.clock, missing, location, scale)


def _covariate_spec(name: str, arrays: list[Array], covariate: CovariateArrays, given: Arrays) -> CovariateSpec:
    features = arrays[0].shape[1]
    labels = given.feature_names.get(name, covariate.named.channels)
    names = read_labels(f"feature_names[{name!r}]", labels, features)
    location = scale = None
    if name in given.standardise:
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
