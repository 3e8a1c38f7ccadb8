"""A posterior as ArviZ groups, in the container that the installed ArviZ takes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from latentrnn.export.settings import check_posterior, checked
from latentrnn.support import arviz_generations
from latentrnn.support.arguments import check_choice
from latentrnn.support.shortcuts import provides_shortcut

if TYPE_CHECKING:
    from latentrnn.inference.posterior.posterior import Posterior
    from latentrnn.inference.sampling.ensemble_posterior import EnsemblePosterior


@provides_shortcut
def to_arviz(
    posterior: Posterior | EnsemblePosterior,
    *,
    num_samples: int | None = None,
    num_particles: int = 64,
    prior_predictive: bool = True,
    latents: bool = True,
    weights: bool = True,
    pointwise: Literal["one_step_ahead"] | None = None,
    seed: int | None = None,
    container: Literal["auto", "inferencedata", "datatree"] = "auto",
) -> Any:
    """Return a posterior as the groups that `az.plot_*`, `az.summary` and netCDF understand.

    - posterior: global sites under their site names. What runs over a head's channels (its family's parameters, its
      readout, its gain) has the dim `{head}_channel`, a gain the last dim `{head}_stimulus`: the features of its
      stimulus, from the present on back. Other axes are called as the component declares them (`ParameterSpec.dims`):
      `{site}_unit`, `{site}_state`, `{site}_feature`, and `{site}_dim_0` where nothing is declared; features of
      covariates have their names on them. Without parameters that have a posterior there is no such group.
    - latents: where the model has them `states`, `innovations`, `switch` (sequence, time, `{name}_dim`) and `initial`
      (sequence, `initial_dim`). In a group of their own, because `az.summary` and `az.plot_trace` make a row of every
      entry of `posterior`; `az.plot_trace(..., group="latents")` and `az.extract` look here.
    - log_prior: log p(theta) of every draw by site, nats, all entries together, in the units in which the priors are
      stated; without the members of a `Population`, whose prior is learned, and without any of an ensemble.
    - posterior_predictive, prior_predictive: free-running replicates per head (sequence, time, `{head}_channel`), in
      user units.
    - log_likelihood, where `az.loo` means something, else log_evidence: all heads jointly, local latents integrated
      out, nats; see below.
    - observed_data: per head, user units, NaN where unobserved.
    - constant_data: covariates (sequence, time, `{name}_feature`), `{head}_mask` (True where observed),
      `{head}_total`, `num_steps`, `context_steps`, `seconds` where steps are irregular, `dt`, and the metadata of the
      sequences (condition, session, outcome) under their names.

    - sample_stats: for draws of `latentrnn.sample`, all of them exported, `diverging`; for an ensemble, whose draws are
      pooled, `member`.

    Drawn groups have leading dims (chain, draw), with one chain where the posterior is variational, whose draws are
    independent. Where NUTS has drawn local latents, there is neither log_likelihood nor log_evidence:
    integrating them out needs a guide.

    Time is in seconds from the sequence's first step when the data have a `dt`, else in steps. A head with a slower
    clock has its own dim `{head}_time`, at the start of each frame. Replicates are NaN wherever the head is unobserved,
    and latents beyond a sequence's end, so that plots compare like with like. Whole-number heads without a missing
    entry are integers, which ArviZ draws as counts.

    `log_likelihood` has `log p(y_n | theta)` of every draw and sequence, and `az.loo` and `az.compare` read it. Their
    importance weights leave a sequence out of draws that were conditioned on it, so the group is there only where
    everything that was learned from these sequences has a posterior, and the sequences are those it was conditioned
    on: draws of `lr.sample` whose weights were not fitted to them, first of all. Anywhere else (point estimates, alone
    or beside parameters with priors; held-out sequences) ArviZ would compute numbers that mean nothing, and the group
    is called `log_evidence`, which ArviZ does not look for: `log_evidence` (sequence), averaged over the draws of the
    parameters, with its `standard_error`, and `log_evidence_by_draw`. Its attribute `not_for` says why. Compare such
    models with `latentrnn.compare` on held-out sequences, or `az.compare` of `latentrnn.elpd_data`. With `log_prior`
    and `log_likelihood` `az.psens` (0.x) and `az.psense` (1.x) say how sensitive parameters are to either;
    `latentrnn.power_scaling` says it of every posterior of parameters, and has a container for ArviZ's plots.

    With `pointwise="one_step_ahead"` the same group has log p(y_t | y_{<t}, theta) of every per-step head as well,
    (sequence, time, `{head}_channel`), nats, NaN where nothing is scored; its attributes say what it is good for. Where
    entries are independent given the parameters (no random latents, no feedback) it has the head's name, so that
    `az.loo(..., var_name=head)` and `az.loo_pit` take it; elsewhere `{head}_one_step_ahead`, since the replicates are
    not one step ahead and `az.loo_pit` would pair the two. `az.loo` is then told which: `var_name="log_likelihood"`
    leaves out sequences.

    Args:
        posterior: what `FitResult.posterior(data)` returned.
        num_samples: draws per variable; 100 by default, all draws of Markov chains. A multiple of the chains.
        num_particles: importance samples per sequence (and draw of the global sites) for the log-likelihood.
        prior_predictive: whether to include that group.
        latents: whether to include the latent trajectories, the largest part by far for long sequences; of an ensemble
            there are none, since its members have coordinates of their own.
        weights: whether to include the tensors of networks that have a `NetworkPrior`, thousands of numbers for every
            draw, of which `az.summary` makes as many rows; their scales are there all the same.
        pointwise: "one_step_ahead", or None for the sequences' joint densities alone.
        seed: seed of all the draws; None for the posterior's own.
        container: "inferencedata" (ArviZ 0.x), "datatree" (ArviZ 1.x and arviz-base), or "auto" for what the installed
            ArviZ takes.

    Returns:
        An `arviz.InferenceData` or an `xarray.DataTree`; both have `to_netcdf`.

    Raises:
        ValueError: a count below one, an unknown container, "inferencedata" without ArviZ 0.x, or two variables of one
            group with the same name.
        TypeError: something else than a posterior.
    """
    check_posterior("to_arviz", posterior)
    settings = checked("to_arviz", num_samples, num_particles, prior_predictive, latents, weights, pointwise, seed)
    make = arviz_generations.container(check_choice("to_arviz", "container", container, arviz_generations.CONTAINERS))
    # xarray takes most of a second to import, which only those who export should wait for
    from latentrnn.export.groups import posterior_groups

    return make(posterior_groups(posterior, **settings))
