"""Priors of numbers that are known together: in order, or as correlations; against quadrature and SciPy."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pyro.distributions as dist
import pytest
import torch
from numpy.typing import NDArray
from pyro import poutine
from scipy import integrate, special, stats

import latentrnn as lr
from tests.registry import Fixed

Array = NDArray[np.float64]
QUIET = lr.Reporting(progress=False)
STILL = {"weight": 0.0, "input_weight": 0.0, "bias": 0.0}


def double(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_two_in_order_have_a_known_normaliser() -> None:
    prior = lr.OrderedNormal(double(3.0, 4.0), double(1.0, 2.0))
    free = stats.norm.logpdf(2.5, 3.0, 1.0) + stats.norm.logpdf(4.5, 4.0, 2.0)
    expected = free - stats.norm.logcdf(1.0 / math.sqrt(5.0))
    assert float(prior.log_prob(double(2.5, 4.5))) == pytest.approx(expected, abs=1e-8)
    assert float(prior.log_prob(double(4.5, 2.5))) == -math.inf


def test_three_in_order_integrate_to_one() -> None:
    loc, scale = double(0.0, 0.3, -0.2), double(1.0, 0.5, 2.0)
    prior = lr.OrderedNormal(loc, scale)
    inner = lambda x: stats.norm.cdf(x, 0.0, 1.0) * stats.norm.pdf(x, 0.3, 0.5) * stats.norm.sf(x, -0.2, 2.0)  # noqa: E731
    expected = math.log(integrate.quad(inner, -8, 8, epsabs=1e-12)[0])
    assert float(prior.log_order) == pytest.approx(expected, abs=1e-8)


def test_entries_that_are_alike_have_the_density_of_sorted_draws() -> None:
    prior = lr.OrderedNormal(torch.zeros(4), torch.tensor(2.0))
    x = torch.tensor([-1.0, 0.0, 0.5, 3.0])
    assert float(prior.log_prob(x)) == pytest.approx(math.log(24) + stats.norm.logpdf(x, 0, 2).sum(), rel=1e-5)
    assert bool((prior.sample(torch.Size((50,))).diff(dim=-1) > 0).all())
    middle = prior.middle
    assert bool((middle.diff() > 0).all())
    np.testing.assert_allclose(middle, 2 * stats.norm.ppf((np.arange(4) + 0.5) / 4), atol=0.01)


def test_draws_in_order_have_the_moments_of_the_density() -> None:
    torch.manual_seed(0)
    prior = lr.OrderedNormal(double(0.0, 0.0), double(1.0, 3.0))
    draws = prior.sample(torch.Size((40000,)))
    assert bool((draws.diff(dim=-1) > 0).all())
    weight = lambda x: stats.norm.pdf(x) * stats.norm.sf(x, 0.0, 3.0) * 2.0  # noqa: E731, P(x_1 < x_2) = 1/2
    mean = integrate.quad(lambda x: x * weight(x), -9, 9)[0]
    assert abs(float(draws[:, 0].mean()) - mean) < 5 * float(draws[:, 0].std()) / 200


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: lr.OrderedNormal(torch.tensor(0.0), torch.tensor(1.0)), "expected a vector of locations"),
        (lambda: lr.OrderedNormal(double(9.0, -9.0), double(1.0, 1.0)).sample(), "hardly ever in increasing order"),
    ],
)
def test_what_has_no_order_is_refused(make: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()  # type: ignore[operator]


def hidden_markov(y: Array, seen: Array | None = None) -> tuple[lr.LatentRNN, lr.SequenceData]:
    values = y if seen is None else np.where(seen, y, np.nan)
    data = lr.SequenceData.from_arrays({"y": values}, dtype=torch.float64)
    head = lr.Gaussian(
        priors={"weight": lr.OrderedNormal(double(-1.0, 2.0), double(1.0, 1.0)), "scale": dist.HalfNormal(1.0)},
        fixed={"baseline": 0.0},
    )
    latent = lr.Discrete(
        2, weights="none", priors={"transition": dist.Dirichlet(double(2.0, 1.0))}, fixed={"initial": 0.5}
    )
    model = lr.LatentRNN(
        data.spec, transition=lr.Linear(1, fixed=STILL), latent=latent, observations={"y": head}, inputs=[]
    )
    return model.double(), data


def test_a_plain_hidden_markov_model_has_the_density_that_all_paths_sum_to() -> None:
    rng = np.random.default_rng(0)
    y, seen = rng.normal(size=(2, 5, 2)), rng.random((2, 5, 2)) > 0.2
    model, data = hidden_markov(y, seen)
    means, moves, scale = np.array([[-0.5, 1.0], [0.2, 2.5]]), np.array([[0.7, 0.3], [0.1, 0.9]]), np.array([0.6, 1.2])
    values = {
        "y.readout.weight": torch.tensor(means),
        "y.scale": torch.tensor(scale),
        "latent.transition": torch.tensor(moves),
    }
    with Fixed(values):
        found = poutine.trace(model).get_trace(data)
    expected = 0.0
    for row, mask in zip(y, seen, strict=True):
        paths = []
        for path in itertools.product(range(2), repeat=5):
            log = math.log(0.5) + sum(math.log(moves[a, b]) for a, b in itertools.pairwise(path))
            log += (stats.norm.logpdf(row, means.T[list(path)], scale) * mask).sum()
            paths.append(log)
        expected += special.logsumexp(paths)
    expected += stats.norm.logpdf(means, [-1.0, 2.0], 1.0).sum() - 2 * stats.norm.logcdf(3 / math.sqrt(2))
    expected += stats.halfnorm.logpdf(scale).sum() + sum(stats.dirichlet.logpdf(row, [2.0, 1.0]) for row in moves)
    assert found.log_prob_sum().item() == pytest.approx(expected, abs=1e-8)


def test_regimes_keep_their_order_in_every_draw_and_start_in_order() -> None:
    rng = np.random.default_rng(1)
    path = (np.arange(120) // 20) % 2
    y = np.array([-1.0, 2.0])[path][None, :, None] + 0.3 * rng.normal(size=(1, 120, 1))
    model, data = hidden_markov(y)
    guide = lr.Guide(model, global_family="normal").double()
    assert guide.parameter_sites is not None
    (start,) = (v for k, v in guide.parameter_sites.state_dict().items() if "weight" in k and k.startswith("loc"))
    assert bool(torch.isfinite(start).all())
    result = lr.fit(model, guide, data, steps=400, optimizer=lr.AdamW(learning_rate=0.03), reporting=QUIET)
    draws = result.posterior(data).parameters(100)["y.readout.weight"]
    assert bool((draws.diff(dim=-1) > 0).all())
    np.testing.assert_allclose(draws.mean(0)[0], [-1.0, 2.0], atol=0.25)


def correlated(concentration: float = 2.0) -> tuple[lr.LatentRNN, lr.SequenceData]:
    rng = np.random.default_rng(2)
    y = rng.normal(size=(3, 4, 3)) * [1.0, 10.0, 0.1]
    data = lr.SequenceData.from_arrays({"y": y}, dtype=torch.float64)
    head = lr.Gaussian(
        "full",
        priors={"correlation_factor": dist.LKJCholesky(3, concentration), "scale": dist.LogNormal(0.0, 2.0)},
        fixed={"weight": 0.0, "baseline": 0.0},
    )
    model = lr.LatentRNN(
        data.spec, transition=lr.Linear(1, fixed=STILL), latent=lr.Deterministic(), observations={"y": head}, inputs=[]
    )
    return model.double(), data


def test_scales_and_correlations_are_those_of_the_covariance() -> None:
    model, data = correlated()
    scale, correlation = np.array([0.5, 8.0, 0.2]), np.array([[1.0, 0.3, -0.5], [0.3, 1.0, 0.2], [-0.5, 0.2, 1.0]])
    factor = np.linalg.cholesky(correlation)
    values = {"y.scale": torch.tensor(scale), "y.correlation_factor": torch.tensor(factor)}
    with Fixed(values):
        found = poutine.trace(model).get_trace(data)
    covariance = np.outer(scale, scale) * correlation
    y = data.observations["y"].numpy()
    expected = stats.multivariate_normal.logpdf(y.reshape(-1, 3), np.zeros(3), covariance).sum()
    expected += stats.lognorm.logpdf(scale, 2.0).sum()
    expected += float(dist.LKJCholesky(3, double(2.0)[0]).log_prob(torch.tensor(factor)))
    assert found.log_prob_sum().item() == pytest.approx(expected, abs=1e-10)
    table = model.parameters_table()
    assert table.loc["y.correlation_factor", "support"] == "Cholesky factor of correlations"


def test_known_correlations_and_scales_make_the_covariance() -> None:
    data = lr.SequenceData.from_arrays({"y": np.random.default_rng(0).normal(size=(2, 3, 2))})
    factor = [[1.0, 0.0], [0.6, 0.8]]
    head = lr.Gaussian("full", fixed={"correlation_factor": factor, "scale": [2.0, 3.0]})
    model = lr.LatentRNN(data.spec, transition=lr.GRU(2), latent=lr.Deterministic(), observations={"y": head})
    found = model.observations["y"].noise_covariance.detach().numpy()
    np.testing.assert_allclose(found, [[4.0, 3.6], [3.6, 9.0]], rtol=1e-6)
    head = lr.Gaussian("full", fixed={"correlation_factor": [[1.0, 0.0], [0.6, 0.7]]})
    with pytest.raises(ValueError, match="must be Cholesky factor of correlations"):
        lr.LatentRNN(data.spec, transition=lr.GRU(2), latent=lr.Deterministic(), observations={"y": head})


def test_a_covariance_that_an_earlier_version_saved_is_read() -> None:
    _, data = correlated()
    new = lr.LatentRNN(
        data.spec, transition=lr.GRU(2), latent=lr.Deterministic(), observations={"y": lr.Gaussian("full")}
    ).double()
    head = new.observations["y"]
    state = {f"observations.y.{name}": value.clone() for name, value in head.state_dict().items()}
    rng = np.random.default_rng(3)
    below, diagonal = np.tril(rng.normal(size=(3, 3)), -1), rng.normal(size=3)
    del state["observations.y.noise_ratio"]
    state["observations.y.noise_mixing"] = torch.tensor(below)
    state["observations.y.log_noise_scale"] = torch.tensor(diagonal)
    new.load_state_dict(new.state_dict() | state, strict=False)
    root = below + np.diag(np.exp(diagonal))
    scale = head.scale.numpy()
    np.testing.assert_allclose(
        head.noise_covariance.detach(), np.outer(scale, scale) * (root @ root.T), rtol=1e-12, atol=1e-12
    )
    with pytest.raises(RuntimeError, match="Unexpected key"):
        new.load_state_dict(new.state_dict() | {"observations.y.noise_other": torch.zeros(3)})


def test_a_prior_of_another_kind_than_the_parameter_is_refused() -> None:
    _, data = correlated()
    for head, message in (
        (lr.Gaussian("full", priors={"correlation_factor": dist.Normal(0.0, 1.0)}), "Cholesky factor of correlations"),
        (lr.Gaussian(priors={"scale": lr.OrderedNormal(torch.zeros(3), torch.ones(3))}), "values that are positive"),
        (lr.Gaussian(priors={"weight": lr.OrderedNormal(torch.zeros(4), torch.ones(4))}), r"of shape \(3, 2\)"),
    ):
        with pytest.raises(ValueError, match=message):
            lr.LatentRNN(data.spec, transition=lr.GRU(2), latent=lr.Deterministic(), observations={"y": head})
