"""Parameters in a table, with the diagnostics of their chains where there are any, by ArviZ."""

from __future__ import annotations

from typing import TYPE_CHECKING

from latentrnn.inference.posterior.posterior import Posterior
from latentrnn.inference.sampling.ensemble_posterior import EnsemblePosterior
from latentrnn.support import arviz_generations
from latentrnn.support.arguments import check_flag, check_kind_of, check_number, check_seed, check_size
from latentrnn.support.shortcuts import provides_shortcut

if TYPE_CHECKING:
    import pandas


@provides_shortcut
def summary(
    posterior: Posterior | EnsemblePosterior,
    *,
    prob: float = 0.9,
    num_samples: int | None = None,
    latents: bool = False,
    weights: bool = False,
    seed: int | None = None,
) -> pandas.DataFrame:
    """Return mean, standard deviation and central interval of every parameter that has a posterior, by entry.

    Where Markov chains have drawn them (`latentrnn.sample`), the diagnostics stand beside: `r_hat`, rank-normalised and
    split, which should be below 1.01 (it takes two chains); the effective draws in the bulk and in the tails
    (`ess_bulk`, `ess_tail`), which should be some hundreds; and the Monte Carlo errors of mean and deviation. Draws of
    a guide are independent, so that there is nothing to diagnose by them: `posterior.diagnose()` looks at the guide.

    Intervals are conditional on what has no prior; the frame's `attrs["conditional_on"]` says on what.

    Args:
        posterior: of a fit, of `laplace` or of `sample`.
        prob: of the interval.
        num_samples: draws, all of the chains' by default, 1000 of a guide's.
        latents: whether to add a row for every entry of every latent.
        weights: whether to add a row for every entry of the tensors of networks that have a `NetworkPrior`.
        seed: of the draws, None for the posterior's own.

    Returns:
        A data frame with a row for each entry, named as ArviZ does, and the columns "mean", "sd", the ends of the
        interval (e.g. "5%" and "95%"), and for chains "mcse_mean", "mcse_sd", "ess_bulk", "ess_tail" and "r_hat".

    Raises:
        ValueError: nothing has a posterior, a probability out of range, or a number of draws that is no multiple of the
            chains.
        TypeError: an argument of the wrong kind.

    References:
        Vehtari, Gelman, Simpson, Carpenter, Bürkner. Rank-normalization, folding, and localization: an improved R-hat
        for assessing convergence of MCMC. 2021.
    """
    check_kind_of("summary", "posterior", posterior, Posterior, EnsemblePosterior)
    prob = check_number("summary", "prob", prob, above=0, below=1)
    latents, weights = (
        check_flag("summary", name, flag) for name, flag in (("latents", latents), ("weights", weights))
    )
    if num_samples is not None or posterior.chains is None:
        num_samples = check_size("summary", "num_samples", 1000 if num_samples is None else num_samples)
    posterior = posterior if seed is None else posterior.reseeded(check_seed("summary", seed))
    from latentrnn.export.groups import drawn_variables  # xarray is for those who ask

    draws = drawn_variables(posterior, num_samples, latents=latents, weights=weights)
    if not draws.data_vars:
        raise ValueError(
            "summary: no parameter has a posterior, all are point estimates or known (see priors=), or weights of "
            "networks alone have one (see weights=True)"
        )
    found = arviz_generations.summary(draws, prob, diagnostics=posterior.chains is not None)
    found = found[found["mean"].notna()]  # padding of latents is no entry
    if posterior.conditional_on:
        found.attrs["conditional_on"] = posterior.conditional_on
    return found
