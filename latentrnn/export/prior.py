"""Draws from a model alone as ArviZ groups."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from latentrnn.inference.posterior.priors.predictive import PriorPredictive
from latentrnn.support import arviz_generations
from latentrnn.support.arguments import check_choice, check_kind_of
from latentrnn.support.shortcuts import provides_shortcut

if TYPE_CHECKING:
    import xarray


@provides_shortcut
def prior_to_arviz(drawn: PriorPredictive, *, container: Literal["auto", "inferencedata", "datatree"] = "auto") -> Any:
    """Return what a model says before it has seen anything as the groups that `az.plot_*` understand.

    - prior: parameters with priors under their site names; prior_latents: the latents where they were kept.
    - prior_predictive: the heads, in user units, NaN wherever the head is unobserved.
    - observed_data, constant_data: as of `to_arviz`.

    Dims and coordinates are those of `to_arviz`, so that groups of both can stand side by side.

    Args:
        drawn: what `model.prior_predictive(data)` returned.
        container: see `to_arviz`.

    Returns:
        An `arviz.InferenceData` or an `xarray.DataTree`.

    Raises:
        ValueError: an unknown container, or "inferencedata" without ArviZ 0.x.
        TypeError: something else than such draws.
    """
    check_kind_of("prior_to_arviz", "drawn", drawn, PriorPredictive)
    make = arviz_generations.container(
        check_choice("prior_to_arviz", "container", container, arviz_generations.CONTAINERS)
    )
    return make(_groups(drawn))


def _groups(drawn: PriorPredictive) -> dict[str, xarray.Dataset]:
    # xarray takes most of a second to import, which only those who export should wait for
    from latentrnn.export import variables

    data, model, heads = drawn.data.to("cpu"), drawn.model, list(drawn)
    labelled = data.to_xarray()
    observed = {head for head in heads if model.observations[head].discrete and variables.is_whole(data, head)}
    whole = {head for head in observed if variables.are_whole(drawn[head])}
    named, latents = variables.of_sites(model, drawn.parameters), variables.of_latents(drawn.latents)
    prior = variables.drawn_dataset(named, labelled, None)
    given = {} if drawn.conditional_on is None else {"conditional_on": drawn.conditional_on}
    replicated = variables.of_replicates(data, drawn.observations, whole, labelled)
    groups = {
        "prior": prior.assign_coords(variables.names_on_axes(model, prior)).assign_attrs(given),
        "prior_latents": variables.drawn_dataset(latents, labelled, None).assign_attrs(given),
        "prior_predictive": variables.drawn_dataset(replicated, labelled, None).assign_attrs(given),
        "observed_data": variables.observed(labelled, heads, observed),
        "constant_data": variables.constants(data, heads, labelled),
    }
    empty = {name for name, found in (("prior", named), ("prior_latents", latents)) if not found}
    kept = {name: group for name, group in groups.items() if name not in empty}
    return {name: group.assign_attrs(variables.source()) for name, group in kept.items()}
