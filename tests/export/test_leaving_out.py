"""PSIS-LOO of an export: exact where it means something, impossible everywhere else."""

from __future__ import annotations

import functools
import re
import warnings
from collections.abc import Callable
from typing import Any

import arviz_plots
import arviz_stats
import numpy as np
import pyro.distributions as dist
import pytest
import torch
import xarray as xr
from scipy import stats

import latentrnn as lr
from latentrnn.export.arviz import to_arviz
from latentrnn.support import arviz_generations
from latentrnn.support.arviz_generations import library
from tests.generations import GENERATIONS
from tests.inference.guides.test_parameters import PRIORS, Regression, make

SETTINGS: dict[str, Any] = {
    "steps": 3,
    "seed": 0,
    "reporting": lr.Reporting(progress=False),
    "compute": lr.Compute(device="cpu"),
}
EXPORT: dict[str, Any] = {"num_samples": 8, "num_particles": 2, "prior_predictive": False, "latents": False}


@functools.cache
def counts() -> lr.SequenceData:
    rng = np.random.default_rng(0)
    return lr.SequenceData.from_arrays({"y": [rng.poisson(0.6, (n, 2)) for n in (6, 5, 6, 4, 6, 6)]})


@functools.cache
def fit(priors: str, family: str = "normal", validated: bool = False) -> lr.FitResult:
    data = counts()
    given = {"none": None, "baseline": {"baseline": dist.Normal(0.0, 2.0)}}[priors]
    model = lr.LatentRNN(
        data.spec, transition=lr.GRU(3), latent=lr.Innovations(1), observations={"y": lr.Poisson(priors=given)}
    )
    guide = lr.Guide(model, encoder=lr.RNNEncoder(3), global_family=family)
    return lr.fit(model, guide, data[:4], data[4:5] if validated else None, **SETTINGS)


MIXTURES = {
    "all point estimates": ("none", "normal", "all are point estimates"),
    "a prior beside a network": ("baseline", "normal", r"transition.* are point estimates learned from the same"),
    "a prior at one point": ("baseline", "point", 'at one point .global_family="point"'),
}


def leaving_out(exported: Any) -> dict[str, Callable[[], Any]]:
    """Every function of the installed ArviZ (of either generation) that leaves sequences out, applied to an export."""
    asked: dict[str, dict[str, Any]] = {"loo": {}, "waic": {}}
    if isinstance(exported, xr.DataTree):
        libraries, headed = [arviz_stats, arviz_plots], {"loo_expectations", "loo_metrics", "loo_score"}
        asked |= {"loo_pit": {}, "plot_loo_pit": {"backend": "none"}} | {name: {"var_name": "y"} for name in headed}
    else:
        libraries = [library()]
        asked |= {"loo_pit": {"y": "y"}, "plot_loo_pit": {"y": "y"}}
    return {
        name: functools.partial(getattr(library, name), exported, **options)
        for name, options in asked.items()
        for library in libraries
        if hasattr(library, name)
    }


@pytest.mark.parametrize("sequences", ["fitted", "held out", "both"])
@pytest.mark.parametrize("case", MIXTURES)
def test_no_mixture_with_point_estimates_has_what_loo_reads(case: str, sequences: str) -> None:
    priors, family, message = MIXTURES[case]
    data = {"fitted": counts()[:4], "held out": counts()[4:], "both": counts()}[sequences]
    posterior = fit(priors, family).posterior(data, device="cpu")
    exported = posterior.to_arviz(container="datatree", **EXPORT)
    assert "log_likelihood" not in exported.children
    assert exported["log_evidence"]["log_evidence"].shape == (len(data),)
    not_for = exported["log_evidence"].attrs["not_for"]
    expected = message if family == "point" or priors == "none" or sequences == "fitted" else "never in the posterior"
    assert re.search(expected, not_for)
    exports = [exported]
    if arviz_generations.generation() == 0:
        exports.append(posterior.to_arviz(container="inferencedata", **EXPORT))
    for export in exports:
        assert {"loo", "plot_loo_pit"} <= leaving_out(export).keys()
        for name, function in leaving_out(export).items():
            with pytest.raises(TypeError, match="log likelihood not found"):
                pytest.fail(f"{name} gave {function()}")
    if sequences == "fitted":
        assert not_for == f"PSIS-LOO and WAIC: {posterior.reason_against_loo()}"
        with pytest.raises(ValueError, match=f"predictive_pit: leave_one_out .* means nothing.*{message}"):
            lr.predictive_pit(posterior, "y", num_samples=4, leave_one_out=True)


def test_sequences_that_stopped_a_fit_are_not_taken_for_fitted_ones() -> None:
    found = fit("baseline", validated=True).posterior(counts()[:4], device="cpu").reason_against_loo()
    assert found is not None
    assert "decided when to stop" in found


