"""Data drawn from a model alone: parameters and latents from their priors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyro.distributions as dist
import pytest
import torch
import xarray as xr
from scipy import stats
from torch import Tensor

import latentrnn as lr
from latentrnn.support import arviz_generations
from tests import oracles
from tests.generations import CONTAINERS, NEEDS_ZERO
from tests.models.priors_everywhere import built
from tests.registry import (
    OBSERVATIONS,
    Combination,
    check_each,
    each_against_defaults,
    make_data,
    make_model,
)

SAMPLES = 20_000
FAR = 6.0  # standard errors: two in a thousand million
SMALL = {"num_samples": 4, "device": "cpu"}


def empty(*shape: int, **options: Any) -> lr.SequenceData:
    return lr.SequenceData.from_arrays({"v": np.zeros(shape)}, dtype=torch.float64, **options)


def level_model(data: lr.SequenceData, noise: float = 1e-3, level: float = 100.0) -> lr.LatentRNN:
    """One level for all that is drawn, noise, and nothing else."""
    head = lr.Gaussian(priors={"baseline": dist.Normal(1.0, level)}, fixed={"scale": noise, "weight": 0.0})
    memory = lr.LeakyIntegrator(1, fixed={"time_constant": 1.0})
    return lr.LatentRNN(data.spec, transition=memory, latent=lr.InitialState(1), observations={"v": head})


def same(one: Tensor, other: Tensor) -> bool:
    return torch.equal(one.nan_to_num(1e30), other.nan_to_num(1e30))


def standard_scores(draws: Tensor, covariance: np.ndarray) -> np.ndarray:
    """Empirical less expected second moments of draws around zero, (sample, n), in standard errors."""
    values = draws.double().numpy()
    products = values[:, :, None] * values[:, None, :]
    return (products.mean(0) - covariance) / (products.std(0) / np.sqrt(len(values)))


# -- against closed forms ------------------------------------------------------------------------------------------


def test_moments_are_those_of_the_conjugate_normal_model() -> None:
    """v ~ Normal(m, s^2) with m ~ Normal(1, 2^2) and s = 0.5: any two entries have the covariance 4, each 4.25."""
    drawn = level_model(data := empty(2, 3, 1), noise=0.5, level=2.0).prior_predictive(data, SAMPLES, device="cpu")
    entries = drawn["v"].flatten(1)
    expected = 4.0 + 0.25 * np.eye(6)
    assert abs(standard_scores(entries - 1.0, expected)).max() < FAR
    assert abs(standard_scores(entries - 1.0, 1.2 * expected)).max() > FAR  # a wrong model fails
    level = drawn.parameters["v.readout.baseline"].flatten().numpy()
    assert stats.kstest(level, stats.norm(1.0, 2.0).cdf).pvalue > 1e-6
    left = entries.numpy() - level[:, None]
    assert stats.kstest(left.flatten(), stats.norm(0.0, 0.5).cdf).pvalue > 1e-6, "draws that belong together"


def test_a_scale_with_a_prior_is_mixed_over() -> None:
    """P(v <= x) is the average of Phi(x / s) over a log-normal s, by quadrature."""
    data = empty(1, 1, 1)
    head = lr.Gaussian(priors={"scale": dist.LogNormal(0.2, 0.7)}, fixed={"weight": 0.0, "baseline": 0.0})
    model = lr.LatentRNN(data.spec, transition=lr.GRU(1), latent=lr.Deterministic(), observations={"v": head})
    found = model.prior_predictive(data, SAMPLES, device="cpu")["v"].flatten().numpy()
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    scales, weights = np.exp(0.2 + 0.7 * nodes), weights / weights.sum()
    assert stats.kstest(found, lambda x: stats.norm.cdf(x[:, None] / scales) @ weights).pvalue > 1e-6
    assert stats.kstest(found, stats.norm(0, found.std()).cdf).pvalue < 1e-6


def kernel_covariance(kind: str, times: np.ndarray, scale: float, length: float) -> np.ndarray:
    lag = abs(times[:, None] - times[None, :])
    if kind == "ar1":
        return scale**2 * np.exp(-lag / length)
    x = np.sqrt(3) * lag / length
    smooth = (1 + x) * np.exp(-x) if kind == "matern32" else np.exp(-0.5 * (lag / length) ** 2)
    return scale**2 * (0.999 * smooth + 0.001 * (lag == 0))  # a thousandth of the variance is white


@pytest.mark.parametrize("kind", ["ar1", "matern32", "squared_exponential"])
@pytest.mark.parametrize("irregular", [False, True])
def test_latents_have_the_covariances_of_their_processes(kind: str, irregular: bool) -> None:
    times = np.array([0.0, 0.1, 0.45, 0.5, 1.3]) if irregular else 0.1 * np.arange(5)
    data = empty(1, 5, 1, **({"times": times[None]} if irregular else {"dt": 0.1}))
    latent = lr.Innovations(1, prior=kind, fixed={"scale": 1.5, "time_constant": 0.3})
    heads = {"v": lr.Gaussian()}
    model = lr.LatentRNN(data.spec, transition=lr.LeakyIntegrator(1), latent=latent, observations=heads)
    found = model.prior_predictive(data, SAMPLES, device="cpu").latents["innovations"][:, 0, :, 0]
    expected = kernel_covariance(kind, times, 1.5, 0.3)
    assert abs(standard_scores(found, expected)).max() < FAR
    assert abs(standard_scores(found, kernel_covariance(kind, times, 1.5, 0.6))).max() > FAR


def test_a_prior_on_the_scale_of_a_process_widens_its_covariance() -> None:
    """E[s^2] = exp(2 m + 2 v) for a log-normal s, whatever the correlation."""
    data = empty(1, 4, 1, dt=0.1)
    latent = lr.Innovations(1, prior="ar1", fixed={"persistence": 0.6}, priors={"scale": dist.LogNormal(0.2, 0.3)})
    model = lr.LatentRNN(data.spec, transition=lr.GRU(1), latent=latent, observations={"v": lr.Gaussian()})
    drawn = model.prior_predictive(data, SAMPLES, device="cpu")
    scale2 = np.exp(2 * 0.2 + 2 * 0.3**2)
    found = drawn.latents["innovations"][:, 0, :, 0]
    assert abs(standard_scores(found, scale2 * oracles.ar1_covariance(4, 0.6, 1.0))).max() < FAR
    standard = found / drawn.parameters["latent.scale"]
    assert abs(standard_scores(standard, oracles.ar1_covariance(4, 0.6, 1.0))).max() < FAR


@pytest.mark.parametrize("latent", [lr.MarkovNormal, lr.LinearGaussian])
def test_states_of_a_linear_model_have_its_covariance(latent: type) -> None:
    """x_t = 0.8 x_{t-1} + e_t, e ~ Normal(0, 0.5^2), from x_0 ~ Normal(0, 2^2), by the matrix of all lags."""
    data = empty(1, 4, 1)
    known = {"scale": 0.5, "initial_scale": 2.0}
    model = lr.LatentRNN(
        data.spec,
        transition=lr.Linear(1, fixed={"weight": 0.8, "input_weight": 0.0, "bias": 0.0}),
        latent=latent(fixed=known),
        observations={"v": lr.Gaussian(fixed={"scale": 0.1, "weight": 1.0, "baseline": 0.0})},
    )
    drawn = model.prior_predictive(data, SAMPLES, device="cpu")
    lags = np.subtract.outer(np.arange(1, 5), np.arange(5))
    response = np.where(lags >= 0, 0.8 ** np.maximum(lags, 0), 0.0)
    expected = response @ np.diag([4.0, 0.25, 0.25, 0.25, 0.25]) @ response.T
    assert abs(standard_scores(drawn.latents["states"][:, 0, :, 0], expected)).max() < FAR
    assert abs(standard_scores(drawn["v"][:, 0, :, 0], expected + 0.01 * np.eye(4))).max() < FAR
    assert abs(standard_scores(drawn["v"][:, 0, :, 0], 1.2 * expected)).max() > FAR


# -- every family, latent and transition ---------------------------------------------------------------------------


def other_values(data: lr.SequenceData) -> lr.SequenceData:
    """The same layout with other observed values, of the same heads."""
    values = {}
    for name, tensor in data.observations.items():
        mask = data.masks[name]
        values[name] = tensor.clone()
        values[name][mask] = tensor[mask][torch.randperm(int(mask.sum()))]
    return data.with_observations(values)


def check_draws(drawn: lr.PriorPredictive, model: lr.LatentRNN, data: lr.SequenceData) -> None:
    for name, values in drawn.items():
        assert values.shape == (SMALL["num_samples"], *data.observations[name].shape), name
        inside = data.valid[..., None] if data.spec.heads[name].per_step else None
        clock = data.spec.heads[name].clock
        if inside is not None:
            inside = (torch.arange(values.shape[2]) < (data.lengths // clock)[:, None])[..., None]
        there = torch.ones_like(values, dtype=torch.bool) if inside is None else inside.expand_as(values)
        assert torch.equal(torch.isfinite(values), there), name
    assert set(drawn.parameters) == set(model.parameter_sites())
    for name, (_, start) in model.parameter_sites().items():
        assert drawn.parameters[name].shape == (SMALL["num_samples"], *start.shape), name
        assert bool(torch.isfinite(drawn.parameters[name]).all()), name
    assert set(drawn.latents) == {"states", *(site.name for site in model.latent_sites())}


def check_dims(drawn: lr.PriorPredictive, data: lr.SequenceData) -> None:
    groups = drawn.to_arviz(container="datatree")
    labelled = data.to_xarray()
    for name in drawn:
        assert groups["prior_predictive"][name].dims == ("chain", "draw", *labelled[name].dims)
    for group, kept in (("prior", drawn.parameters), ("prior_latents", drawn.latents)):
        assert (set(groups[group].data_vars) if group in groups.children else set()) == set(kept)
    for dataset in (groups[group].to_dataset() for group in groups.children if group.startswith("prior")):
        assert set(dataset.dims) == set(dataset.indexes), "every dim has a coordinate"


@pytest.mark.parametrize("parts", each_against_defaults(), ids="-".join)
def test_every_part_draws_from_itself_alone(parts: Combination) -> None:
    data = make_data(OBSERVATIONS[parts[2]])
    model, _ = make_model(*parts, data)
    drawn = model.prior_predictive(data, **SMALL)
    again, another = (model.prior_predictive(data, seed=seed, **SMALL) for seed in (0, 1))
    shuffled = model.prior_predictive(other_values(data), **SMALL)
    given = parts[2].endswith("multinomial, missing")  # totals that are not told follow from the values

    def seeds() -> None:
        assert all(same(drawn[name], again[name]) for name in drawn)
        assert not all(same(drawn[name], another[name]) for name in drawn)

    check_each({
        "draws": lambda: check_draws(drawn, model, data),
        "dims": lambda: check_dims(drawn, data),
        "seeds": seeds,
        "observed values are not used": lambda: None if given else _equal(drawn, shuffled),
    })  # fmt: skip


def _equal(one: lr.PriorPredictive, other: lr.PriorPredictive) -> None:
    assert all(same(one[name], other[name]) for name in one)
    assert all(same(one.latents[name], other.latents[name]) for name in one.latents)


@pytest.mark.parametrize("parts", each_against_defaults()[::5], ids="-".join)
def test_every_parameter_is_drawn(parts: Combination) -> None:
    model, data = built(parts)
    drawn = model.prior_predictive(data, **SMALL)
    assert drawn.conditional_on is None, "nothing is left without a prior"
    for name, values in drawn.parameters.items():
        assert bool((values.std(0) > 0).any()), name
    assert {name: values.shape[1:] for name, values in drawn.items()} == {
        name: values.shape for name, values in data.observations.items() if name in model.observations
    }


# -- layouts -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cut", [{"max_elements": 12}, {"window": lr.Window(4)}])
def test_parameters_are_the_same_in_all_parts_of_a_data_set(cut: dict[str, Any]) -> None:
    data = empty(6, 8, 1, dt=0.1)
    model = level_model(data)
    guide = lr.Guide(model, encoder=lr.RNNEncoder(3)).double()
    found = lr.Posterior(model.double(), guide, data, device="cpu", **cut).prior_predictive(5)["v"]
    assert float(found.mean((1, 2, 3)).std()) > 20
    assert float(found.std((1, 2, 3)).max()) < 1


def test_parts_make_a_whole() -> None:
    data = empty(6, 8, 1, dt=0.1)
    drawn = level_model(data).prior_predictive(data, 5, max_elements=12, device="cpu")
    level = drawn.parameters["v.readout.baseline"][:, None, None]
    assert float((drawn["v"] - level).abs().max()) < 0.01
    assert bool(torch.isfinite(drawn.latents["states"]).all())


def test_sessions_have_channels_of_their_own() -> None:
    parts = {name: empty(2, 5, size) for name, size in (("monday", 1), ("tuesday", 3))}
    data = lr.SequenceData.join(parts)
    shared = {"baseline": lr.Population("levels", location=dist.Normal(50.0, 1.0), scale=dist.HalfNormal(0.1))}
    heads = lr.per_session(data.spec, {"v": lr.Gaussian(priors=shared)})
    model = lr.LatentRNN(data.spec, transition=lr.GRU(2), latent=lr.Innovations(1), observations=heads)
    drawn = model.prior_predictive(data, 30, device="cpu")
    assert {name: tuple(values.shape) for name, values in drawn.items()} == {
        "v_monday": (30, 4, 5, 1),
        "v_tuesday": (30, 4, 5, 3),
    }
    assert set(drawn.parameters) >= {"levels.location", "levels.scale", "v_monday.readout.baseline"}
    levels = drawn.parameters["v_tuesday.readout.baseline"] - drawn.parameters["levels.location"][:, None]
    assert float((levels / drawn.parameters["levels.scale"][:, None]).abs().max()) < 5
    group = drawn.to_arviz(container="datatree")["prior_predictive"]
    there = group["v_monday"].notnull().any(("chain", "draw", "time", "v_monday_channel"))
    assert there.values.tolist() == [True, True, False, False], "of sessions without the head nothing is shown"


def test_the_context_is_given_and_nothing_else_of_the_data_is() -> None:
    values = np.arange(12.0).reshape(1, 12, 1)
    data = lr.SequenceData.from_arrays({"v": values}, dtype=torch.float64).windows(6, context=3)[1:]
    assert int(data.context) == 3
    memory = lr.History(1, filters=1, into="readout")
    heads = {"v": lr.Gaussian(feedback=memory, fixed={"scale": 1e-6})}
    model = lr.LatentRNN(data.spec, transition=lr.GRU(1), latent=lr.Deterministic(), observations=heads).double()
    drawn = model.prior_predictive(data, 2, device="cpu")["v"]
    assert torch.equal(drawn[:, 0, :3, 0], data.observations["v"][0, :3, 0].expand(2, 3))
    late = data.with_observations({"v": torch.where(torch.arange(9)[:, None] < 3, data.observations["v"], 77.0)})
    assert torch.equal(model.prior_predictive(late, 2, device="cpu")["v"], drawn)


# -- in use --------------------------------------------------------------------------------------------------------


def counting_model(data: lr.SequenceData) -> lr.LatentRNN:
    head = lr.Poisson(priors={"baseline": dist.Normal(0.5, 0.3)})
    return lr.LatentRNN(data.spec, transition=lr.GRU(3), latent=lr.Innovations(1), observations={"n": head})


def counts(mean: float, sequences: int = 5) -> lr.SequenceData:
    values = np.random.default_rng(0).poisson(mean, (sequences, 20, 2))
    return lr.SequenceData.from_arrays({"n": values}, dt=0.1)


def test_a_check_tells_a_prior_that_makes_such_data_from_one_that_does_not() -> None:
    model = counting_model(fits := counts(1.6))
    check = lr.prior_predictive_check(model.prior_predictive(fits, 300, device="cpu"))
    assert check.can_flag
    assert not check.flagged
    assert "parameters and latents from the prior" in str(check)
    wrong = lr.prior_predictive_check(model.prior_predictive(counts(40.0), 300, device="cpu"))
    assert {row["statistic"] for row in wrong.flagged} >= {"mean rate (Hz)"}
    assert len(wrong.plot(head="n")) == len(wrong.discrepancies)


@pytest.mark.parametrize("container", CONTAINERS)
def test_groups_hold_what_was_drawn(container: Any) -> None:
    drawn = counting_model(data := counts(1.6)).prior_predictive(data, 20, device="cpu")
    groups = drawn.to_arviz(container=container)
    np.testing.assert_array_equal(groups["prior_predictive"]["n"].values[0], drawn["n"].long())
    assert groups["prior_predictive"]["n"].dtype == groups["observed_data"]["n"].dtype == np.int64
    level = groups["prior"]["n.readout.baseline"]
    assert level.dims == ("chain", "draw", "n_channel")
    np.testing.assert_array_equal(level.values[0], drawn.parameters["n.readout.baseline"])
    assert "without a prior" in groups["prior"].attrs["conditional_on"]
    np.testing.assert_array_equal(groups["observed_data"]["n"], data.observations["n"])
    assert "n_mask" in groups["constant_data"]


@NEEDS_ZERO
def test_arviz_draws_a_prior_predictive_check() -> None:
    az = arviz_generations.library()
    exported = counting_model(data := counts(1.6)).prior_predictive(data, 20, device="cpu").to_arviz()
    az.plot_ppc(exported, group="prior", num_pp_samples=5)
    assert list(az.summary(exported, var_names=["n.readout.baseline"], kind="stats", group="prior").index) == [
        "n.readout.baseline[0]", "n.readout.baseline[1]",
    ]  # fmt: skip


def test_a_line_says_what_came_and_what_was_not_drawn() -> None:
    drawn = counting_model(data := counts(1.6)).prior_predictive(data, 3, latents=False, device="cpu")
    assert repr(drawn) == (
        "PriorPredictive(n: 3 samples x 5 sequences x 20 steps x 2 channels; weights as they are, without a prior, of "
        "transition, latent, observations['n'] readout weight)"
    )
    assert drawn.latents == {}
    assert set(drawn.predictive(2, heads=["n"])["n"].shape) == {2, 5, 20}
    known = level_model(empty(2, 3, 1))
    assert known.prior_predictive(empty(2, 3, 1), 2, device="cpu").conditional_on == (
        "weights as they are, without a prior, of transition, latent"
    )


def test_a_fitted_model_is_drawn_as_it_is() -> None:
    data = counts(8.0)
    model = counting_model(data)
    before = model.prior_predictive(data, 3, device="cpu")
    settings = {"steps": 3, "reporting": lr.Reporting(progress=False), "compute": lr.Compute(device="cpu")}
    fitted = lr.fit(model, lr.Guide(model, encoder=lr.RNNEncoder(3)), data, **settings)
    after = fitted.model.prior_predictive(data, 3, device="cpu")
    assert not torch.equal(after["n"], before["n"])
    assert torch.equal(after["n"], fitted.posterior(data, device="cpu").prior_predictive(3)["n"])
    assert torch.equal(model.prior_predictive(data, 3, device="cpu")["n"], before["n"])


def test_draws_need_no_values_that_the_family_could_have_made() -> None:
    """The observed values are a layout alone: zeros stand for positive numbers, too."""
    data = empty(2, 3, 1)
    model = lr.LatentRNN(data.spec, transition=lr.GRU(2), latent=lr.Deterministic(), observations={"v": lr.Gamma()})
    assert bool((model.prior_predictive(data, 3, device="cpu")["v"] > 0).all())
    with pytest.raises(ValueError, match="Gamma needs"):
        model.check(data)


def test_what_is_refused() -> None:
    data = counts(1.6)
    model = counting_model(data)
    with pytest.raises(TypeError, match="data must be a SequenceData"):
        model.prior_predictive(np.zeros((2, 3, 1)))
    with pytest.raises(ValueError, match="num_samples must be a positive integer; found 0"):
        model.prior_predictive(data, 0)
    with pytest.raises(TypeError, match="seed must be an integer"):
        model.prior_predictive(data, seed="a")
    with pytest.raises(TypeError, match="latents must be"):
        model.prior_predictive(data, latents=2)
    with pytest.raises(ValueError, match="expected by the model, but the data has only"):
        model.prior_predictive(empty(2, 3, 1))
    drawn = model.prior_predictive(data, 2, device="cpu")
    with pytest.raises(ValueError, match="there are 2 draws; found num_samples=3"):
        drawn.predictive(3)
    with pytest.raises(ValueError, match="heads"):
        drawn.predictive(heads=["v"])
    with pytest.raises(TypeError, match="prior must be a PriorPredictive"):
        lr.prior_predictive_check(data)
    with pytest.raises(ValueError, match="container must be one of"):
        drawn.to_arviz(container="zarr")
    assert isinstance(drawn.to_arviz(container="datatree"), xr.DataTree)
