"""NUTS against posteriors that are known, and against what guides say."""

from __future__ import annotations

import functools
import warnings
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pyro.distributions as dist
import pytest
import torch
from scipy import stats
from torch import Tensor

import latentrnn as lr
from latentrnn.support import arviz_generations
from tests import oracles
from tests.inference.guides.test_parameters import PRIORS, Regression, make
from tests.inference.sampling.test_laplace import baseline_of_a_chain, exact_baseline
from tests.linear_gaussian import as_data, as_model, random_problem


@functools.cache
def regression_draws(num_samples: int = 20, warmup: int = 12) -> tuple[Regression, lr.Posterior]:
    """By default too few to say anything of their distribution."""
    regression = make(PRIORS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        found = lr.sample(
            regression.model, regression.data,
            num_samples=num_samples, warmup=warmup, chains=2, max_tree_depth=4, progress=False, device="cpu",
        )  # fmt: skip
    return regression, found


def errors(draws: Tensor, chains: lr.Chains, name: str) -> Tensor:
    """Monte Carlo standard error of each mean."""
    return draws.std(0) / chains.ess[name].clamp_min(4).sqrt()


@pytest.mark.slow
def test_draws_are_those_of_the_conjugate_posterior() -> None:
    regression, posterior = regression_draws(110, 60)
    mean, covariance = regression.posterior([0, 1, 2, 3])
    drawn, chains, start = posterior.parameters(220), posterior.chains, 0
    assert chains.num_chains == 2
    assert not chains.diverging.any()
    assert chains.largest_r_hat < 1.1
    for name, (_, value) in regression.model.parameter_sites().items():
        draws = drawn[name].double()
        expected = torch.as_tensor(mean[start : start + value.numel()]).reshape(value.shape)
        spread = torch.as_tensor(np.sqrt(np.diag(covariance))[start : start + value.numel()]).reshape(value.shape)
        assert float(((draws.mean(0) - expected) / errors(draws, chains, name)).abs().max()) < 6
        assert float((draws.std(0) / spread).log().abs().max()) < 0.3
        start += value.numel()
    held_out = lr.Posterior(posterior.model, posterior.guide, posterior.data[[1]], chains=posterior.chains)
    X, noise, y = regression.joint([1])
    expected = stats.multivariate_normal.logpdf(y, X @ mean, X @ covariance @ X.T + noise)
    assert held_out.evidence("iwae", 300).total == pytest.approx(expected, abs=0.2)


def test_fewer_draws_are_spread_over_the_chains_and_stay_together() -> None:
    _, posterior = regression_draws()
    everything, some = posterior.parameters(40), posterior.parameters(10)
    assert len(everything["y.readout.baseline"].unique(dim=0)) > 10
    for draw in range(10):
        nearby = range(4 * draw, 4 * draw + 4)  # each of four draws that follow each other is as likely
        same = [all(torch.equal(everything[name][row], some[name][draw]) for name in some) for row in nearby]
        assert any(same)
    assert posterior.parameters(100)["y.readout.baseline"].shape[0] == 100


def test_it_is_a_posterior_with_everything_that_follows() -> None:
    _, posterior = regression_draws()
    assert posterior.mean("y").shape == (4, 8, 2)
    assert posterior.predictive(20)["y"].shape == (20, 4, 8, 2)
    assert posterior.log_likelihood(num_draws=3).shape == (3, 4)
    assert posterior.one_step_ahead("y", num_draws=4).log_prob.shape[:2] == (4, 8)
    with pytest.raises(ValueError, match="draws of NUTS have no density"):
        lr.elbo_terms(posterior.model, posterior.guide, posterior.data, analytic_kl=False)
    with pytest.raises(ValueError, match="nothing to refine"):
        posterior.refined()


def test_arviz_has_chains_and_divergences() -> None:
    _, posterior = regression_draws()
    arviz = arviz_generations.library()  # of either generation
    idata = posterior.to_arviz(num_particles=1)
    assert dict(idata.posterior.sizes)["chain"] == 2
    assert idata.posterior["y.readout.weight"].shape == (2, 20, 2, 3)
    assert set(idata.sample_stats) == {
        "acceptance_rate", "diverging", "energy", "energy_error", "lp", "n_steps", "reached_max_treedepth",
        "step_size", "tree_depth",
    }  # fmt: skip
    for name, values in posterior.chains.statistics.items():
        assert np.array_equal(idata.sample_stats[name].values, values.numpy())
    assert np.isfinite(idata.sample_stats["energy"]).all()
    assert idata.log_likelihood["log_likelihood"].shape == (2, 20, 4)
    by_name = posterior.parameters(40)["y.readout.weight"].reshape(2, 20, 2, 3).numpy()
    assert np.array_equal(idata.posterior["y.readout.weight"].values, by_name)
    summary = arviz.summary(idata, var_names=["y.readout.baseline"])
    assert np.isfinite(summary["r_hat"]).all()
    thinned = posterior.to_arviz(num_samples=20, num_particles=1)
    assert thinned.posterior.sizes["draw"] == 10
    with pytest.raises(ValueError, match="expected a multiple of the 2 chains; found 21"):
        posterior.to_arviz(num_samples=21)


def test_arviz_plots_energies() -> None:
    _, posterior = regression_draws()
    arviz = arviz_generations.library()
    idata = posterior.to_arviz(num_particles=1)
    try:
        arviz.plot_energy(idata)
        assert plt.get_fignums()
    finally:
        plt.close("all")


@functools.cache
def state_draws(num_samples: int = 15, warmup: int = 15) -> tuple[lr.Posterior, np.ndarray, np.ndarray]:
    problem = random_problem(2, [3, 2], state_dim=1, channels=1)
    data = as_data(problem)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        posterior = lr.sample(
            as_model(problem, data), data,
            num_samples=num_samples, warmup=warmup, chains=2, max_tree_depth=4, progress=False, device="cpu",
        )  # fmt: skip

    form = oracles.diagonalise(problem.model)
    exact = [oracles.dense_posterior(form.model, r.y, r.u, r.missing, with_initial=True) for r in problem.recordings]
    means = np.concatenate([p.mean[:, 0] for p in exact])
    return posterior, means, np.sqrt(np.concatenate([np.diag(p.covariance) for p in exact]))


@pytest.mark.slow
def test_latents_of_a_linear_gaussian_model_are_those_of_the_smoother() -> None:
    posterior, means, spreads = state_draws(140, 60)
    drawn = posterior.latents(280)
    assert drawn["states"][:, 1, 2].isnan().all()  # beyond the second sequence's end
    states, start = drawn["states"][..., 0], drawn["initial"][..., 0]
    found = torch.cat([start[:, :1], states[:, 0], start[:, 1:], states[:, 1, :2]], 1)
    ess = posterior.chains.smallest_ess
    assert ess > 30
    assert float(((found.mean(0) - torch.as_tensor(means)) / torch.as_tensor(spreads)).abs().max()) < 6 / ess**0.5
    assert float((found.std(0) / torch.as_tensor(spreads)).log().abs().max()) < 0.35


def test_a_mixture_of_drawn_latents_is_exported_without_log_evidence(tmp_path: Path) -> None:
    """As of its members, whose drawn latents nothing integrates out; everything else is there."""
    posterior, _, _ = state_draws()
    mixture = lr.EnsemblePosterior([posterior, posterior.reseeded(1)], torch.tensor([0.5, 0.5]))
    tree = mixture.to_arviz(num_samples=8, container="datatree")
    assert "log_evidence" not in tree.children
    assert "log_likelihood" not in tree.children
    assert tree["sample_stats"]["member"].values.tolist() == [[0] * 4 + [1] * 4]
    np.testing.assert_array_equal(tree["posterior_predictive"]["y"].values[0], mixture.predictive(8)["y"])
    assert mixture.to_netcdf(tmp_path / "mixture.nc", num_samples=8).is_file()


def test_what_needs_a_density_of_latents_is_refused() -> None:
    posterior, _, _ = state_draws()
    assert posterior.mean("y", 50).shape == (2, 3, 1)
    with pytest.raises(ValueError, match=r"no density.*keep the guide of the result"):
        posterior.evidence()
    with pytest.raises(ValueError, match="no density"):
        posterior.log_likelihood()
    idata = posterior.to_arviz(num_samples=20)
    assert "log_likelihood" not in idata.groups()
    assert idata["latents"]["states"].shape[:3] == (2, 10, 2)
    other = lr.SequenceData.from_arrays({"y": np.ones((1, 3, 1))}, dtype=torch.float64)
    with pytest.raises(ValueError, match="1 of 1 sequences were not among those sampled"):
        lr.Posterior(posterior.model, posterior.guide, other, chains=posterior.chains).latents(2)
    # but those that are known may come alone, and in any order
    turned = lr.Posterior(posterior.model, posterior.guide, posterior.data[[1, 0]], chains=posterior.chains)
    torch.testing.assert_close(turned.latents(30)["initial"].flip(1), posterior.latents(30)["initial"])
    with pytest.raises(ValueError, match="no fitted guide"):
        posterior.result.save("nowhere")


@functools.cache
def integrated_draws() -> lr.Posterior:
    rng = np.random.default_rng(0)
    data = lr.SequenceData.from_arrays({"y": rng.poisson(1.0, (22, 5, 2)).astype(float)})
    head = lr.Poisson(priors={"baseline": dist.Normal(0.0, 1.0)})
    model = lr.LatentRNN(data.spec, transition=lr.GRU(3), latent=lr.InitialState(2), observations={"y": head})
    guide = lr.Guide(model, encoder=lr.RNNEncoder(3))
    fit = lr.fit(
        model, guide, data[:20], steps=3, reporting=lr.Reporting(progress=False), compute=lr.Compute(device="cpu")
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        found = lr.sample(
            model, data[:20], given=fit, sites="parameters", num_particles=8,
            num_samples=30, warmup=30, chains=2, max_tree_depth=3, progress=False, device="cpu",
        )  # fmt: skip
    return lr.Posterior(found.model, found.guide, data[20:], result=found.result, chains=found.chains)


def test_with_latents_integrated_out_the_guide_of_the_fit_stays() -> None:
    """So new sequences have latents and densities as after a fit."""
    new = integrated_draws()
    assert new.latents(4)["initial"].shape == (4, 2, 2)
    assert set(new.parameters(3)) == {"y.readout.baseline"}
    assert new.evidence("iwae", 16).values.isfinite().all()
    assert new.log_likelihood(num_draws=4).shape == (4, 2)
    assert len(new.log_likelihood(num_draws=4).unique(dim=0)) > 1
    # held out, so that leaving one out of the posterior means nothing
    exported = new.to_arviz(num_samples=4, num_particles=2)
    assert not hasattr(exported, "log_likelihood")
    assert exported["log_evidence"]["log_evidence_by_draw"].shape == (2, 2, 2)
    assert len(new.result.used) == 20


@pytest.mark.parametrize("kind", ["smc", "auto", lr.SMC(proposal="mixture"), lr.SMC(proposal="prior")], ids=str)
def test_with_latents_integrated_out_filters_find_the_evidence(kind: str | lr.SMC) -> None:
    """Against importance weights of whole paths, at six standard errors."""
    new = integrated_draws()
    found, weighed = new.evidence(kind, 2000), new.evidence("iwae", 2000)
    error = (found.standard_error.square() + weighed.standard_error.square()).sqrt()
    assert ((found.values - weighed.values).abs() < 6 * error).all()
    assert error.max() < 0.5


def test_filters_from_latents_that_were_drawn_are_refused() -> None:
    posterior, _, _ = state_draws()
    for proposal in ("guide", "mixture"):
        with pytest.raises(ValueError, match="have no family of local latents"):
            posterior.evidence(lr.SMC(proposal=proposal), 8)
    # the prior needs no guide, and so is what is chosen where it can be
    assert posterior.evidence(lr.SMC(proposal="prior"), 8).values.isfinite().all()


@pytest.mark.slow
def test_with_latents_integrated_out_the_baseline_has_its_marginal_posterior() -> None:
    fit, data, problem = baseline_of_a_chain()
    found = lr.sample(
        fit.model, data, given=fit, sites="parameters", num_particles=2000,
        num_samples=150, warmup=50, chains=2, progress=False, device="cpu",
    )  # fmt: skip
    mean, sd = exact_baseline(problem)
    drawn = found.parameters(300)["y.readout.baseline"]
    ess = found.chains.smallest_ess
    assert ess > 40
    assert abs(float(drawn.mean()) - mean) < (6 / ess**0.5 + 0.1) * sd
    assert abs(np.log(float(drawn.std()) / sd)) < 0.3


def test_errors() -> None:
    regression = make(PRIORS)
    data = lr.SequenceData.from_arrays({"y": np.ones((2, 4, 1))})
    fixed = lr.LatentRNN(data.spec, transition=lr.GRU(2), latent=lr.Deterministic(), observations={"y": lr.Poisson()})
    with pytest.raises(ValueError, match="neither random latents nor parameters"):
        lr.sample(fixed, data)
    with pytest.raises(ValueError, match="needs all of the data at once"):
        lr.sample(regression.model, regression.data.batch(torch.tensor([0])))
    with pytest.raises(ValueError, match="sites must be 'all' or 'parameters'; found 'some'"):
        lr.sample(regression.model, regression.data, sites="some")
    head = lr.Poisson(priors={"baseline": dist.Normal(0.0, 1.0)})
    drawn = lr.LatentRNN(data.spec, transition=lr.GRU(2), latent=lr.Innovations(1), observations={"y": head})
    with pytest.raises(ValueError, match="can only be integrated out with a guide"):
        lr.sample(drawn, data, sites="parameters")


MISUSE: dict[str, tuple[dict[str, Any], str]] = {
    "an array for a word": ({"sites": np.array(["all", "all"])}, "sites must be 'all' or 'parameters'"),
    "acceptance, a word": ({"target_acceptance": "a"}, r"target_acceptance must be in \(0, 1\); found 'a'"),
    "acceptance above one": ({"target_acceptance": 2.0}, r"target_acceptance must be in \(0, 1\); found 2\.0"),
    "acceptance that is no number": ({"target_acceptance": float("nan")}, r"target_acceptance must be in \(0, 1\)"),
    "no depth": ({"max_tree_depth": 0}, "max_tree_depth must be a positive integer; found 0"),
    "half a level": ({"max_tree_depth": 2.5}, r"max_tree_depth must be a positive integer; found 2\.5"),
    "endless trees": ({"max_tree_depth": 10**30}, "max_tree_depth must be a positive integer of at most 30"),
    "no particles": ({"num_particles": 0}, "num_particles must be a positive integer; found 0"),
    "seed, a word": ({"seed": "a"}, "seed must be an integer, or None"),
    "seed at the end": ({"seed": 2**63 - 1}, "seed must leave room for those of the chains"),
    "a word for a flag": ({"progress": "no"}, "progress must be True or False; found 'no'"),
}


@pytest.mark.parametrize("case", MISUSE)
def test_misuse_is_refused_by_name(case: str) -> None:
    regression = make(PRIORS)
    arguments, message = MISUSE[case]
    with pytest.raises((TypeError, ValueError), match=f"sample: {message}"):
        lr.sample(regression.model, regression.data, **({"num_samples": 2, "warmup": 2, "progress": False} | arguments))


def test_a_fresh_seed_is_told() -> None:
    regression = make(PRIORS)
    settings = {"num_samples": 2, "warmup": 2, "chains": 1, "max_tree_depth": 2, "progress": False, "device": "cpu"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # chains of two draws have not mixed
        first = lr.sample(regression.model, regression.data, seed=None, **settings)
        again = lr.sample(regression.model, regression.data, seed=first.result.seed, **settings)
    for name, value in first.parameters(2).items():
        assert torch.equal(value, again.parameters(2)[name])


# -- NUTS and SVI --------------------------------------------------------------------------------------------------


def planted() -> tuple[lr.LatentRNN, lr.SequenceData]:
    """counts ~ Poisson(exp(b + beta s)) of a stimulus whose mean is not zero, so that b and beta are correlated.

    In many sequences of two steps: nothing here depends on time, and every step of a scan costs.
    """
    rng = np.random.default_rng(4)
    stimulus = 1.0 + 0.5 * rng.normal(size=(60, 2, 1))
    counts = rng.poisson(np.exp(-0.4 + np.array([0.8, 0.3]) * stimulus)).astype(float)
    data = lr.SequenceData.from_arrays({"y": counts}, {"s": stimulus}, dtype=torch.float64)
    priors = {"baseline": dist.Normal(0.0, 2.0)}
    gain = lr.StimulusGain("s", gated=False, priors={"beta": dist.Normal(0.0, 2.0)})
    head = lr.Poisson(gain=gain, priors=priors)
    model = lr.LatentRNN(data.spec, transition=lr.GRU(1), latent=lr.Deterministic(), observations={"y": head}).double()
    return model, data


def exact(posterior: lr.Posterior) -> dict[str, tuple[Tensor, Tensor]]:
    """Means and standard deviations of b and beta by quadrature over a grid: each channel has a plane of its own.

    The predictor is linear in both; its design is read off two draws, and held against a third.
    """
    drawn = {name: value[:3].double().reshape(3, 2) for name, value in posterior.parameters(3).items()}
    b, beta = drawn["y.readout.baseline"], drawn["y.gain.beta"]
    rest = posterior.rates("y", 3).double().log().flatten(1, 2) - b[:, None]  # (draw, observation, channel)
    design = (rest[1] - rest[0]) / (beta[1] - beta[0])
    offset = rest[0] - beta[0] * design
    torch.testing.assert_close(rest[2], offset + beta[2] * design, rtol=0, atol=1e-4)
    counts = posterior.data.observations["y"].flatten(0, 1)
    grid = torch.linspace(-3, 3, 400, dtype=torch.float64)
    found: dict[str, list[tuple[Tensor, Tensor]]] = {"y.readout.baseline": [], "y.gain.beta": []}
    for channel in range(2):
        x, o, y = design[:, channel], offset[:, channel], counts[:, channel]
        slopes = grid[:, None] * x + o  # (beta, observation)
        # sum of y eta - exp(eta), eta = b + beta x + o, and both priors Normal(0, 2)
        joint = grid[:, None] * y.sum() + slopes @ y - grid.exp()[:, None] * slopes.exp().sum(1)
        weight = (joint - (grid[:, None] ** 2 + grid**2) / 8).flatten().softmax(0).reshape(400, 400)
        for name, marginal in (("y.readout.baseline", weight.sum(1)), ("y.gain.beta", weight.sum(0))):
            mean = marginal @ grid
            found[name].append((mean, (marginal @ (grid - mean) ** 2).sqrt()))
    return {name: tuple(torch.stack(part) for part in zip(*each, strict=True)) for name, each in found.items()}


@pytest.mark.slow
def test_nuts_and_svi_agree_on_gain_and_baseline() -> None:
    """With quadrature: means within Monte Carlo error, for fits a tenth of a spread more, spreads within 15%.

    Mean-field is too narrow by far.
    """
    model, data = planted()
    fits = {}
    for family in ("multivariate", "normal"):
        fits[family] = lr.fit(
            model,
            lr.Guide(model, global_family=family),
            data,
            steps=1000 if family == "multivariate" else 500,
            optimizer=lr.Adam(learning_rate=0.03),
            objective=lr.ELBO(num_particles=16),
            reporting=lr.Reporting(progress=False),
            compute=lr.Compute(device="cpu"),
        )
    # the same weights for both: those of the multivariate fit
    nuts = lr.sample(
        model, data, given=fits["multivariate"], num_samples=250, warmup=100, chains=2, progress=False, device="cpu"
    )
    laplace = lr.laplace(model, data, given=fits["multivariate"], device="cpu")
    assert nuts.chains.largest_r_hat < 1.1
    fitted = {family: fit.posterior(data, device="cpu") for family, fit in fits.items()}
    chains, ours, curved, narrow = (
        {name: value.double().flatten(1) for name, value in posterior.parameters(count).items()}
        for posterior, count in (
            (nuts, 500),
            (fitted["multivariate"], 4000),
            (laplace.posterior(data, device="cpu"), 4000),
            (fitted["normal"], 4000),
        )
    )
    assert nuts.chains.smallest_ess > 50
    for name, (mean, spread) in exact(fitted["multivariate"]).items():
        assert bool(((chains[name].mean(0) - mean).abs() < 6 * spread / nuts.chains.ess[name].flatten().sqrt()).all())
        assert bool(((chains[name].std(0) / spread).log().abs() < 0.35).all()), name
        for other in (ours, curved):
            assert bool(((other[name].mean(0) - mean).abs() < (0.1 + 5 / 4000**0.5) * spread).all()), name
            assert bool(((other[name].std(0) / spread).log().abs() < 0.15).all()), name
        assert bool((narrow[name].std(0) / spread < 0.7).all()), name


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("weights", r"weights are not finite \(observations.y.readout.weight\)"),
        ("prior", r"not finite at the start, at 'y.readout.baseline' \(-inf\)"),
        ("data", r"not finite at the start, at 'y' \(-inf\): for a head, look for values"),
    ],
)
def test_a_chain_that_cannot_start_says_where(fault: str, said: str) -> None:
    values = np.random.default_rng(0).normal(size=(2, 4, 1)) * (1e200 if fault == "data" else 1.0)
    data = lr.SequenceData.from_arrays({"y": values}, dtype=torch.float64)
    prior = dist.Normal(0.0, 1e200 if fault == "prior" else 1.0)
    heads = {"y": lr.Gaussian(priors={"baseline": prior})}
    model = lr.LatentRNN(data.spec, transition=lr.GRU(2), latent=lr.Deterministic(), observations=heads)
    if fault == "weights":
        torch.nn.init.constant_(model.observations["y"].readout.weight, torch.nan)
    with pytest.raises(ValueError, match=said):
        lr.sample(model, data, num_samples=2, warmup=1, chains=1, progress=False, device="cpu", check_priors=False)
