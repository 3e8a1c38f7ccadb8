"""The table of parameters: ArviZ's numbers, diagnostics where there are chains, in either generation."""

from __future__ import annotations

from typing import Any

import arviz_stats
import numpy as np
import pyro.distributions as dist
import pytest
import torch

import latentrnn as lr
from latentrnn.support import arviz_generations
from tests.generations import GENERATIONS, NEEDS_ZERO, install_arviz

DIAGNOSTICS = ["mcse_mean", "mcse_sd", "ess_bulk", "ess_tail", "r_hat"]


def problem() -> tuple[lr.LatentRNN, lr.SequenceData]:
    rng = np.random.default_rng(0)
    values = [rng.normal(1.0, 2.0, (steps, 2)) for steps in (5, 3, 4)]
    data = lr.SequenceData.from_arrays({"y": values}, channel_names={"y": ["left", "right"]}, dtype=torch.float64)
    priors = {"baseline": dist.Normal(0.0, 3.0), "scale": dist.HalfNormal(3.0)}
    head = lr.Gaussian(priors=priors, fixed={"weight": 0.0})
    return lr.LatentRNN(data.spec, transition=lr.GRU(1), latent=lr.Deterministic(), observations={"y": head}), data


@pytest.fixture(scope="module")
def chains() -> lr.Posterior:
    return lr.sample(*problem(), num_samples=200, warmup=100, chains=2, device="cpu", progress=False)


@pytest.fixture(scope="module")
def at_mode() -> lr.Posterior:
    model, data = problem()
    return lr.laplace(model, data, device="cpu").posterior(data, device="cpu")


@pytest.mark.parametrize("kind", GENERATIONS)
def test_chains_show_their_diagnostics(chains: lr.Posterior, kind: int, monkeypatch: pytest.MonkeyPatch) -> None:
    install_arviz(monkeypatch, "0.23.4" if kind == 0 else "1.3.0")
    found = chains.summary(prob=0.8)
    assert found.columns.tolist() == ["mean", "sd", "10%", "90%", *DIAGNOSTICS]
    names = ["y.scale[left]", "y.scale[right]", "y.readout.baseline[left]", "y.readout.baseline[right]"]
    assert found.index.tolist() == names
    draws = {name: value.numpy() for name, value in chains.parameters(400).items()}
    columns = np.concatenate([draws["y.scale"], draws["y.readout.baseline"]], 1)
    np.testing.assert_allclose(found["mean"], columns.mean(0), rtol=1e-6)
    np.testing.assert_allclose(found["sd"], columns.std(0), rtol=3e-3)  # divisor n, or n - 1
    for end in ("10%", "90%"):
        np.testing.assert_allclose(found[end], np.percentile(columns, float(end[:-1]), axis=0), rtol=1e-6)
    for column, values in zip(names, columns.T, strict=True):
        by_chain = values.reshape(2, 200)
        for name, expected in {
            "r_hat": arviz_stats.base.array_stats.rhat(by_chain),
            "ess_bulk": arviz_stats.base.array_stats.ess(by_chain, method="bulk"),
            "ess_tail": arviz_stats.base.array_stats.ess(by_chain, method="tail", prob=(0.1, 0.9)),
        }.items():  # fmt: skip
            if name == "ess_tail":  # which quantiles are the tails is a generation's own choice
                assert 0 < found.loc[column, name] < 1000
            else:
                assert found.loc[column, name] == pytest.approx(float(expected), rel=1e-6), name
    assert float(found["r_hat"].max()) < 1.05


@NEEDS_ZERO
def test_it_is_what_arviz_says_of_the_export(chains: lr.Posterior) -> None:
    az = arviz_generations.library()
    whole = az.summary(chains.to_arviz(prior_predictive=False, latents=False), round_to="none")
    found = chains.summary()
    assert found.index.tolist() == whole.index.tolist()
    np.testing.assert_allclose(found[["mean", "sd", *DIAGNOSTICS]], whole[["mean", "sd", *DIAGNOSTICS]])


@pytest.mark.parametrize("kind", GENERATIONS)
def test_draws_of_a_guide_have_none(at_mode: lr.Posterior, kind: int, monkeypatch: pytest.MonkeyPatch) -> None:
    install_arviz(monkeypatch, "0.23.4" if kind == 0 else "1.3.0")
    found = lr.summary(at_mode, num_samples=4000)
    assert found.columns.tolist() == ["mean", "sd", "5%", "95%"]
    assert found.loc["y.scale[left]", "5%"] > 0
    np.testing.assert_array_equal(found, lr.summary(at_mode, num_samples=4000, seed=0))
    assert not np.array_equal(found, lr.summary(at_mode, num_samples=4000, seed=1))


def test_chains_that_do_not_mix_stand_out(chains: lr.Posterior) -> None:
    values = chains.guide.parameter_sites.get_buffer("values_0")
    before = values.clone()
    try:
        values[:200] += 10  # the first chain is elsewhere
        assert float(chains.summary()["r_hat"].iloc[0]) > 1.5
        assert float(chains.summary()["ess_bulk"].iloc[0]) < 10
    finally:
        values.copy_(before)


def test_what_has_no_prior_is_named() -> None:
    _, data = problem()
    head = lr.Gaussian(priors={"baseline": dist.Normal(0.0, 3.0)})
    model = lr.LatentRNN(data.spec, transition=lr.GRU(2), latent=lr.Deterministic(), observations={"y": head})
    posterior = lr.Posterior(model.double(), lr.Guide(model).double(), data, device="cpu")
    assert posterior.summary(num_samples=50).attrs["conditional_on"] == posterior.conditional_on


def test_latents_are_listed_where_they_are() -> None:
    _, data = problem()
    model = lr.LatentRNN(
        data.spec, transition=lr.GRU(2), latent=lr.Innovations(1), observations={"y": lr.Gaussian()}
    ).double()
    posterior = lr.Posterior(model, lr.Guide(model, encoder=lr.RNNEncoder(3)).double(), data, device="cpu")
    found = posterior.summary(num_samples=60, latents=True)
    assert bool(found.notna().all().all()), "padding is no entry"
    assert len(found) == (5 + 3 + 4) * 3
    with pytest.raises(ValueError, match="no parameter has a posterior"):
        posterior.summary()


def test_what_is_refused(chains: lr.Posterior) -> None:
    with pytest.raises(TypeError, match="posterior must be"):
        lr.summary(problem()[0])
    with pytest.raises(ValueError, match="prob"):
        chains.summary(prob=1.0)
    with pytest.raises(ValueError, match="a multiple of the 2 chains; found 3"):
        chains.summary(num_samples=3)
    with pytest.raises(ValueError, match="num_samples must be a positive integer"):
        chains.summary(num_samples=0)


def test_a_mixture_is_summarised_without_diagnostics() -> None:
    model, data = problem()
    settings: dict[str, Any] = {
        "steps": 2, "reporting": lr.Reporting(progress=False), "compute": lr.Compute(device="cpu"),
    }  # fmt: skip
    mixture = lr.fit_ensemble(model, lr.Guide(model), data, seeds=(0, 1), **settings).posterior(data, device="cpu")
    found = mixture.summary(num_samples=50)
    assert found.columns.tolist() == ["mean", "sd", "5%", "95%"]
    np.testing.assert_array_equal(found, lr.summary(mixture, num_samples=50))
