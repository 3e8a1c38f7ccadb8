"""The groups of a posterior as xarray Datasets with named dims and coordinates, which every ArviZ version takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import xarray as xr

from latentrnn.export.pointwise import with_pointwise
from latentrnn.export.variables import (
    Variable,
    are_whole,
    constants,
    drawn_dataset,
    is_whole,
    names_on_axes,
    observed,
    of_latents,
    of_replicates,
    of_sites,
    source,
)
from latentrnn.inference.evidence.evidence import log_mean
from latentrnn.inference.posterior.draws.stored_draws import StoredDraws
from latentrnn.inference.sampling.ensemble_posterior import EnsemblePosterior

if TYPE_CHECKING:
    from latentrnn.inference.posterior.posterior import Posterior

LATENTS = "latents"  # a group of their own: `az.summary` and `az.plot_trace` make a row of every entry of "posterior"


def posterior_groups(
    posterior: Posterior | EnsemblePosterior,
    *,
    num_samples: int | None,
    num_particles: int,
    prior_predictive: bool,
    latents: bool,
    seed: int | None,
    weights: bool = True,
    pointwise: str | None = None,
) -> dict[str, xr.Dataset]:
    """Return {group: Dataset}; `to_arviz` documents the groups, the arguments and the dims."""
    posterior = posterior if seed is None else posterior.reseeded(seed)
    num_samples, chains, data = _number(posterior, num_samples), posterior.chains, posterior.data.to("cpu")
    replicates = {"posterior_predictive": posterior.predictive(num_samples)}
    if prior_predictive:
        replicates["prior_predictive"] = posterior.prior_predictive(num_samples)
    modelled = replicates["posterior_predictive"]
    whole = {head for head, values in modelled.items() if is_whole(data, head) and are_whole(values)}
    small = small_groups(
        posterior,
        num_samples=num_samples,
        num_particles=num_particles,
        latents=latents,
        weights=weights,
        drawn=list(replicates),
        whole=whole,
        pointwise=pointwise,
    )
    groups, labelled = dict(small.groups), small.labelled
    if latents and not isinstance(posterior, EnsemblePosterior):
        drawn = drawn_dataset(of_latents(posterior.latents(num_samples)), labelled, chains)
        groups[LATENTS] = drawn.assign_attrs(small.groups[LATENTS].attrs)
    for group, values in replicates.items():
        # a prior may go beyond all integers, which is no reason to take what the posterior draws for continuous
        integers = {head for head in whole if are_whole(values[head])}
        drawn = drawn_dataset(of_replicates(data, values, integers, labelled), labelled, chains)
        groups[group] = drawn.assign_attrs(small.source)
    return groups


class SmallGroups(NamedTuple):
    """What a file holds besides draws of latents and replicates, and what is needed to write these.

    Attributes:
        groups: {group: Dataset}; of groups that draws are still to come to, their coordinates.
        labelled: the data.
        num_samples, num_chains: of the draws.
        whole: heads that are whole numbers.
        source: attributes of every group.
    """

    groups: dict[str, xr.Dataset]
    labelled: xr.Dataset
    num_samples: int
    num_chains: int
    whole: set[str]
    source: dict[str, str]


def small_groups(
    posterior: Posterior | EnsemblePosterior,
    *,
    num_samples: int | None,
    num_particles: int,
    latents: bool,
    drawn: Sequence[str],
    whole: set[str] | None = None,
    weights: bool = True,
    pointwise: str | None = None,
) -> SmallGroups:
    """Return all groups without the draws of latents and replicates.

    Args:
        posterior: to be exported.
        num_samples, num_particles, latents, weights, pointwise: see `to_arviz`.
        drawn: names of the groups of replicates.
        whole: heads that are whole numbers, in draws as in the data; None for what their families say.
    """
    num_samples, chains = _number(posterior, num_samples), posterior.chains
    data = posterior.data.to("cpu")
    labelled, heads = data.to_xarray(), list(posterior.model.observations)
    if whole is None:
        whole = {head for head in heads if posterior.model.observations[head].discrete and is_whole(data, head)}
    latents = latents and not isinstance(posterior, EnsemblePosterior)  # whose members have coordinates of their own
    groups = {}
    parameters = _parameters(posterior, num_samples, labelled, weights=weights)
    sampled = bool(posterior.parameters(1))
    if parameters.data_vars:
        groups["posterior"] = parameters
    if latents:
        shared = {dim: labelled[dim].variable for dim in ("sequence", "time")}
        groups[LATENTS] = xr.Dataset(coords=shared).assign_attrs(_given(posterior))
    if sampled and not isinstance(posterior, EnsemblePosterior):
        groups["log_prior"] = _log_prior(posterior, num_samples, labelled)
    if stats := _stats(posterior, num_samples):
        groups["sample_stats"] = drawn_dataset(stats, labelled, chains)
    for group in drawn:
        dims = {dim for head in heads for dim in labelled[head].dims}
        groups[group] = xr.Dataset(coords={dim: labelled[dim].variable for dim in sorted(map(str, dims))})
    groups |= _integrated(posterior, labelled, num_particles, num_samples, sampled)
    if pointwise is not None:
        groups |= with_pointwise(posterior, groups, labelled, num_particles, num_samples)
    groups["observed_data"] = observed(labelled, heads, whole)
    groups["constant_data"] = constants(data, heads, labelled)
    found = {name: group.assign_attrs(source()) for name, group in groups.items()}
    return SmallGroups(found, labelled, num_samples, 1 if chains is None else chains.num_chains, whole, source())


def drawn_variables(
    posterior: Posterior | EnsemblePosterior, num_samples: int | None, *, latents: bool, weights: bool
) -> xr.Dataset:
    """Return draws of the parameters, and of the latents where they are wanted and the posterior has them."""
    num_samples, labelled = _number(posterior, num_samples), posterior.data.to("cpu").to_xarray()
    found = _parameters(posterior, num_samples, labelled, weights=weights)
    if latents and not isinstance(posterior, EnsemblePosterior):
        drawn = drawn_dataset(of_latents(posterior.latents(num_samples)), labelled, posterior.chains)
        found = found.assign(drawn.data_vars)
    return found


def scaled_groups(
    posterior: Posterior, num_samples: int, num_particles: int, *, weights: bool
) -> dict[str, xr.Dataset]:
    """Return the groups that power-scaling needs: parameters, their priors' densities, and the data's likelihood.

    Where the local latents were drawn too, the likelihood is that given them.
    """
    labelled = posterior.data.to("cpu").to_xarray()
    if _has_drawn_latents(posterior):
        likelihood, how = posterior.log_likelihood_of_draws(num_samples), "given the draws of the local latents"
    else:
        likelihood = posterior.log_likelihood(num_particles, num_samples)
        how = "local latents integrated out" if posterior.model.latent_sites() else "no local latent is drawn"
    values = drawn_dataset({"log_likelihood": (("sequence",), likelihood.numpy())}, labelled, posterior.chains)
    about = {"unit": "nats", "likelihood": how, "not_for": "PSIS-LOO and WAIC, unless `to_arviz` has this group, too"}
    found = {
        "posterior": _parameters(posterior, num_samples, labelled, weights=weights),
        "log_prior": _log_prior(posterior, num_samples, labelled),
        "log_likelihood": values.assign_attrs(about),
    }
    return {name: group.assign_attrs(source()) for name, group in found.items()}


def _parameters(
    posterior: Posterior | EnsemblePosterior, num_samples: int, labelled: xr.Dataset, *, weights: bool
) -> xr.Dataset:
    """Return draws of the parameters, with or without the tensors of networks that have a `NetworkPrior`."""
    left_out = set() if weights else set(posterior.model.network_weights())
    sites = {name: value for name, value in posterior.parameters(num_samples).items() if name not in left_out}
    named = drawn_dataset(of_sites(posterior.model, sites), labelled, posterior.chains)
    named = named.assign_coords(names_on_axes(posterior.model, named))
    return named.assign_attrs(_given(posterior))


def _log_prior(posterior: Posterior, num_samples: int, labelled: xr.Dataset) -> xr.Dataset:
    """Return log p(theta) of every draw, by site, of those whose priors were stated and are not learned."""
    learned = posterior.model.with_learned_priors()
    found = {name: ((), value.numpy()) for name, value in posterior.log_prior(num_samples).items()}
    stated = drawn_dataset({k: v for k, v in found.items() if k not in learned}, labelled, posterior.chains)
    about = {"unit": "nats, of all entries together, in the units of the parameter"}
    if learned:
        about["left_out"] = f"{', '.join(learned)}: their priors are learned"
    return stated.assign_attrs(about)


def _number(posterior: Posterior | EnsemblePosterior, num_samples: int | None) -> int:
    chains = posterior.chains
    if num_samples is None:
        num_samples = 100 if chains is None else chains.num_chains * chains.num_draws
    if chains is not None and num_samples % chains.num_chains:
        raise ValueError(f"num_samples: expected a multiple of the {chains.num_chains} chains; found {num_samples}")
    return num_samples


def _stats(posterior: Posterior | EnsemblePosterior, num_samples: int) -> dict[str, Variable]:
    """Return what is known of each draw: how the sampler came to it, or which member of an ensemble it is of."""
    if isinstance(posterior, EnsemblePosterior):
        return {"member": ((), posterior.members_of_draws(num_samples).numpy())}
    chains = posterior.chains
    if chains is None or num_samples != chains.num_chains * chains.num_draws:
        return {}
    known = {"diverging": chains.diverging} | chains.statistics
    return {name: ((), value.flatten().numpy()) for name, value in known.items()}


def _integrated(
    posterior: Posterior | EnsemblePosterior, labelled: xr.Dataset, num_particles: int, num_samples: int, sites: bool
) -> dict[str, xr.Dataset]:
    """Return the log-likelihoods: by the name that ArviZ reads only where what ArviZ does with them means something."""
    chains = posterior.chains
    # integrating out local latents that were themselves drawn needs a guide
    if any(map(_has_drawn_latents, posterior.posteriors if isinstance(posterior, EnsemblePosterior) else [posterior])):
        return {}
    found = posterior.log_likelihood(num_particles, num_samples)
    about = {
        "unit": "nats",
        "integrated": "all heads jointly; local latents integrated out by importance sampling",
        "num_particles": num_particles,
    }
    reason = posterior.reason_against_loo()
    if reason is None:
        group = drawn_dataset({"log_likelihood": (("sequence",), found.numpy())}, labelled, chains)
        return {"log_likelihood": group.assign_attrs(about | {"parameters": "one draw of the global sites per draw"})}
    by_draw = {"log_evidence_by_draw": (("sequence",), found.numpy())}
    value, error = log_mean(found.double())
    if isinstance(posterior, EnsemblePosterior):
        # draws are as many of each member as the weights say, but for rounding
        mixture = posterior.evidence("iwae", num_particles)
        value, error, sites = mixture.values, mixture.standard_error, True
    averaged = {"log_evidence": (("sequence",), value.numpy())}
    if sites:
        averaged["standard_error"] = (("sequence",), error.numpy())
    group = (drawn_dataset(by_draw, labelled, chains) if sites else xr.Dataset()).assign(averaged)
    about |= {
        "log_evidence": "log p(y_n) of each sequence, averaged over the draws of the global sites if there are any",
        "not_for": f"PSIS-LOO and WAIC: {reason}",
        "good_for": "comparing models on held-out sequences: latentrnn.compare, or az.compare of latentrnn.elpd_data",
    }
    return {"log_evidence": group.assign_coords(sequence=labelled["sequence"].variable).assign_attrs(about)}


def _has_drawn_latents(posterior: Posterior) -> bool:
    chained = posterior.chains is not None and isinstance(posterior.guide, StoredDraws)
    return chained and bool(posterior.guide.local_values)


def _given(posterior: Posterior | EnsemblePosterior) -> dict[str, str]:
    """Return what the posterior's intervals leave out, as an attribute."""
    return {"conditional_on": posterior.conditional_on} if posterior.conditional_on else {}