@functools.cache
def conjugate() -> tuple[Regression, lr.Posterior]:
    """The exact posterior of all that was learned: Laplace's approximation is exact for a Gaussian regression."""
    regression = make(PRIORS)
    result = lr.laplace(regression.model, regression.data, device="cpu")
    return regression, result.posterior(regression.data, device="cpu")


@functools.cache
def exported_tree() -> Any:
    return conjugate()[1].to_arviz(container="datatree", **EXPORT | {"num_samples": 300})


def exact_loo(regression: Regression) -> np.ndarray:
    found = []
    for i in range(4):
        mean, covariance = regression.posterior([j for j in range(4) if j != i])
        X, noise, y = regression.joint([i])
        found.append(stats.multivariate_normal.logpdf(y, X @ mean, X @ covariance @ X.T + noise))
    return np.array(found)


@pytest.mark.parametrize("generation", GENERATIONS)
def test_where_everything_learned_has_a_posterior_loo_is_that_of_refitting(generation: int) -> None:
    regression, tree = conjugate()[0], exported_tree()
    groups = {name: node.to_dataset() for name, node in tree.children.items()}
    stats_of, exported = (arviz_stats, tree) if generation else (library(), library().InferenceData(**groups))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Estimated shape parameter of Pareto", category=UserWarning)
        found = stats_of.loo(exported, pointwise=True)
        ranked = stats_of.compare({"a": exported, "b": exported})
    pointwise = np.asarray(found.elpd_i if generation else found.loo_i)
    expected = exact_loo(regression)
    assert abs(pointwise.sum() - expected.sum()) < 0.6, "importance sampling with 300 draws"
    by_draw = np.asarray(exported["log_likelihood"]["log_likelihood"])[0]
    left_in = np.log(np.exp(by_draw).mean(0))
    assert left_in.sum() - expected.sum() > 1.5, "which leaving nothing out would miss"
    assert list(ranked["rank"]) == [0, 1]
    if "waic" in (functions := leaving_out(exported)):
        with warnings.catch_warnings():
            warnings.filterwarnings(
                "ignore", message="For one or more samples the posterior variance", category=UserWarning
            )
            assert abs(functions["waic"]().elpd_waic - expected.sum()) < 1.0, "close to it, and no more than that"


@functools.cache
def chains() -> lr.Posterior:
    """So few steps that they are no posterior."""
    regression = make(PRIORS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return lr.sample(
            regression.model, regression.data, num_samples=30, warmup=10, chains=2, max_tree_depth=3, progress=False,
            device="cpu",
        )  # fmt: skip


@pytest.mark.parametrize("generation", GENERATIONS)
def test_draws_of_chains_with_latents_and_padding_go_through_loo(generation: int) -> None:
    drawn = chains()
    stats_of = arviz_stats if generation else library()
    exported = drawn.to_arviz(num_particles=1, container="datatree" if generation else "inferencedata")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message="Estimated shape parameter of Pareto", category=UserWarning)
        found = stats_of.loo(exported)
    assert np.isfinite(found["elpd_loo"] if generation == 0 else found.elpd)
    some = drawn.result.posterior(drawn.data[:2], device="cpu")
    assert some.reason_against_loo() is None, "a part of what was fitted"


def test_weights_that_were_fitted_to_the_same_sequences_count_as_learned() -> None:
    data, given = counts(), fit("baseline")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        settings = {"num_samples": 4, "warmup": 2, "chains": 1, "sites": "parameters", "num_particles": 2}
        same, other = (
            lr.sample(given.model, d, given=given, progress=False, device="cpu", max_tree_depth=2, **settings)
            for d in (data[:4], data[4:])
        )
    reason = same.reason_against_loo()
    assert reason is not None
    assert "learned from the same sequences" in reason
    assert "log_likelihood" not in to_arviz(same, container="datatree", latents=False, num_particles=2).children
    assert other.reason_against_loo() is None, "weights fitted elsewhere are known constants here"
    assert "log_likelihood" in to_arviz(other, container="datatree", latents=False, num_particles=2).children
    new = other.result.posterior(data[:4], device="cpu").reason_against_loo()
    assert new is not None
    assert "4 of 4 sequences were never in the posterior" in new


def test_a_posterior_of_unknown_origin_is_not_exported_for_loo() -> None:
    regression, posterior = conjugate()
    alone = lr.Posterior(posterior.model, posterior.guide, regression.data, device="cpu")
    assert "does not come from a fit" in str(alone.reason_against_loo())
    assert alone.reason_against_loo(fully_known=True) is None
    assert torch.isfinite(lr.predictive_pit(posterior, "y", num_samples=30, leave_one_out=True).pareto_k).any()
