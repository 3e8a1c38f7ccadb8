"""Bounds stay below the Kalman log evidence, importance weights average to it, and reported errors are true."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

import latentrnn as lr
from latentrnn.inference import elbo_terms
from latentrnn.inference.evidence.evidence import summarise
from latentrnn.inference.objectives.terms import log_weights
from tests import oracles
from tests.linear_gaussian import ExactGuide, Problem, as_data, as_model, exact_guide, random_problem

BUDGET = 6  # Monte Carlo standard errors


def problem_of(seed: int) -> Problem:
    return random_problem(seed, [8, 5, 3], inputs=seed % 2, hide=0.2)


def above_the_bound(weights: Tensor, evidence: np.ndarray) -> bool:
    """Whether mean log-weights (particle, sequence) exceed the evidence of any sequence by more than the budget."""
    excess = weights.mean(0) - torch.as_tensor(evidence)
    return bool((excess > BUDGET * weights.std(0) / len(weights) ** 0.5 + 1e-9).any())


def off_the_mark(weights: Tensor, evidence: np.ndarray) -> bool:
    """Whether the mean of weights / p(y) differs from one by more than the budget."""
    ratio = (weights - torch.as_tensor(evidence)).exp()
    return bool(((ratio.mean(0) - 1).abs() > BUDGET * ratio.std(0) / len(ratio) ** 0.5 + 1e-9).any())


def inexact(problem: Problem, *, inflate: float, shift: float) -> tuple[ExactGuide, np.ndarray]:
    """A Gaussian guide near the posterior, and its KL(q || p) per sequence, by NumPy."""
    form, pairs, gaps = oracles.diagonalise(problem.model), [], []
    for r in problem.recordings:
        p = oracles.dense_posterior(form.model, r.y, r.u, r.missing, with_initial=True)
        mean = p.mean.ravel()
        pairs.append((mean, p.covariance))
        moved = shift * np.sqrt(np.diag(p.covariance))
        size = len(mean)
        gaps.append(0.5 * (size * (inflate - 1 - math.log(inflate)) + moved @ np.linalg.solve(p.covariance, moved)))
    dim = len(form.model.b)
    guide = ExactGuide(pairs, initial=dim, along_time=("states", dim), inflate=inflate, shift=shift)
    return guide, np.array(gaps)


@pytest.mark.parametrize("direction", ["causal", "backward", "bidirectional"])
@pytest.mark.parametrize("spread", [0.0, 0.3, 1.0])
def test_no_random_guide_exceeds_the_evidence(direction: str, spread: float) -> None:
    problem = problem_of(1)
    data = as_data(problem)
    model = as_model(problem, data)
    guide = lr.Guide(model, encoder=lr.RNNEncoder(6, direction=direction)).double()
    with torch.no_grad():
        for parameter in guide.parameters():
            parameter += spread * torch.randn_like(parameter)
        weights = log_weights(model, guide, data, 500)
    assert not above_the_bound(weights, problem.evidence())
    elbo = summarise("elbo", weights)
    iwae = summarise("iwae", weights)
    assert (elbo.values <= iwae.values).all()
    # a log mean weight of finitely many draws is below the evidence on average; from above, Markov's inequality:
    # p(estimate > evidence + 14) < 1e-6
    assert (iwae.values < torch.as_tensor(problem.evidence()) + 14).all()


@pytest.mark.parametrize(("inflate", "shift"), [(1.3, 0.0), (1.2, 0.1), (0.8, 0.0)])
def test_the_elbo_is_the_evidence_minus_the_divergence_from_the_posterior(inflate: float, shift: float) -> None:
    problem = problem_of(2)
    data = as_data(problem)
    model = as_model(problem, data)
    guide, gap = inexact(problem, inflate=inflate, shift=shift)
    with torch.no_grad():
        weights = log_weights(model, guide, data, 4000)
    elbo = summarise("elbo", weights)
    standard = (elbo.values - torch.as_tensor(problem.evidence() - gap)) / elbo.standard_error
    assert standard.abs().max() < BUDGET
    assert gap.min() > 0.05
    assert not above_the_bound(weights, problem.evidence())
    # negative control: without the gap it would not fit
    assert ((elbo.values - torch.as_tensor(problem.evidence())) / elbo.standard_error).abs().min() > BUDGET


def test_importance_weights_average_to_the_evidence_and_tighten_the_bound() -> None:
    problem = problem_of(3)
    data = as_data(problem)
    model = as_model(problem, data)
    guide, _ = inexact(problem, inflate=1.3, shift=0.1)  # wider than the posterior: weights of finite variance
    with torch.no_grad():
        weights = log_weights(model, guide, data, 6400)
    assert not off_the_mark(weights, problem.evidence())
    bounds = []
    for count in (1, 4, 16, 64):
        estimates = torch.stack([summarise("iwae", part).values for part in weights.split(count)])
        bounds.append(estimates.mean(0))
        assert not above_the_bound(estimates, problem.evidence())
    torch.testing.assert_close(bounds[0], summarise("elbo", weights).values)
    assert (torch.stack(bounds).diff(dim=0) > 0).all()
    assert (torch.as_tensor(problem.evidence()) - bounds[-1]).max() < 0.1


@pytest.mark.parametrize(
    "broken", ["divergence dropped", "guide's density dropped", "prior dropped", "noise too small"]
)
def test_a_broken_bound_is_caught(broken: str) -> None:
    """Negative controls of the tests above: what is not a bound, or not the model's, does not pass for one."""
    problem = problem_of(4)
    data = as_data(problem)
    model = as_model(problem, data)
    guide, _ = inexact(problem, inflate=1.05, shift=0.0)
    with torch.no_grad():
        if broken == "divergence dropped":
            likelihood = [elbo_terms(model, guide, data, analytic_kl=False).elbo(kl_weight=0.0) for _ in range(200)]
            assert above_the_bound(torch.stack(likelihood)[:, None], problem.evidence().sum(keepdims=True))
            return
        if broken == "noise too small":
            model.latent.log_scale -= 0.2
        weights = log_weights(model, guide, data, 4000)
        if broken in ("guide's density dropped", "prior dropped"):
            sizes = 2.0 * (data.lengths + 1)
            weights = weights + (-1.0 if broken == "prior dropped" else 1.0) * sizes
    assert off_the_mark(weights, problem.evidence())
    if broken != "noise too small":
        assert above_the_bound(weights, problem.evidence()) == (broken == "guide's density dropped")


