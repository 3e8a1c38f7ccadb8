"""Ranks are uniform where the posterior is exact, and tell a posterior that is too narrow or that ignores the data."""

from __future__ import annotations

import itertools
import warnings
from fractions import Fraction

import numpy as np
import pyro.distributions as dist
import pytest
import torch
from scipy import stats
from torch import Tensor, nn

import latentrnn as lr
from latentrnn.criticism.elpd import psis_weights
from tests import oracles
from tests.generations import NEEDS_ZERO, install_arviz
from tests.inference.guides.test_parameters import PRIORS, Regression, make, multivariate_guide
from tests.linear_gaussian import ExactGuide, Problem, as_data, as_model, random_problem

BUDGET = 2e-6  # probability with which one of these tests fails by chance, per assertion


# -- ranks: exact by enumeration -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def all_outcomes() -> list[lr.Calibration]:
    """Every outcome of 4 simulations with 4 draws each, all equally probable under a right posterior."""
    return [lr.Calibration(("a",), torch.tensor(r)[:, None], 4) for r in itertools.product(range(5), repeat=4)]


def test_p_values_are_exact(all_outcomes: list[lr.Calibration]) -> None:
    """An exact p-value is reached or undercut as often as it says: Prob(p <= p') = p' for every value it takes."""
    p = np.array([float(outcome.p_value) for outcome in all_outcomes])
    assert len(np.unique(p.round(9))) >= 3
    for value in np.unique(p.round(9)):
        assert (p <= value + 1e-8).mean() == pytest.approx(value, abs=1e-7)


def test_bands_hold_the_whole_distribution_as_often_as_they_say(all_outcomes: list[lr.Calibration]) -> None:
    grid, low, high = all_outcomes[0].bands(0.8)
    assert grid.tolist() == pytest.approx([0.2, 0.4, 0.6, 0.8])
    inside = [
        bool(((o.empirical()[:, 0] >= low - 1e-9) & (o.empirical()[:, 0] <= high + 1e-9)).all()) for o in all_outcomes
    ]
    # the probability comes in steps: no narrower band of that form would do
    assert 0.8 <= np.mean(inside) < 1


def test_coverage_is_exact(all_outcomes: list[lr.Calibration]) -> None:
    found = [o.coverage([0.6]) for o in all_outcomes]
    nominal = Fraction(3, 5)  # one draw left out at either end of five places
    assert found[0].level.tolist() == pytest.approx([float(nominal)])
    assert np.mean([float(f.rate) for f in found]) == pytest.approx(float(nominal))
    outside = np.mean([not bool(f.within) for f in found])
    assert outside <= 0.05
    assert bool(lr.Calibration(("a",), torch.full((400, 1), 50), 99).coverage([0.9]).within) is False


def test_large_problems_agree_with_a_simulation() -> None:
    """200 right posteriors: p-values uniform; the same ranks pushed to the ends are improbable."""
    rng = np.random.default_rng(0)
    ranks = torch.as_tensor(rng.integers(0, 100, (150, 200)))
    found = lr.Calibration(tuple(map(str, range(200))), ranks, 99)
    assert stats.kstest(found.p_value.numpy(), "uniform").pvalue > BUDGET
    assert stats.kstest(found.chi2_p_value.numpy(), "uniform").pvalue > BUDGET
    narrow = torch.as_tensor(np.floor(100 * stats.beta(0.3, 0.3).rvs((150, 1), random_state=rng)).astype(int))
    assert float(lr.Calibration(("a",), narrow, 99).p_value) < BUDGET


def test_ranks_count_the_draws_below_and_share_out_ties() -> None:
    draws = torch.tensor([[1.0, 0.0], [2.0, 0.0], [3.0, 0.0]]).repeat_interleave(1, 0)
    found = lr.rank_calibration({"a": torch.tensor([2.5, 0.0])}, {"a": draws})
    assert found.ranks[0].tolist() == [2]
    tied = lr.rank_calibration({"a": torch.zeros(4000)}, {"a": torch.zeros(3, 4000)}).ranks[:, 0]
    assert stats.chisquare(torch.bincount(tied, minlength=4).numpy()).pvalue > BUDGET


# -- latents of simulated sequences --------------------------------------------------------------------------------


class Smoother(nn.Module):
    """p(h_0, z_1, ..., z_T | y) of whatever sequences it is shown; `inflate` multiplies covariances."""

    parameter_sites = None

    def __init__(self, problem: Problem, *, inflate: float = 1.0, blind: bool = False) -> None:
        super().__init__()
        self.model, self.inflate, self.blind = oracles.diagonalise(problem.model).model, inflate, blind

    def forward(self, data: lr.SequenceData) -> dict[str, Tensor]:
        found = []
        for i, length in enumerate(data.host_lengths.tolist()):
            y, mask = data.observations["y"][i, :length].numpy(), data.masks["y"][i, :length].numpy()
            missing = np.ones_like(mask) if self.blind else ~mask
            p = oracles.dense_posterior(self.model, y, None, missing, with_initial=True)
            found.append((p.mean.ravel(), p.covariance))
        size = len(self.model.b)
        return ExactGuide(found, initial=size, along_time=("states", size), inflate=self.inflate)(data)


