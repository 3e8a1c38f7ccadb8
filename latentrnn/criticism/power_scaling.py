"""How sensitive parameters are to their priors and to the likelihood: each raised to powers near one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from latentrnn.inference.guides.parameters import PointParameters
from latentrnn.inference.posterior.draws.stored_draws import StoredDraws
from latentrnn.inference.posterior.posterior import Posterior
from latentrnn.support import arviz_generations
from latentrnn.support.arguments import check_choice, check_flag, check_kind_of, check_number, check_seed, check_size
from latentrnn.support.notebooks import ShownInNotebooks
from latentrnn.support.shortcuts import provides_shortcut

if TYPE_CHECKING:
    import pandas
    import xarray

CONFLICT = "potential prior-data conflict"
STRONG = "potential strong prior / weak likelihood"
FINE = "-"
LONGEST = 200  # characters of a remark
DRAWS, FEWER = 4000, 1000  # of a guide: where likelihoods are exact, and where each takes importance samples


@dataclass(frozen=True, repr=False)
class PowerScaling(ShownInNotebooks):
    """How sensitive parameters are to their priors and to the likelihood; `print(scaling)` shows the table.

    Attributes:
        rows: per entry of a parameter: "parameter", "prior" and "likelihood", the sensitivities, and "diagnosis".
        threshold: above which something is sensitive.
        num_samples: draws.
        remarks: what draws, likelihood and priors are, and what all of it takes as known.
        groups: what it was computed from.
    """

    rows: tuple[dict[str, Any], ...]
    threshold: float
    num_samples: int
    remarks: tuple[str, ...]
    groups: dict[str, xarray.Dataset] = field(repr=False)

    @property
    def flagged(self) -> list[dict[str, Any]]:
        """The rows with a diagnosis."""
        return [row for row in self.rows if row["diagnosis"] != FINE]

    def to_dataframe(self) -> pandas.DataFrame:
        """The table as a pandas frame, by parameter."""
        import pandas

        return pandas.DataFrame(self.rows).set_index("parameter")

    def to_arviz(self, *, container: str = "auto") -> Any:
        """Return posterior, log_prior and log_likelihood, for `az.psens`, or for `az.psense` and its plots.

        The likelihood is there for power-scaling, whatever was learned as a point; what `az.loo` says of it means
        something only where `posterior.to_arviz()` has that group, too.

        Args:
            container: "inferencedata" (ArviZ 0.x), "datatree" (1.x), or "auto" for what the installed ArviZ takes.

        Raises:
            ValueError: an unknown container, or "inferencedata" without ArviZ 0.x.
        """
        kind = check_choice("to_arviz", "container", container, arviz_generations.CONTAINERS)
        return arviz_generations.container(kind)(dict(self.groups))

    def __repr__(self) -> str:
        return f"PowerScaling({len(self.rows)} entries, {self.num_samples} draws, {len(self.flagged)} with a diagnosis)"

    def __str__(self) -> str:
        width = max(len(row["parameter"]) for row in self.rows)
        lines = [
            f"power-scaling sensitivity, {self.num_samples} draws; sensitive above {self.threshold:g}",
            f"{'parameter':<{width}} {'prior':>8} {'likelihood':>10}  diagnosis",
        ]
        for row in self.rows:
            numbers = f"{row['prior']:>8.3f} {row['likelihood']:>10.3f}"
            lines.append(f"{row['parameter']:<{width}} {numbers}  {row['diagnosis']}")
        return "\n".join([*lines, *self.remarks])


@provides_shortcut
def power_scaling(
    posterior: Posterior,
    *,
    num_samples: int | None = None,
    num_particles: int = 64,
    threshold: float = 0.05,
    weights: bool = False,
    seed: int | None = None,
) -> PowerScaling:
    """Say how far every parameter's posterior moves as its priors, or the likelihood, are made stronger or weaker.

        p(theta | y) ~ p(theta)^a p(y | theta)   and   p(theta) p(y | theta)^a,   a near one,

    by Pareto-smoothed importance weights of the draws. The sensitivity is the slope of the distance (cumulative
    Jensen-Shannon) from the posterior with log2 a. Both above the threshold: the prior and the data pull at each other
    (a potential conflict). The prior's alone: it is strong, or the data say little. ArviZ computes it.

    Priors are scaled all together, as stated and in the units of the parameter; priors that are learned, of a
    population's members and of weights under a `NetworkPrior`, are left as they are. What was learned as a point stays
    where it is: sensitivities are those given the point estimates, which would move as well. Draws of a guide stand
    for the posterior's. What is not sensitive at all comes out at about a quarter of sqrt(numbers that are scaled /
    draws): raise `num_samples` where that is near the threshold.

    Args:
        posterior: over parameters with priors, of the sequences that they were conditioned on: of `lr.sample`,
            `lr.laplace`, or a fit.
        num_samples: draws, at least 100; all of the chains' by default, of a guide's 4000, or 1000 where the model has
            local latents, which each draw of the parameters integrates out anew.
        num_particles: importance samples of the local latents. Where `lr.sample` drew the latents, the likelihood is
            that given them.
        threshold: sensitivities below say little.
        weights: whether to list every entry of the tensors of networks that have a `NetworkPrior`.
        seed: of the draws, None for the posterior's own.

    Raises:
        ValueError: no parameter has a posterior, other sequences than the draws were conditioned on, or a setting out
            of range.
        TypeError: an argument of the wrong kind; a mixture of fits has no one posterior.

    References:
        Kallioinen, Paananen, Bürkner, Vehtari. Detecting and diagnosing prior and likelihood sensitivity with
        power-scaling. 2023.
    """
    check_kind_of("power_scaling", "posterior", posterior, Posterior)
    threshold = check_number("power_scaling", "threshold", threshold, above=0)
    num_particles = check_size("power_scaling", "num_particles", num_particles)
    weights = check_flag("power_scaling", "weights", weights)
    if (reason := _unsound(posterior)) is not None:
        raise ValueError(f"power_scaling: {reason}")
    number = _number(posterior, num_samples)
    posterior = posterior if seed is None else posterior.reseeded(check_seed("power_scaling", seed))
    from latentrnn.export.groups import scaled_groups  # xarray is for those who ask

    groups = scaled_groups(posterior, number, num_particles, weights=weights)
    if not groups["posterior"].data_vars:
        raise ValueError("power_scaling: nothing but weights of networks has a posterior; see weights=True")
    if not groups["log_prior"].data_vars:
        raise ValueError("power_scaling: no prior was stated: all are learned")
    of_prior, of_likelihood = (
        dict(_entries(arviz_generations.power_scaling(groups, component))) for component in ("prior", "likelihood")
    )
    rows = tuple(
        {
            "parameter": name,
            "prior": value,
            "likelihood": of_likelihood[name],
            "diagnosis": _diagnosis(value, of_likelihood[name], threshold),
        }
        for name, value in of_prior.items()
    )
    return PowerScaling(rows, threshold, number, _remarks(posterior, groups), groups)


def _number(posterior: Posterior, num_samples: int | None) -> int:
    chains = posterior.chains
    if num_samples is None:
        few = FEWER if posterior.model.latent_sites() else DRAWS
        return few if chains is None else chains.num_chains * chains.num_draws
    number = check_size("power_scaling", "num_samples", num_samples)
    if number < 100:
        raise ValueError(f"power_scaling: num_samples must be at least 100; found {number}")
    if chains is not None and number % chains.num_chains:
        raise ValueError(f"num_samples: expected a multiple of the {chains.num_chains} chains; found {number}")
    return number


def _unsound(posterior: Posterior) -> str | None:
    """Return why there is nothing to scale, or why it would mean nothing; None where it does."""
    guide, result = posterior.guide, posterior.result
    if guide.parameter_sites is None or (isinstance(guide, StoredDraws) and not guide.parameter_sites.names):
        return "no parameter has a posterior: all are point estimates or known; see priors="
    if isinstance(guide.parameter_sites, PointParameters):
        return 'the parameters with priors are at one point (global_family="point"), which is no posterior'
    here = set(posterior.data.keys)
    conditioned = guide.conditioned_on if isinstance(guide, StoredDraws) else result and result.conditioned_on
    if conditioned and here != conditioned:
        return (
            f"the draws were conditioned on {len(conditioned)} sequences, of which these are {len(here & conditioned)} "
            f"and {len(here - conditioned)} others; take the posterior of just the sequences that were fitted"
        )
    if not conditioned and result is not None and (unseen := here - result.used):
        return f"{len(unseen)} of {len(here)} sequences were no part of the fit; take the posterior of those that were"
    return None


def _diagnosis(prior: float, likelihood: float, threshold: float) -> str:
    if prior >= threshold:
        return CONFLICT if likelihood >= threshold else STRONG
    return FINE


def _entries(dataset: xarray.Dataset) -> Iterator[tuple[str, float]]:
    """Yield every entry by its name and coordinates, as ArviZ writes them."""
    for name, array in dataset.data_vars.items():
        for index in np.ndindex(array.shape):
            places = [str(array[dim].values[i]) for dim, i in zip(array.dims, index, strict=True)]
            yield f"{name}[{', '.join(places)}]" if places else str(name), float(array.values[index])


def _remarks(posterior: Posterior, groups: dict[str, xarray.Dataset]) -> tuple[str, ...]:
    chained = isinstance(posterior.guide, StoredDraws)
    found = ["draws of the chains" if chained else "draws of the guide, which stand for those of the posterior"]
    found.append(f"likelihood: {groups['log_likelihood'].attrs['likelihood']}")
    if left_out := groups["log_prior"].attrs.get("left_out"):
        found.append(f"not scaled: {left_out if len(left_out) < LONGEST else left_out[:LONGEST] + ' ...'}")
    if posterior.conditional_on:
        found.append(f"all of it conditional on {posterior.conditional_on}, which would move as well")
    return tuple(found)
