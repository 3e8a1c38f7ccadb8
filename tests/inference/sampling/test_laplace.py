"""Laplace's approximation: exact for Gaussian regressions, right curvature elsewhere, honest where there is none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyro.distributions as dist
import pytest
import torch
from scipy import integrate, optimize, stats
from torch import nn

import latentrnn as lr
from tests import oracles
from tests.inference.guides.test_parameters import PRIORS, make
from tests.linear_gaussian import ExactGuide, Problem, as_data, as_model, random_problem
from tests.models import learned_parameters
from tests.oracles import Array


@pytest.mark.parametrize("covariance", ["diagonal", "full"])
def test_it_is_the_conjugate_posterior_of_a_gaussian_regression(covariance: str) -> None:
    regression = make(PRIORS, covariance)
    result = lr.laplace(regression.model, regression.data, device="cpu")
    mean, expected = regression.posterior([0, 1, 2, 3])
    joint = result.guide.parameter_sites.joint()
    assert np.abs(joint.mean.detach().numpy() - mean).max() < 1e-9
    assert np.abs(joint.covariance_matrix.detach().numpy() - expected).max() < 1e-9
    # and an ordinary result: every draw of its guide gives the evidence
    elbo = lr.elbo_terms(regression.model, result.guide, regression.data, analytic_kl=False).elbo()
    assert elbo.item() == pytest.approx(regression.evidence(), abs=1e-8)
    assert result.used == frozenset(regression.data.keys)


def test_it_is_saved_and_loaded(tmp_path: Path) -> None:
    regression = make(PRIORS)
    result = lr.laplace(regression.model, regression.data, device="cpu")
    result.save(tmp_path / "fit")
    loaded = lr.load(tmp_path / "fit")
    for name, value in result.posterior(regression.data, device="cpu").parameters(3).items():
        assert torch.equal(value, loaded.posterior(regression.data, device="cpu").parameters(3)[name])


def one_rate(prior: dist.Distribution, counts: list[float], **gain: object) -> tuple[lr.LatentRNN, lr.SequenceData]:
    """counts ~ Poisson(exp(baseline)), nothing else."""
    data = lr.SequenceData.from_arrays({"y": np.array(counts).reshape(-1, 1, 1)}, dtype=torch.float64)
    head = lr.Poisson(priors={"baseline": prior})
    model = lr.LatentRNN(data.spec, transition=lr.GRU(1), latent=lr.Deterministic(), observations={"y": head}).double()
    with torch.no_grad():
        model.observations["y"].readout.weight.zero_()
    return model, data


def test_mode_and_curvature_of_a_rate_are_those_of_scipy() -> None:
    counts = [0.0, 2.0, 1.0, 4.0, 0.0]
    model, data = one_rate(dist.Normal(0.5, 2.0), counts)

    def energy(b: float) -> float:
        return len(counts) * np.exp(b) - sum(counts) * b + (b - 0.5) ** 2 / 8

    mode = optimize.minimize_scalar(energy, bracket=(-2, 2), tol=1e-12).x
    curvature = len(counts) * np.exp(mode) + 0.25
    joint = lr.laplace(model, data, device="cpu").guide.parameter_sites.joint()
    assert joint.mean.item() == pytest.approx(mode, abs=1e-6)
    assert joint.variance.item() == pytest.approx(1 / curvature, rel=1e-6)


def test_a_positive_parameter_is_approximated_in_logarithms() -> None:
    """The mode of log b (with the Jacobian), not of b."""
    counts = [2.0, 3.0, 1.0]
    model, data = one_rate(dist.Gamma(2.0, 1.0), counts)

    def energy(x: float) -> float:  # of x = log baseline; the rate is exp(baseline)
        b = np.exp(x)
        return len(counts) * np.exp(b) - sum(counts) * b - stats.gamma(2.0).logpdf(b) - x

    mode = optimize.minimize_scalar(energy, bracket=(-2, 1), tol=1e-12).x
    step = 1e-4
    curvature = (energy(mode + step) - 2 * energy(mode) + energy(mode - step)) / step**2
    joint = lr.laplace(model, data, device="cpu").guide.parameter_sites.joint()
    assert joint.mean.item() == pytest.approx(mode, abs=1e-6)
    assert joint.variance.item() == pytest.approx(1 / curvature, rel=1e-4)


def baseline_of_a_chain() -> tuple[lr.FitResult, lr.SequenceData, Problem]:
    """A linear-Gaussian model whose baseline has a prior, with a guide of its states for one baseline."""
    problem = random_problem(5, [6, 4, 6], state_dim=1, channels=1)
    data = as_data(problem)
    fixed = as_model(problem, data)
    model = lr.LatentRNN(
        data.spec, transition=lr.Linear(1), latent=lr.MarkovNormal(),
        observations={"y": lr.Gaussian(covariance="full", priors={"baseline": dist.Normal(0.0, 1.0)})},
    ).double()  # fmt: skip
    model.load_state_dict(fixed.state_dict())
    with torch.no_grad():
        model.observations["y"].readout.baseline.copy_(fixed.observations["y"].readout.baseline + 0.2)
    form = oracles.diagonalise(problem.model)
    known = [oracles.dense_posterior(form.model, r.y, r.u, r.missing, with_initial=True) for r in problem.recordings]
    # too wide for any one baseline, as a guide that serves all of them must be
    guide = Around([(p.mean.ravel(), p.covariance) for p in known])
    return lr.FitResult(model, guide, {}, "", 0, 0, {}, frozenset()), data, problem


def exact_baseline(problem: Problem) -> tuple[float, float]:
    """Posterior mean and standard deviation, by Kalman evidence on a grid."""
    centre = problem.model.d[0]
    grid = np.linspace(centre - 3, centre + 3, 241)
    values = [_kalman(problem, b) + stats.norm.logpdf(b) for b in grid]
    weight = np.exp(np.array(values) - max(values))
    total = integrate.trapezoid(weight, grid)
    mean = integrate.trapezoid(weight * grid, grid) / total
    return mean, np.sqrt(integrate.trapezoid(weight * (grid - mean) ** 2, grid) / total)


def test_local_latents_are_integrated_out() -> None:
    fit, data, problem = baseline_of_a_chain()
    result = lr.laplace(fit.model, data, given=fit, num_particles=4000, device="cpu")
    mean, sd = exact_baseline(problem)
    joint = result.guide.parameter_sites.joint()
    # the posterior is Gaussian, so that what is left is Monte Carlo error of the integration
    assert joint.mean.item() == pytest.approx(mean, abs=0.1 * sd)
    assert joint.stddev.item() == pytest.approx(sd, rel=0.03)
    # the curvature given the latents, which a joint mode would take, is another
    steps = sum(data.host_lengths.tolist())
    assert (1 / (steps / problem.model.R[0, 0] + 1)) ** 0.5 < 0.94 * sd


class Around(nn.Module):
    """Gaussians over the latents, wider than given."""

    def __init__(self, posteriors: list[tuple[Array, Array]]) -> None:
        super().__init__()
        self.parameter_sites = None
        self.inner = ExactGuide(posteriors, initial=1, along_time=("states", 1), inflate=1.5)

    def forward(self, data: lr.SequenceData) -> dict[str, torch.Tensor]:
        values = {} if self.parameter_sites is None else self.parameter_sites()
        return values | self.inner(data)


def _kalman(problem: Problem, baseline: float) -> float:
    return Problem(replace(problem.model, d=np.array([baseline])), problem.recordings).evidence().sum()


def test_where_there_is_no_mode_it_says_so() -> None:
    """The density of a hierarchy grows without bound as its scale goes to zero and its members meet."""
    data = lr.SequenceData.from_arrays({"y": np.ones((2, 1, 4))}, dtype=torch.float64)
    head = lr.Poisson(priors={"baseline": lr.Population("rates")})
    model = lr.LatentRNN(data.spec, transition=lr.GRU(1), latent=lr.Deterministic(), observations={"y": head}).double()
    with pytest.raises(ValueError, match=r"laplace: .*(not reached within|not positive definite|not finite)"):
        lr.laplace(model, data, device="cpu")


def test_errors() -> None:
    regression = make(PRIORS)
    data = lr.SequenceData.from_arrays({"y": np.ones((2, 4, 1))})
    fixed = lr.LatentRNN(data.spec, transition=lr.GRU(2), latent=lr.Deterministic(), observations={"y": lr.Poisson()})
    with pytest.raises(ValueError, match="laplace: no parameter has a prior"):
        lr.laplace(fixed, data)
    head = lr.Poisson(priors={"baseline": dist.Normal(0.0, 1.0)})
    drawn = lr.LatentRNN(data.spec, transition=lr.GRU(2), latent=lr.Innovations(1), observations={"y": head})
    with pytest.raises(ValueError, match=r"local latents \['innovations'\] can only be integrated out with a guide"):
        lr.laplace(drawn, data)
    with pytest.raises(TypeError, match="given must be a FitResult; found int"):
        lr.laplace(regression.model, regression.data, given=3)
    with pytest.raises(TypeError, match="laplace: seed must be an integer, or None for a fresh one; found 'a'"):
        lr.laplace(regression.model, regression.data, seed="a")
    assert isinstance(lr.laplace(regression.model, regression.data, seed=None, device="cpu").seed, int)
    with pytest.raises(ValueError, match="needs all of the data at once"):
        lr.laplace(regression.model, regression.data.batch(torch.tensor([0, 2])))
    with pytest.raises(ValueError, match="given holds another model"):
        lr.laplace(drawn, data, given=lr.laplace(regression.model, regression.data, device="cpu"))


@pytest.mark.slow
def test_a_step_to_where_there_is_no_density_is_shortened() -> None:
    """Degrees of freedom that a step puts on the edge of their support, two, have no density there."""
    case = next(case for case in learned_parameters.cases() if case.name == "Volatility.df")
    model, data, site, _ = learned_parameters.planted(case, 2)
    found = (
        lr.laplace(model, data, device="cpu", check_priors=False).posterior(data, device="cpu").parameters(100)[site]
    )
    assert bool(((found > 2) & found.isfinite()).all())