def test_a_posterior_reports_the_evidence_per_sequence() -> None:
    problem = problem_of(5)
    data = as_data(problem)
    posterior = lr.Posterior(as_model(problem, data), exact_guide(problem), data, device="cpu")
    for kind in ("elbo", "iwae"):
        evidence = posterior.evidence(kind, num_particles=5)
        np.testing.assert_allclose(evidence.values, problem.evidence(), rtol=0, atol=1e-9)
        assert evidence.standard_error.max() < 1e-9
        assert evidence.total == pytest.approx(problem.evidence().sum(), abs=1e-9)
        assert evidence.num_particles == 5
    np.testing.assert_allclose(posterior.log_likelihood(5), problem.evidence()[None], rtol=0, atol=1e-9)


@pytest.mark.parametrize("kind", ["elbo", "iwae"])
def test_reported_errors_are_the_spread_of_repeated_estimates(kind: str) -> None:
    problem = problem_of(6)
    data = as_data(problem)
    guide, _ = inexact(problem, inflate=1.2, shift=0.0)
    with torch.no_grad():
        weights = log_weights(as_model(problem, data), guide, data, 300 * 64)
    estimates = [summarise(kind, part) for part in weights.split(64)]
    spread = torch.stack([e.values for e in estimates]).std(0)
    reported = torch.stack([e.standard_error for e in estimates]).mean(0)
    # the standard deviation of 300 numbers has a relative error of 4%; the delta method another few
    assert ((reported / spread - 1).abs() < 0.3).all()
    total = estimates[0].total_standard_error
    assert total == pytest.approx(math.sqrt(float((estimates[0].standard_error ** 2).sum())))


def test_without_randomness_the_evidence_is_exact_and_its_error_zero() -> None:
    rng = np.random.default_rng(0)
    data = lr.SequenceData.from_arrays({"y": rng.normal(size=(3, 4, 2))}, dtype=torch.float64)
    model = lr.LatentRNN(
        data.spec, transition=lr.GRU(3), latent=lr.Deterministic(), observations={"y": lr.Gaussian()}
    ).double()
    evidence = lr.Posterior(model, lr.Guide(model), data, device="cpu").evidence("iwae")
    head = model.observations["y"]
    states = model.transition.scan(torch.ones(3, 4, 1, dtype=torch.float64), model.latent.initial_state)[0]
    eta = head.readout(states).detach().numpy()
    expected = [
        oracles.gaussian_log_prob(y, e, np.eye(2)) for y, e in zip(data.observations["y"].numpy(), eta, strict=True)
    ]
    np.testing.assert_allclose(evidence.values, expected, rtol=0, atol=1e-10)
    assert evidence.standard_error.tolist() == [0.0, 0.0, 0.0]
    assert evidence.total_standard_error == 0.0
