"""Coordinated dropout: what the encoder is shown is not what the model is scored on."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection

import torch

from latentrnn.data import SequenceData


def coordinated_dropout(
    data: SequenceData, rate: float, heads: Collection[str], joint: Collection[str] = ()
) -> tuple[SequenceData, SequenceData, dict[str, float]]:
    """Split the entries of what the encoder sees between encoder and likelihood, at random.

    Shown entries are scaled up by 1 / (1 - rate), hidden ones are zero, so that the encoder's input keeps its mean;
    only hidden entries are scored, weighted by 1 / rate, so that the log-likelihood keeps its expectation.

    Args:
        data: a batch.
        rate: probability of hiding an entry, in (0, 1).
        heads: the heads that the encoder sees; others are scored in full.
        joint: those among them whose channels share one density: their steps are hidden whole.

    Returns:
        What the encoder is shown, what the model scores, and the weight of each such head's log-likelihood.

    References:
        Keshtkaran, Pandarinath. Enabling hyperparameter optimization in sequential autoencoders for spiking neural
        data. 2019.
    """
    shown, masks = dict(data.observations), dict(data.masks)
    for name in heads:
        values = data.observations[name]
        draw = torch.rand_like(values[..., :1]).expand_as(values) if name in joint else torch.rand_like(values)
        hidden = draw < rate
        shown[name] = torch.where(hidden, 0.0, values / (1 - rate))
        masks[name] = data.masks[name] & hidden
    weights = dict.fromkeys(heads, 1.0 / rate)
    return dataclasses.replace(data, observations=shown), dataclasses.replace(data, masks=masks), weights
