"""Densities that another package computed, in the tables of ours."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from latentrnn.data.ingest.plain_numbers import to_tensor
from latentrnn.inference.filters.one_step_ahead import OneStepAhead
from latentrnn.support.shown import first_entry


@dataclass(frozen=True, eq=False)
class OutsideEvidence:
    """Log densities of whole sequences that another package computed, where `compare` has a posterior.

    Attributes:
        keys: identity of each sequence, as of the posterior that they stand beside.
        log_prob: nats, (sequence,).
    """

    keys: tuple[Any, ...]
    log_prob: Tensor

    def __repr__(self) -> str:
        return f"OutsideEvidence({len(self.keys)} sequences, {float(self.log_prob.mean()):.4g} nats per sequence)"


def score_of(log_prob: Any, *, like: Any, mean: Any = None) -> Any:
    """Log densities that something else computed (GARCH, a regression, another package), to be scored as ours.

    What comes back takes its place beside `like`: in `compare`, and of one-step-ahead densities in
    `one_step_ahead_log_likelihood`, `one_step_ahead_bits_per_spike` and `paired_difference`. That the densities are of
    data that it was not fitted to, of the same entries and, one step ahead, given nothing later, is your word: this
    package saw none of it.

    Args:
        log_prob: nats; in the shape of `like.log_prob`, `(sequence, time, channel)` or `(sequence, time, 1)` where
            channels are scored together, anything where nothing is scored; of a posterior `(sequence,)`.
        like: the `OneStepAhead` of a model on the same data, or a `Posterior` of the same sequences.
        mean: of one-step-ahead densities what was predicted, in the shape of `like.mean`; NaN where not given.

    Returns:
        A `OneStepAhead` of the same head, entries and sequences, or an `OutsideEvidence`.

    Raises:
        TypeError: `like` is neither, or numbers are none.
        ValueError: another shape, or a density of a scored entry that is not finite.

    Example:
        >>> import numpy as np, latentrnn as lr
        >>> data = lr.SequenceData.from_arrays({"y": np.zeros((2, 4, 1))})
        >>> heads = {"y": lr.Gaussian()}
        >>> model = lr.LatentRNN(data.spec, transition=lr.GRU(2), latent=lr.Deterministic(), observations=heads)
        >>> ours = lr.Posterior(model, lr.Guide(model), data).one_step_ahead("y")
        >>> theirs = lr.score_of(np.full((2, 4, 1), -0.9189), like=ours)  # a standard Normal, at its mean
        >>> print(lr.one_step_ahead_log_likelihood(theirs))
        -0.919 +- 0.000 nats/step (2 blocks)
    """
    values = to_tensor("log_prob", log_prob).to(torch.float64)
    if isinstance(like, OneStepAhead):
        values = _as_shown("log_prob", values, like.log_prob)
        _refuse_infinite(values, like.scored, ("sequence", "step", "channel"))
        given = torch.full_like(like.mean, torch.nan)
        if mean is not None:
            given = _as_shown("mean", to_tensor("mean", mean).to(like.mean.dtype), like.mean)
        return dataclasses.replace(
            like,
            log_prob=torch.where(like.scored, values, 0.0),
            mean=given,
            standard_error=None,
            used=frozenset(),
            log_prob_zero=None,
            standard_error_zero=None,
        )
    if not hasattr(like, "evidence") or not hasattr(like, "data"):
        raise TypeError(
            f"score_of: like must be what posterior.one_step_ahead(head) returns, or a posterior; found "
            f"{type(like).__name__}"
        )
    if values.shape != (len(like.data),):
        raise ValueError(f"log_prob: expected shape ({len(like.data)},), a sequence each, found {tuple(values.shape)}")
    _refuse_infinite(values, torch.ones_like(values, dtype=torch.bool), ("sequence",))
    return OutsideEvidence(tuple(like.data.keys), values)


def _as_shown(name: str, values: Tensor, expected: Tensor) -> Tensor:
    if values.shape == expected.shape[:-1] and expected.shape[-1] == 1:
        values = values[..., None]
    if values.shape != expected.shape:
        raise ValueError(f"{name}: expected shape {tuple(expected.shape)}, found {tuple(values.shape)}")
    return values


def _refuse_infinite(values: Tensor, scored: Tensor, axes: tuple[str, ...]) -> None:
    bad = scored & ~values.isfinite()
    if bad.any():
        index, place = first_entry(bad, axes)
        raise ValueError(
            f"log_prob: expected finite numbers where anything is scored, found {values[index]:g} at {place}"
        )
