"""Every function of ArviZ that the documentation names, on exports, of both generations: it runs, and is right."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import arviz_plots
import arviz_stats
import numpy as np
import pyro.distributions as dist
import pytest
import torch
from scipy import stats

import latentrnn as lr
from latentrnn.support.arviz_generations import library
from tests.generations import GENERATIONS

SEQUENCES, STEPS, SCALE = 8, 6, 0.7


@functools.cache
def data() -> lr.SequenceData:
    rng = np.random.default_rng(3)
    level = 1.5 + SCALE * rng.normal(size=(SEQUENCES, STEPS, 2))
    side = {"side": np.array(["left", "right"] * (SEQUENCES // 2))}
    return lr.SequenceData.from_arrays({"y": level}, metadata=side, dt=0.1, dtype=torch.float64)


def model(spread: float = 3.0) -> lr.LatentRNN:
    priors = {"baseline": dist.Normal(0.0, spread)}
    head = lr.Gaussian(priors=priors, fixed={"weight": 0.0, "scale": SCALE})
    parts = {"latent": lr.Deterministic(fixed={"initial_state": 0.0}), "observations": {"y": head}}
    fixed = dict.fromkeys(("weight", "input_weight", "bias"), 0.0)
    return lr.LatentRNN(data().spec, transition=lr.Linear(1, fixed=fixed), **parts).double()


@functools.cache
def drawn(spread: float = 3.0) -> lr.Posterior:
    """Chains of a model whose only unknown is the level of two channels: everything learned has a posterior."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        settings = {"num_samples": 200, "warmup": 100, "chains": 2, "progress": False, "device": "cpu"}
        return lr.sample(model(spread), data(), seed=0, **settings)


@functools.cache
def export(generation: int, spread: float = 3.0, **options: Any) -> Any:
    return drawn(spread).to_arviz(container="datatree" if generation else "inferencedata", num_particles=1, **options)


@contextmanager
def quiet() -> Iterator[None]:
    """Warnings of ArviZ and of what it draws with, which are none of ours."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.mark.parametrize("generation", GENERATIONS)
def test_summary_and_trace_of_a_default_export_are_of_parameters(generation: int) -> None:
    exported = export(generation)
    with quiet():
        found = (arviz_stats if generation else library()).summary(exported)
        if generation:
            arviz_plots.plot_trace(exported, backend="none")
        else:
            library().plot_trace(exported)
    assert list(found.index) == ["y.readout.baseline[0]", "y.readout.baseline[1]"]
    mean = data().observations["y"].mean((0, 1)).numpy()
    shrunk = mean * (SEQUENCES * STEPS / SCALE**2) / (SEQUENCES * STEPS / SCALE**2 + 1 / 9)
    np.testing.assert_allclose(found["mean"].astype(float), shrunk, atol=0.05)


@pytest.mark.parametrize("generation", GENERATIONS)
def test_forest_and_energy(generation: int) -> None:
    exported = export(generation)
    with quiet():
        if generation:
            arviz_plots.plot_forest(exported, backend="none")
            arviz_plots.plot_energy(exported, backend="none")
        else:
            library().plot_forest(exported)
            library().plot_energy(exported)


@pytest.mark.parametrize("generation", GENERATIONS)
def test_predictive_checks(generation: int) -> None:
    exported = export(generation)
    with quiet():
        if generation:
            arviz_plots.plot_ppc_dist(exported, num_samples=5, backend="none")
        else:
            ax = library().plot_ppc(exported, num_pp_samples=5, mean=False)
            assert len([line for line in ax.lines if len(line.get_xdata())]) == 6


def one_left_out() -> np.ndarray:
    """log p(y_n | the other sequences), in closed form: every channel's level is Normal given them."""
    values, found = data().observations["y"].numpy(), []
    for n in range(SEQUENCES):
        rest = np.delete(values, n, 0).reshape(-1, 2)
        precision = 1 / 9 + len(rest) / SCALE**2
        mean = rest.sum(0) / SCALE**2 / precision
        covariance = SCALE**2 * np.eye(STEPS) + np.ones((STEPS, STEPS)) / precision
        found.append(
            sum(stats.multivariate_normal.logpdf(values[n, :, c], np.full(STEPS, mean[c]), covariance) for c in (0, 1))
        )
    return np.array(found)


@pytest.mark.parametrize("generation", GENERATIONS)
def test_loo_leaves_out_sequences_and_compare_ranks(generation: int) -> None:
    stats_of = arviz_stats if generation else library()
    with quiet():
        found = stats_of.loo(export(generation), pointwise=True)
        ranked = stats_of.compare({"wide": export(generation), "narrow": export(generation, 0.05)})
        same = stats_of.compare({"one": export(generation), "other": export(generation)})
    pointwise = np.asarray(found.elpd_i if generation else found.loo_i)
    np.testing.assert_allclose(pointwise, one_left_out(), atol=0.15)
    assert list(ranked.index) == ["wide", "narrow"]
    assert float(same["elpd_diff"].abs().max()) == 0.0


