"""The factors through which a `FactorReadout` drives its channels."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch

from latentrnn.inference.posterior.draws.predictions import with_sample_axis
from latentrnn.inference.posterior.posterior import Posterior
from latentrnn.interpret.results.labelled import AnyPosterior, Variable, in_rows, labelled, pooled, without_padding
from latentrnn.models.readouts import FactorReadout
from latentrnn.support.isolation import isolated
from latentrnn.support.shortcuts import provides_shortcut

if TYPE_CHECKING:
    import xarray


@provides_shortcut
@isolated
def factors(posterior: AnyPosterior, num_samples: int = 100) -> xarray.Dataset:
    """Draw the factors of every head with a `FactorReadout`, f_t = A h_t / |A|, and their loadings.

    Heads that share factors (`FactorReadout(of=...)`) have the same ones. The scale of a factor lies in its loadings;
    signs and rotations of factors are free, so that two fits are compared by `align`.

    Args:
        posterior: of a model with such a head, or of an ensemble (whose members have factors of their own).
        num_samples: number of draws; draw s is that of `posterior.latents(num_samples)`.

    Returns:
        A dataset with a head's factors by its name, (sample, sequence, time, "<head>_factor"), NaN in padding, and
        "<head>.loading" (sample, "<head>_channel", "<head>_factor"), of the linear predictor per unit of a factor.

    Raises:
        ValueError: no head with a `FactorReadout`, or no draws.
        TypeError: something that is no posterior.
    """
    return pooled("factors", posterior, num_samples, _of_one)


def _of_one(posterior: Posterior, num_samples: int) -> xarray.Dataset:
    heads = {
        name: head for name, head in posterior.model.observations.items() if isinstance(head.readout, FactorReadout)
    }
    if not heads:
        raise ValueError(f"factors: no head has a FactorReadout; the model has {dict(posterior.model.observations)}")
    parts, loadings = [], {}
    for run in posterior.transition_runs(num_samples):
        states = with_sample_axis(run.rollout.states(), num_samples)
        found = {}
        for name in heads:
            readout = cast(FactorReadout, run.rollout.observations[name].readout)
            with torch.no_grad():
                found[name] = without_padding(readout.to_factors(states), run.rollout.data)
            loading = readout.loading.detach()
            shape = loading.shape[-2:]
            loadings[name] = (loading.reshape(-1, *shape) if loading.dim() > 2 else loading).expand(num_samples, *shape)
        parts.append(found)
    variables: dict[str, Variable] = {
        name: (("sample", "sequence", "time", f"{name}_factor"), value) for name, value in in_rows(parts).items()
    }
    drawn = {
        f"{name}.loading": (("sample", f"{name}_channel", f"{name}_factor"), value) for name, value in loadings.items()
    }
    return labelled(posterior.data, {**variables, **drawn})
