"""Covariates: complete, and with a row for every step."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from latentrnn.data.ingest.arrays import Array, Arrays, read_values, refuse, refuse_unrepresentable
from latentrnn.data.ingest.axes import Named


@dataclass
class CovariateArrays:
    """A covariate as it was read: per sequence a (time, feature) array, one row where it never changes."""

    where: str
    values: list[Array]
    per_step: bool
    named: Named

    def along(self, lengths: Array) -> list[Array]:
        """A row for every step of sequences of these lengths."""
        if self.per_step:
            return self.values
        return [np.repeat(row, length, 0) for row, length in zip(self.values, lengths.tolist(), strict=True)]


def read_covariate(name: str, given: Arrays) -> CovariateArrays:
    """Return the checked values of a covariate, per sequence (time, feature) or, if it has one row each, (feature,).

    Raises:
        TypeError, ValueError: what is no array of numbers, is missing at a step, or is beyond the floating type.
    """
    where, per_sequence = f"covariates[{name!r}]", name in given.per_sequence
    named, values = read_values(where, name, given.covariates[name], per_sequence, "feature")
    for index, array in enumerate(values):
        if array.dtype.kind == "f":
            refuse(where, np.isnan(array), "a value at every step, since covariates cannot be missing", array, index)
        refuse_unrepresentable(where, array, np.ones(array.shape, bool), index, given.dtype)
    return CovariateArrays(where, values, not per_sequence, named)