def smoothed(**settings: float) -> lr.Posterior:
    problem = random_problem(3, [5] * 30 + [3] * 20, hide=0.2)
    data = as_data(problem)
    return lr.Posterior(as_model(problem, data), Smoother(problem, **settings), data, device="cpu")


def test_an_exact_posterior_has_uniform_ranks_and_right_intervals() -> None:
    found = lr.simulation_based_calibration(smoothed(), num_simulations=200, num_draws=49)
    assert found.ranks.shape == (200, 8)
    assert found.names[:3] == ("initial[0]", "initial[1]", "states[0] middle")
    assert float(found.p_value.min()) > BUDGET
    assert float(found.chi2_p_value.min()) > BUDGET
    assert bool(found.coverage(error=BUDGET).within.all())
    assert "log density" in str(found)


def test_halved_scales_are_caught() -> None:
    found = lr.simulation_based_calibration(smoothed(inflate=0.25), num_simulations=200, num_draws=49)
    by_name = dict(zip(found.names, found.p_value.tolist(), strict=True))
    assert all(by_name[name] < BUDGET for name in ("states[0] middle", "states[1] mean", "log density"))
    coverage = found.coverage([0.9], error=BUDGET)
    assert float(coverage.rate[0, 2]) < 0.7
    assert not coverage.within[0, 2]


def test_a_posterior_that_ignores_the_data_is_caught_by_the_density_alone() -> None:
    """The prior passes every test of the latents by themselves (Modrák et al. 2023)."""
    found = lr.simulation_based_calibration(smoothed(blind=True), num_simulations=200, num_draws=49)
    by_name = dict(zip(found.names, found.p_value.tolist(), strict=True))
    assert by_name["log density"] < BUDGET
    assert by_name["states[0] middle"] > BUDGET
    assert by_name["distance to a reference"] > BUDGET


def test_quantities_of_one_s_own() -> None:
    def first_step(values: dict[str, Tensor], data: lr.SequenceData) -> dict[str, Tensor]:
        return {"first": values["states"][..., 0, 0]}

    found = lr.simulation_based_calibration(smoothed(), num_simulations=20, num_draws=9, quantities=first_step)
    assert found.names == ("first",)
    assert found.ranks.shape == (20, 1)


# -- parameters, by refitting --------------------------------------------------------------------------------------


def conjugate(regression: Regression, data: lr.SequenceData, narrow: float = 1.0) -> lr.Posterior:
    """The exact posterior given new values of y."""
    values = []
    for i, length in enumerate(data.host_lengths.tolist()):
        y, mask = data.observations["y"][i, :length], data.masks["y"][i, :length]
        values.append(y[mask].numpy())
    seen = Regression(regression.model, data, regression.designs, regression.noises, values, regression.prior)
    guide = multivariate_guide(seen, [0, 1, 2, 3])
    with torch.no_grad():
        guide.parameter_sites.log_scale += float(np.log(narrow))
    return lr.Posterior(regression.model, guide, data, device="cpu")


def test_parameters_by_refitting() -> None:
    regression = make(PRIORS)
    start = conjugate(regression, regression.data)
    found = lr.simulation_based_calibration(
        start, num_simulations=80, num_draws=29, refit=lambda data: conjugate(regression, data)
    )
    assert found.names[0] == "y.readout.weight[0, 0]"
    assert found.names[-2:] == ("distance to a reference", "log likelihood")
    assert float(found.p_value.min()) > BUDGET
    assert bool(found.coverage(error=BUDGET).within.all())
    narrow = lr.simulation_based_calibration(
        start, num_simulations=80, num_draws=29, refit=lambda data: conjugate(regression, data, narrow=0.4)
    )
    assert float(narrow.p_value.min()) < BUDGET
    assert not bool(narrow.coverage([0.9], error=BUDGET).within.all())


# -- probability integral transforms -------------------------------------------------------------------------------


def test_left_out_transforms_are_those_of_the_exact_predictive_density() -> None:
    regression = make(PRIORS)
    posterior = conjugate(regression, regression.data)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        found = lr.predictive_pit(posterior, "y", num_samples=600, leave_one_out=True)
    for i in range(4):
        mean, covariance = regression.posterior([j for j in range(4) if j != i])
        X, noise, y = regression.joint([i])
        expected = stats.norm.cdf(y, X @ mean, np.sqrt(np.diag(X @ covariance @ X.T + noise)))
        length = regression.data.host_lengths[i]
        values = found.values[i, :length][regression.data.masks["y"][i, :length]].numpy()
        if found.pareto_k[i] < 0.7:
            assert np.abs(values - expected).max() < 0.15
    assert bool((found.pareto_k < 0.7).any())
    assert ["Pareto k" in str(w.message) for w in told] == [True] * bool((found.pareto_k > 0.7).any())
    assert found.values[~regression.data.masks["y"]].isnan().all()


