"""Values that a model's floating type cannot tell apart."""

from __future__ import annotations

import warnings

import torch

from latentrnn.data import SequenceData
from latentrnn.data.ingest.arrays import losses
from latentrnn.inference.posterior.draws.sampler import computed_in
from latentrnn.models.state_space import LatentRNN


def warn_of_losses(data: SequenceData, model: LatentRNN, *, stacklevel: int) -> None:
    """Warn where the model's floating type cannot tell values of the data apart; `stacklevel` counts from here."""
    if data.dtype != torch.float64 or computed_in(model, data) != torch.float32:
        return
    parts = [
        (f"observations[{name!r}]", model.spec.heads[name].channel_names, data.observations[name], data.masks[name])
        for name in model.observations
    ]
    valid = data.valid.unsqueeze(-1)
    parts += [
        (f"covariates[{name!r}]", spec.feature_names, data.covariates[name], valid.expand_as(data.covariates[name]))
        for name, spec in model.spec.covariates.items()
    ]
    for where, names, values, there in parts:
        rows, seen = (part.detach().cpu().flatten(0, -2).numpy() for part in (values, there))
        warning = losses(f"Posterior: {where}", names, [rows], [seen], instead="fit the model to data in float64")
        if warning is not None:
            warnings.warn(warning, UserWarning, stacklevel=stacklevel)