@pytest.mark.parametrize("generation", GENERATIONS)
def test_entries_one_step_ahead_go_through_loo_and_loo_pit(generation: int) -> None:
    """On request: under the head's name, each entry left out given those before it; sequences under theirs still."""
    exported = export(generation, pointwise="one_step_ahead")
    group = exported["log_likelihood"]
    level = np.asarray(exported["posterior"]["y.readout.baseline"])  # (chain, draw, channel)
    values = data().observations["y"].numpy()
    expected = stats.norm(level[:, :, None, None], SCALE).logpdf(values)
    np.testing.assert_allclose(np.asarray(group["y"]), expected, atol=1e-6)
    np.testing.assert_allclose(group["y"].sum(("time", "y_channel")), group["log_likelihood"], atol=1e-5)
    assert "one step ahead" in group["y"].attrs["pointwise"]
    assert "az.loo" in group["y"].attrs["good_for"]
    stats_of = arviz_stats if generation else library()
    with quiet():
        by_entry = stats_of.loo(exported, var_name="y")
        by_sequence = stats_of.loo(exported, var_name="log_likelihood")
        if generation:
            pit = np.asarray(arviz_stats.loo_pit(exported, var_names="y")["y"])
        else:
            pit = library().loo_pit(exported, y="y")
    elpd = "elpd" if generation else "elpd_loo"
    assert float(by_entry[elpd] if not generation else by_entry.elpd) < -60
    whole = float(by_sequence[elpd] if not generation else by_sequence.elpd)
    assert whole == pytest.approx(one_left_out().sum(), abs=0.5)
    transform = stats.norm(level.mean((0, 1)), SCALE).cdf(values)
    assert np.abs(np.asarray(pit).reshape(values.shape) - transform).max() < 0.15


@pytest.mark.parametrize("generation", GENERATIONS)
def test_power_scaling_sees_a_prior_that_is_too_narrow(generation: int) -> None:
    def sensitivity(spread: float) -> float:
        exported = export(generation, spread)
        with quiet():
            if generation:
                found = arviz_stats.psense(exported, group="prior")
            else:
                found = library().psens(exported, component="prior")
        return float(np.max([np.asarray(value) for value in found.data_vars.values()]))

    assert sensitivity(3.0) < 0.05
    assert sensitivity(0.05) > 0.05


def test_entries_of_a_model_with_latents_are_not_for_loo_pit() -> None:
    """Replicates run free, and densities are one step ahead: the two are not put under one name."""
    rng = np.random.default_rng(0)
    spoken = lr.SequenceData.from_arrays({"y": rng.normal(size=(3, 5, 2))})
    head = lr.Gaussian(priors={"baseline": dist.Normal(0.0, 1.0)})
    parts = {"transition": lr.GRU(2), "latent": lr.Innovations(1), "observations": {"y": head}}
    walking = lr.LatentRNN(spoken.spec, **parts)
    posterior = lr.Posterior(walking, lr.Guide(walking, encoder=lr.RNNEncoder(3)), spoken, device="cpu")
    tree = posterior.to_arviz(num_samples=4, num_particles=8, container="datatree", pointwise="one_step_ahead")
    assert "log_likelihood" not in tree.children
    found = tree["log_evidence"]
    assert "y" not in found
    assert found["y_one_step_ahead"].shape == (1, 4, 3, 5, 2)
    assert "az.loo" not in found["y_one_step_ahead"].attrs["good_for"]
    assert "not_for" in found["y_one_step_ahead"].attrs


def test_metadata_of_sequences_is_constant_data() -> None:
    for generation in (1,):
        constant = export(generation)["constant_data"]
        assert constant["side"].values.tolist() == ["left", "right"] * (SEQUENCES // 2)
        assert constant["side"].dims == ("sequence",)


def test_latents_have_a_group_of_their_own_in_memory_and_in_files(tmp_path: Any) -> None:
    import xarray

    posterior = drawn()
    tree = export(1)
    assert set(tree["posterior"].data_vars) == {"y.readout.baseline"}
    assert set(tree["latents"].data_vars) == {"states"}
    path = posterior.to_netcdf(tmp_path / "fit.nc", num_particles=1, pointwise="one_step_ahead")
    with xarray.open_datatree(path, engine="h5netcdf") as stored:
        assert set(stored["latents"].data_vars) == {"states"}
        assert set(stored["log_likelihood"].data_vars) == {"log_likelihood", "y"}


def test_other_pointwise_terms_are_refused() -> None:
    with pytest.raises(ValueError, match="pointwise must be one of 'one_step_ahead'; found 'entries'"):
        drawn().to_arviz(pointwise="entries")