@pytest.mark.parametrize("wrong", [False, True])
def test_transforms_of_new_sequences_are_uniform(wrong: bool) -> None:
    """Counts of a known rate, randomised within ties; a rate 30% too high is caught."""
    counts = np.random.default_rng(1).poisson(0.7, (400, 3, 2)).astype(float)
    data = lr.SequenceData.from_arrays({"y": counts}, dtype=torch.float64)
    model = lr.LatentRNN(
        data.spec, transition=lr.GRU(2), latent=lr.Deterministic(), observations={"y": lr.Poisson()}
    ).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.observations["y"].readout.baseline.fill_(np.log(0.7 * (1.3 if wrong else 1.0)))
    found = lr.predictive_pit(lr.Posterior(model, lr.Guide(model), data, device="cpu"), "y", num_samples=300)
    assert found.values.shape == counts.shape
    assert bool((found.p_value < 1e-3).all()) if wrong else bool((found.p_value > BUDGET).all())


@NEEDS_ZERO
def test_both_generations_of_arviz_smooth_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("arviz_stats")

    ratios = 1.5 * torch.randn(400, 3, dtype=torch.float64)
    old = psis_weights(ratios)
    install_arviz(monkeypatch, None)
    new = psis_weights(ratios)
    assert float((old[0] - new[0]).abs().max()) < 2e-3
    torch.testing.assert_close(old[1], new[1], atol=0.05, rtol=0)
    # the largest weight belongs to the largest ratio
    assert bool((old[0].argmax(0) == ratios.argmax(0)).all())


# -- refusals and plots --------------------------------------------------------------------------------------------


def test_what_cannot_be_calibrated_is_refused() -> None:
    regression = make(PRIORS)
    posterior = conjugate(regression, regression.data)
    with pytest.raises(ValueError, match=r"have priors.*give refit="):
        lr.simulation_based_calibration(posterior)
    with pytest.raises(TypeError, match="expected a Posterior or a FitResult; found dict"):
        lr.simulation_based_calibration(posterior, refit=lambda data: {}, num_simulations=1)
    with pytest.raises(ValueError, match="num_draws must be a positive integer; found 0"):
        lr.simulation_based_calibration(posterior, num_draws=0)
    with pytest.raises(ValueError, match="refit= is for parameters with priors"):
        lr.simulation_based_calibration(smoothed(), refit=lambda data: posterior)
    data = lr.SequenceData.from_arrays({"y": np.ones((2, 6, 1))})
    fixed = lr.LatentRNN(data.spec, transition=lr.GRU(2), latent=lr.Deterministic(), observations={"y": lr.Poisson()})
    with pytest.raises(ValueError, match="neither random latents nor parameters"):
        lr.simulation_based_calibration(lr.Posterior(fixed, lr.Guide(fixed), data))
    with pytest.raises(ValueError, match="leave_one_out weighs draws of parameters"):
        lr.predictive_pit(lr.Posterior(fixed, lr.Guide(fixed), data), "y", leave_one_out=True)
    drawn = lr.LatentRNN(data.spec, transition=lr.GRU(2), latent=lr.Innovations(1), observations={"y": lr.Poisson()})
    own = lr.Guide(drawn, family=lr.PerSequence(lr.MeanField()))
    own.initialise(drawn, data)
    with pytest.raises(ValueError, match=r"PerSequence\(MeanField\(\)\) has numbers for single sequences"):
        lr.simulation_based_calibration(lr.Posterior(drawn, own, data))
    encoded = lr.Guide(drawn, encoder=lr.RNNEncoder(2))
    with pytest.raises(ValueError, match="context steps"):
        lr.simulation_based_calibration(lr.Posterior(drawn, encoded, data.windows(2, context=2)))
    with pytest.raises(ValueError, match="not numbers"):
        lr.rank_calibration({"a": torch.tensor([torch.nan])}, {"a": torch.zeros(3, 1)})


def test_plots_draw() -> None:
    found = lr.simulation_based_calibration(smoothed(inflate=0.25), num_simulations=100, num_draws=19)
    ax = found.plot()
    ax.figure.canvas.draw()
    assert {text.get_text() for text in ax.get_legend().get_texts()} <= set(found.names)
    found.coverage().plot().figure.canvas.draw()
    values = torch.rand(20, 3, 2)
    lr.PIT("y", values, 10, False, None, 0).plot(channel=1).figure.canvas.draw()


def test_priors_of_populations_are_simulated_too() -> None:
    data = lr.SequenceData.from_arrays({"y": np.ones((2, 6, 2))}, dtype=torch.float64)
    priors = {"baseline": lr.Population("base", location=dist.Normal(0.0, 1.0))}
    model = lr.LatentRNN(
        data.spec, transition=lr.GRU(2), latent=lr.Deterministic(), observations={"y": lr.Poisson(priors=priors)}
    ).double()
    start = lr.Posterior(model, lr.Guide(model).double(), data, device="cpu")
    found = lr.simulation_based_calibration(start, refit=lambda _: start, num_simulations=3, num_draws=4)
    assert {"base.location", "base.scale", "y.readout.baseline[1]"} <= set(found.names)
