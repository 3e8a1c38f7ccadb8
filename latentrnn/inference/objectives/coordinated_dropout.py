"""Coordinated dropout: what the encoder is shown is not what the model is scored on."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping

import torch
from torch import Tensor

from latentrnn.data import SequenceData
from latentrnn.data.record import Fact


def coordinated_dropout(
    data: SequenceData,
    rate: float,
    heads: Collection[str],
    joint: Collection[str] = (),
    centres: Mapping[str, Tensor] | None = None,
    symbols: Collection[str] = (),
) -> tuple[SequenceData, SequenceData, dict[str, float]]:
    """Split the entries of what the encoder sees between encoder and likelihood, at random.

    A shown entry's distance from its channel's centre is scaled up by 1 / (1 - rate), a hidden one lies at the centre,
    so that the encoder's input keeps its mean; only hidden entries are scored, weighted by 1 / rate, so that the
    log-likelihood keeps its expectation.

    Args:
        data: a batch.
        rate: probability of hiding an entry, in (0, 1).
        heads: the heads that the encoder sees; others are scored in full.
        joint: those among them whose channels share one density: their steps are hidden whole.
        centres: what counts as average in each head, (channel,), in the data's units; zero by default. A head far
            from zero needs it: its hidden entries would look extreme.
        symbols: heads whose values are codes without order: a hidden one becomes -1, no symbol's code, and what is
            shown stays as it is, for a code cannot be scaled.

    Returns:
        What the encoder is shown, what the model scores, and the weight of each such head's log-likelihood.

    References:
        Keshtkaran, Pandarinath. Enabling hyperparameter optimization in sequential autoencoders for spiking neural
        data. 2019.
    """
    shown, masks = dict(data.observations), dict(data.masks)
    for name in heads:
        values = data.observations[name]
        centre = values.new_zeros(()) if centres is None else centres[name]
        draw = torch.rand_like(values[..., :1]).expand_as(values) if name in joint else torch.rand_like(values)
        hidden = draw < rate
        if name in symbols:
            shown[name] = torch.where(hidden, -1.0, values)
        else:
            shown[name] = torch.where(hidden, centre, centre + (values - centre) / (1 - rate))
        masks[name] = data.masks[name] & hidden
    weights = dict.fromkeys(heads, 1.0 / rate)
    # known without looking at them
    gapless = {**data.gapless, **{name: Fact.of(False, masks[name]) for name in heads}}
    scored = dataclasses.replace(data, masks=masks, gapless=gapless)
    return dataclasses.replace(data, observations=shown), scored, weights
