"""What a posterior believes as one labelled xarray dataset."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from latentrnn.export.settings import check_posterior
from latentrnn.inference.posterior.draws.predictions import averaged
from latentrnn.inference.sampling.ensemble_posterior import EnsemblePosterior
from latentrnn.support.arguments import check_flag, check_seed, check_selection, check_size
from latentrnn.support.shortcuts import provides_shortcut

if TYPE_CHECKING:
    import xarray
    from torch import Tensor

    from latentrnn.inference.posterior.posterior import Posterior


@provides_shortcut
def posterior_to_xarray(
    posterior: Posterior | EnsemblePosterior,
    *,
    num_samples: int = 100,
    heads: Sequence[str] | None = None,
    latents: bool = True,
    average: bool = False,
    seed: int | None = None,
) -> xarray.Dataset:
    """Return draws of parameters, latents and rates with named axes.

    Sequences, time, channels and what else is known of the sequences stand there as in `data.to_xarray()`, so that
    both go together (`xarray.merge`). `latentrnn.interpret.summarise` makes means and intervals of the draws. For
    ArviZ's groups, replicates and evidence see `to_arviz`.

    Args:
        posterior: of one fit, or of an ensemble, whose members' latents are left out: they have coordinates of their
            own.
        num_samples: number of draws.
        heads: whose rates are wanted, all by default; `[]` for none.
        latents: whether latents are.
        average: return means over draws instead, without the axis "sample"; they take the memory of one draw.
        seed: of the draws, None for the posterior's own.

    Returns:
        A dataset of parameters with priors under their site names (sample, and axes as in `to_arviz`), "states" and the
        latent sites (sample, sequence, time, "<name>_dim"), and "<head>_rate", E[y | latents, parameters] in the data's
        units (sample, sequence, time, "<head>_channel"); NaN in padding. Of chains, "sample" has the coordinate
        "chain"; of an ensemble "member". The attribute "conditional_on" says what is taken as known.

    Raises:
        ValueError: an unknown head, or no draws.
        TypeError: something that is no posterior, or an argument of another kind.
    """
    import xarray  # takes most of a second to import, which only those who ask should wait for

    from latentrnn.export.variables import names_on_axes, of_latents, of_sites

    check_posterior("to_xarray", posterior)
    count = check_size("to_xarray", "num_samples", num_samples)
    latents, average = (
        check_flag("to_xarray", name, flag) for name, flag in (("latents", latents), ("average", average))
    )
    posterior = posterior if seed is None else posterior.reseeded(check_seed("to_xarray", seed))
    modelled = list(posterior.model.observations)
    heads = modelled if heads is None else check_selection("to_xarray", "heads", heads, modelled, "head")
    known = posterior.data.to("cpu").to_xarray()
    variables = of_sites(posterior.model, posterior.parameters(count))
    if latents and not isinstance(posterior, EnsemblePosterior):
        variables |= of_latents(_averages(posterior, count) if average else posterior.latents(count))
    if average:
        variables = {name: (dims, values.mean(0)) for name, (dims, values) in variables.items()}
    for head in heads:
        rate: Tensor = posterior.mean(head, count) if average else posterior.rates(head, count)
        variables[f"{head}_rate"] = (known[head].dims, rate.numpy())
    lead = () if average else ("sample",)
    found = xarray.Dataset({name: ((*lead, *dims), values) for name, (dims, values) in variables.items()})
    coords: dict[Any, Any] = {
        name: value.variable for name, value in known.coords.items() if set(value.dims) <= set(found.dims)
    }
    if not average:
        coords |= _of_draws(posterior, count)
    coords |= names_on_axes(posterior.model, found)
    attributes = {"time_unit": "step" if posterior.data.spec.dt is None else "s", "num_samples": count}
    given = {"conditional_on": posterior.conditional_on} if posterior.conditional_on else {}
    return found.assign_coords(coords).assign_attrs(attributes | given)


def _averages(posterior: Posterior, count: int) -> dict[str, Tensor]:
    """Return means of the latents over draws, as one draw."""
    found = averaged(posterior.latent_parts(count), count, posterior.data)
    return {name: value.unsqueeze(0) for name, value in found.items()}


def _of_draws(posterior: Posterior | EnsemblePosterior, count: int) -> dict[str, Any]:
    """Return where draws come from: the chain of each, or the member of an ensemble."""
    if isinstance(posterior, EnsemblePosterior):
        return {"member": ("sample", posterior.members_of_draws(count).numpy())}
    if posterior.chains is None or count % posterior.chains.num_chains:
        return {}
    return {"chain": ("sample", np.arange(count) // (count // posterior.chains.num_chains))}
