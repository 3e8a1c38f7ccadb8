"""Annealed weights average to the evidence; rungs of the ladder stand in order; tails are measured as elsewhere."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

import latentrnn as lr
from latentrnn.inference.evidence import ais
from latentrnn.inference.evidence.ais import anneal, schedule
from latentrnn.inference.evidence.pareto import tail_shape
from latentrnn.inference.objectives.terms import log_weights
from tests.inference.evidence.test_evidence import inexact, off_the_mark
from tests.linear_gaussian import as_data, as_model, exact_guide, file_problem, needs_files, random_problem
from tests.registry import LATENTS, OBSERVATIONS, make_data, make_model

BUDGET = 6  # Monte Carlo standard errors
SHORT = lr.AIS(temperatures=6, leapfrog=3, pilot=8)


def test_the_path_goes_from_the_guide_to_the_posterior() -> None:
    betas = schedule(16)
    assert (betas[0], betas[-1], len(betas)) == (0.0, 1.0, 17)
    steps = np.diff(betas)
    assert (steps > 0).all()
    np.testing.assert_allclose(steps, steps[::-1])
    assert steps[0] < steps[8]
    assert schedule(1) == [0.0, 1.0]


def test_from_the_exact_posterior_every_chain_gives_the_evidence() -> None:
    problem = random_problem(0, [8, 5, 1], inputs=1, hide=0.2)
    data = as_data(problem)
    weights = anneal(as_model(problem, data), exact_guide(problem), data, 4, SHORT)
    np.testing.assert_allclose(weights, np.broadcast_to(problem.evidence(), (4, 3)), rtol=0, atol=1e-9)


def wide_and_shifted(particles: int, settings: lr.AIS = SHORT) -> tuple[Tensor, np.ndarray]:
    problem = random_problem(3, [7, 4], inputs=1, hide=0.2)
    data = as_data(problem)
    guide, _ = inexact(problem, inflate=1.3, shift=0.3)
    torch.manual_seed(0)
    return anneal(as_model(problem, data), guide, data, particles, settings), problem.evidence()


def test_annealed_weights_average_to_the_evidence_and_closer_than_those_of_the_guide() -> None:
    """Two comparisons at six standard errors."""
    weights, evidence = wide_and_shifted(3000)
    assert not off_the_mark(weights, evidence)
    # one temperature is plain importance sampling
    plain, _ = wide_and_shifted(3000, lr.AIS(temperatures=1, leapfrog=1, pilot=1))
    assert not off_the_mark(plain, evidence)
    assert (weights.var(0) < 0.3 * plain.var(0)).all()
    assert off_the_mark(weights + 0.25, evidence)  # negative control


def energy_drift() -> Tensor:
    """How far five transitions move the mean of log p(y, z) from draws of the posterior, in standard errors."""
    problem = random_problem(3, [7, 4], inputs=1, hide=0.2)
    data, guide = as_data(problem), exact_guide(problem)
    torch.manual_seed(0)
    chains = ais.Annealer(as_model(problem, data), guide, data, 2000, ais.guide_scales(guide, data))
    point = first = chains.start()
    for _ in range(5):
        point, accepted = chains.move(point, 0.5, torch.full((2,), 0.25, dtype=torch.float64), 3)
        assert ((accepted.mean(0) > 0.3) & (accepted.mean(0) < 0.99)).all()
    drift = point.model - first.model
    return drift.mean(0) / (drift.std(0) / len(drift) ** 0.5)


def test_transitions_leave_the_posterior_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (energy_drift().abs() < BUDGET).all()
    kinetic = ais.kinetic_energy
    monkeypatch.setattr(ais, "kinetic_energy", lambda momentum: 0.8 * kinetic(momentum))  # negative control
    assert (energy_drift().abs() > BUDGET).all()


@pytest.mark.slow
def test_a_narrow_guide_is_mended() -> None:
    """Its importance weights have a tail so heavy that one of them decides; annealed they are near the evidence."""
    problem = random_problem(4, [6])
    data = as_data(problem)
    guide, _ = inexact(problem, inflate=0.3, shift=0.0)
    posterior = lr.Posterior(as_model(problem, data), guide, data, device="cpu")
    annealed = posterior.evidence(lr.AIS(temperatures=40, leapfrog=6), 100)
    plain = posterior.evidence("iwae", 100)
    truth = torch.as_tensor(problem.evidence())
    assert abs(annealed.values - truth) < BUDGET * annealed.standard_error + 0.2
    assert annealed.effective_sample_size > 3 * plain.effective_sample_size
    assert plain.pareto_k > 0.7


@pytest.mark.parametrize("latent", [name for name in LATENTS if name != "deterministic"])
def test_every_latent_is_annealed(latent: str) -> None:
    data = make_data(OBSERVATIONS["several"], (4, 2))
    model, guide = make_model("gru", latent, "several", data)
    torch.manual_seed(0)
    weights = anneal(model, guide, data, 3, lr.AIS(temperatures=3, leapfrog=2, pilot=2))
    assert weights.shape == (3, len(data))
    assert torch.isfinite(weights).all()


def test_padding_stays_where_it_is_and_changes_nothing() -> None:
    """A sequence alone, and beside a longer one with the same random numbers: the same law of weights."""
    problem = random_problem(5, [3, 9])
    data = as_data(problem)
    guide, _ = inexact(problem, inflate=1.4, shift=0.3)
    model = as_model(problem, data)
    chains = ais.Annealer(model, guide, data, 5, ais.guide_scales(guide, data))
    point = chains.start()
    moved, _ = chains.move(point, 0.5, torch.full((2,), 0.3, dtype=torch.float64), 4)
    assert torch.equal(moved.values["states"][:, 0, 3:], point.values["states"][:, 0, 3:])
    assert not torch.equal(moved.values["states"][:, 0, :3], point.values["states"][:, 0, :3])
    assert not torch.equal(moved.values["states"][:, 1, 3:], point.values["states"][:, 1, 3:])


def test_parameters_with_posteriors_are_drawn_for_every_chain() -> None:
    data = make_data(OBSERVATIONS["gaussian priors"])
    model, guide = make_model("gru", "innovations", "gaussian priors", data)
    with torch.no_grad():
        for scale in guide.parameter_sites.log_scale.values():
            scale.fill_(-2.0)
        model.observations["y"].log_noise_scale.fill_(0.5)  # so that the prior is not far from the posterior
        model.latent.log_scale.zero_()
        head = guide.local.heads["innovations"]
        head.map.weight.mul_(0.1)
        head.map.bias.copy_(torch.tensor([0.0, 0.0, 1.6, 1.6]))
    posterior = lr.Posterior(model, guide, data, device="cpu")
    iwae, annealed = posterior.evidence("iwae", 10_000), posterior.evidence(SHORT, 400)
    error = (annealed.standard_error**2 + iwae.standard_error**2).sqrt()
    assert ((annealed.values - iwae.values).abs() < BUDGET * error).all()
    assert error.max() < 0.3


# -- the ladder ------------------------------------------------------------------------------------------------------


def test_the_rungs_stand_in_order_below_the_evidence() -> None:
    problem = random_problem(6, [8, 5, 3], inputs=1, hide=0.2)
    data = as_data(problem)
    guide, gap = inexact(problem, inflate=1.4, shift=0.2)
    posterior = lr.Posterior(as_model(problem, data), guide, data, device="cpu")
    truth = torch.as_tensor(problem.evidence())
    rungs = {kind: posterior.evidence(kind, 200) for kind in ("elbo", "iwae")}
    rungs["smc"] = posterior.evidence(lr.SMC(proposal="prior"), 200)
    rungs["ais"] = posterior.evidence(lr.AIS(20, 4), 200)
    for rung in rungs.values():
        assert (rung.values < truth + BUDGET * rung.standard_error).all()
    assert (rungs["elbo"].values < rungs["iwae"].values).all()
    for kind in ("iwae", "smc", "ais"):
        assert ((rungs[kind].values - truth).abs() < BUDGET * rungs[kind].standard_error).all()
    assert gap.min() > 0.1
    # within one set of draws the bound never falls as more of them are averaged in groups
    with torch.no_grad():
        weights = log_weights(as_model(problem, data), guide, data, 4096)
    bounds = [torch.logsumexp(weights.reshape(-1, k, 3), 1).mean(0) - np.log(k) for k in (1, 2, 8, 32, 128)]
    assert (torch.stack(bounds).diff(dim=0) > 0).all()
    assert rungs["elbo"].pareto_k is None
    assert rungs["elbo"].effective_sample_size is None
    assert rungs["iwae"].pareto_k.shape == rungs["iwae"].effective_sample_size.shape == (3,)


def test_without_local_latents_every_kind_is_the_same_and_exact() -> None:
    data = make_data(OBSERVATIONS["poisson"])
    model, _ = make_model("gru", "deterministic", "poisson", data)
    posterior = lr.Posterior(model, lr.Guide(model), data, device="cpu")
    found = [posterior.evidence(kind, 7) for kind in ("elbo", "iwae", "smc", "ais", lr.SMC(), lr.AIS())]
    for each in found:
        assert torch.equal(each.values, found[0].values)
        assert each.standard_error.tolist() == [0.0] * 3
        assert each.pareto_k is None
        assert each.effective_sample_size is None


@needs_files
@pytest.mark.slow
def test_other_people_s_instance_is_annealed_to_its_evidence() -> None:
    problem, evidence = file_problem("lgssm_small", hide=True)
    data = as_data(problem)
    guide, _ = inexact(problem, inflate=1.3, shift=0.1)
    posterior = lr.Posterior(as_model(problem, data), guide, data, device="cpu")
    found = posterior.evidence(lr.AIS(temperatures=40, leapfrog=6), 64)
    assert abs(float(found.values) - evidence) < BUDGET * float(found.standard_error)
    assert found.standard_error < 0.5


@pytest.mark.slow
def test_on_counts_the_rungs_agree_with_a_long_annealing() -> None:
    """No exact answer here: a fitted guide, filters with and without it, and a long annealing must say the same."""
    rng = np.random.default_rng(0)
    z, counts = np.zeros((40, 2)), []
    for _ in range(12):
        z = 0.9 * z + 0.4 * rng.normal(size=z.shape)
        counts.append(rng.poisson(np.exp(z @ np.array([[0.8, -0.5, 0.3], [0.2, 0.7, -0.8]]) + 0.3)))
    data = lr.SequenceData.from_arrays({"n": np.stack(counts, 1).astype(float)})
    model = lr.LatentRNN(data.spec, transition=lr.Linear(2), latent=lr.MarkovNormal(), observations={"n": lr.Poisson()})
    guide = lr.Guide(model, encoder=lr.RNNEncoder(16), family=lr.GaussianChain())
    result = lr.fit(
        model, guide, data, seed=0, steps=300, reporting=lr.Reporting(progress=False), compute=lr.Compute(device="cpu")
    )
    posterior = result.posterior(data[:6], device="cpu")
    long = posterior.evidence(lr.AIS(temperatures=60, leapfrog=8), 64)
    assert long.standard_error.max() < 0.15
    rungs = {
        "iwae": posterior.evidence("iwae", 4000),
        "smc": posterior.evidence(lr.SMC(num_filters=16), 300),
        "bootstrap": posterior.evidence(lr.SMC(num_filters=16, proposal="prior"), 1000),
    }
    for rung in rungs.values():
        error = (rung.standard_error**2 + long.standard_error**2).sqrt()
        assert ((rung.values - long.values).abs() < BUDGET * error + 0.02).all()
        assert rung.standard_error.max() < 0.3
    elbo = posterior.evidence("elbo", 4000)
    assert (elbo.values < long.values).all()
    # negative control: another model's evidence differs by more
    other = lr.Posterior(result.model, result.guide, data[6:12], device="cpu").evidence("iwae", 1000)
    assert ((other.values - long.values).abs() > 1.0).any()


# -- tails -----------------------------------------------------------------------------------------------------------


def test_the_shape_of_the_tail_is_arviz_s() -> None:
    arviz = pytest.importorskip("arviz_stats.base").array_stats
    rng = np.random.default_rng(0)
    for count in (30, 200, 3000):
        weights = rng.normal(size=(count, 4)) * [0.3, 1.0, 3.0, 8.0]
        found = tail_shape(torch.as_tensor(weights))
        expected = [float(arviz.psislw(-weights[:, i])[1]) for i in range(4)]
        np.testing.assert_allclose(found, expected, rtol=0.03, atol=2e-3)  # they differ in how a quartile is rounded


@pytest.mark.parametrize("shape", [0.1, 0.5, 1.0])
def test_the_shape_of_a_pareto_tail_is_found(shape: float) -> None:
    drawn = stats.genpareto(shape).rvs(size=(20_000, 8), random_state=1)
    found = tail_shape(torch.as_tensor(np.log1p(drawn)))
    # 424 in the tail: a standard error of (1 + k) / sqrt(424), and eight of them
    assert abs(found.mean().item() - shape) < BUDGET * (1 + shape) / np.sqrt(8 * 424) + 0.03


def test_too_few_weights_have_no_tail_and_equal_ones_a_light_one() -> None:
    assert torch.isnan(tail_shape(torch.randn(20, 3))).all()
    assert torch.equal(tail_shape(torch.zeros(100, 2)), torch.zeros(2, dtype=torch.float64))
    with pytest.raises(ValueError, match="AIS: leapfrog must be"):
        lr.AIS(leapfrog=0)
