"""What a user gives for a data set, and the constructor by which data in memory and in files take it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

import torch

from latentrnn.data.ingest.arrays import read_dt
from latentrnn.data.ingest.names import check_known, check_mapping, check_names
from latentrnn.support.arguments import check_dtype


@dataclass(frozen=True, eq=False)
class Arrays:
    """The arguments of `from_arrays`, whose names were checked; the arrays are as they were given."""

    observations: Mapping[str, Any]
    covariates: Mapping[str, Any]
    dt: float | None
    times: Any
    masks: Mapping[str, Any]
    totals: Mapping[str, Any]
    clocks: Mapping[str, int]
    per_sequence: Sequence[str]
    channel_names: Mapping[str, Sequence[str]]
    feature_names: Mapping[str, Sequence[str]]
    sequence_names: Sequence[str] | None
    standardise: Sequence[str] | Mapping[str, tuple[Any, Any]]
    dtype: torch.dtype


class FromArrays(ABC):
    """Sequences that are made from arrays: the one signature of `from_arrays`, in memory and in files."""

    @classmethod
    @abstractmethod
    def _ingest(cls, given: Arrays) -> Self:
        """Read and check the arrays."""

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
        dt = read_dt(dt)
        if dt is not None and times is not None:
            raise ValueError(f"dt: expected either dt or times, found both (dt={dt:g})")
        of_heads = partial(check_mapping, known=observations, what="an observation head")
        return cls._ingest(
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
                standardise=standardise,
                dtype=dtype,
            )
        )
