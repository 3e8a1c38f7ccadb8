"""Densities of single entries, one step ahead, beside those of whole sequences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
import xarray as xr

from latentrnn.export.variables import drawn_dataset

if TYPE_CHECKING:
    from latentrnn.inference.posterior.posterior import Posterior
    from latentrnn.inference.sampling.ensemble_posterior import EnsemblePosterior

GROUPS = ("log_likelihood", "log_evidence")


def with_pointwise(
    posterior: Posterior | EnsemblePosterior,
    groups: Mapping[str, xr.Dataset],
    labelled: xr.Dataset,
    num_particles: int,
    num_samples: int,
) -> dict[str, xr.Dataset]:
    """Return the group of log-likelihoods, whichever it is, with log p(y_t | y_{<t}, theta) of every per-step head.

    Raises:
        ValueError: a posterior whose local latents were drawn by chains.
    """
    name = next((group for group in GROUPS if group in groups), None)
    if name is None:
        raise ValueError("pointwise: local latents that chains have drawn are not integrated out by step; use None")
    model, found = posterior.model, {}
    alone = not model.latent_sites() and all(head.feedback is None for head in model.observations.values())
    alone = alone and not model.latent.marginalises
    for head, observation in model.observations.items():
        if not observation.head.per_step:
            continue
        values = posterior.log_likelihood_one_step_ahead(head, num_particles, num_samples)
        scored = posterior.data.scored(head).cpu()
        dims = labelled[head].dims
        if values.shape[-1] != scored.shape[-1]:
            values, scored, dims = values.squeeze(-1), scored.any(-1), dims[:-1]
        values = values.masked_fill(~scored, torch.nan)
        found[head if alone else f"{head}_one_step_ahead"] = (dims, values.numpy())
    added = drawn_dataset(found, labelled, posterior.chains if posterior.parameters(1) else None)
    about = {
        "unit": "nats",
        "pointwise": "log p(y_t | y_<t, theta) of every entry, one step ahead; NaN where nothing is scored",
        "good_for": "how far the parameters lean on single entries; checks one step ahead; of one long series "
        "comparisons that leave its future out are those of latentrnn.compare",
    }
    if name == "log_likelihood":
        leaving = "az.loo and az.loo_pit, which leave out an entry given those before it; "
        about["good_for"] = leaving + about["good_for"]
    else:
        about["not_for"] = str(groups[name].attrs.get("not_for", "PSIS-LOO and WAIC"))
    named = {key: value.assign_attrs(about) for key, value in added.data_vars.items()}
    return {name: groups[name].assign_coords(added.coords).assign(named)}
