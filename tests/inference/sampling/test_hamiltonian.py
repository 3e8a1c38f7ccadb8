"""The no-U-turn sampler and its parts against densities that are known."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from scipy import stats
from torch import Tensor

import latentrnn as lr
from latentrnn.inference.sampling.hamiltonian.density import FlatDensity
from latentrnn.inference.sampling.hamiltonian.metric import Metric
from latentrnn.inference.sampling.hamiltonian.sampler import Sampled, run
from latentrnn.inference.sampling.hamiltonian.trajectory import Evaluating, Point, Trajectories
from latentrnn.inference.sampling.hamiltonian.warmup import StepSize, window_ends
from latentrnn.support.recorded import recorded
from tests.linear_gaussian import as_data, as_model, random_problem

# -- operations of a function --------------------------------------------------------------------------------------


def test_operations_are_those_of_function_and_gradient() -> None:
    weights = torch.randn(3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    calls = []

    def function(x: Tensor) -> tuple[Tensor, Tensor]:
        calls.append(1)
        point = x.detach().requires_grad_()
        value = ((weights @ weights.T).tanh() @ point).exp().sum() + (point.split([1, 2])[1] ** 3).prod()
        return value.detach(), torch.autograd.grad(value, point)[0]

    example, other = torch.ones(3, dtype=torch.float64), torch.tensor([0.3, -1.0, 2.0], dtype=torch.float64)
    repeat = recorded(function, example)
    assert len(calls) == 1
    for found, expected in zip(repeat(other), function(other), strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=0)
    before = repeat(other)
    weights.zero_()  # of which all that counts was computed once
    for found, expected in zip(repeat(other), before, strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_memory_that_is_written_into_is_written_anew() -> None:
    """A buffer that depends on the argument is no constant, though it is made without it; one that does not is."""

    def function(x: Tensor) -> Tensor:
        table, fixed = torch.zeros(4), torch.zeros(2)
        fixed += 1.0
        view = table[1:3]
        view += x
        table[0].copy_(fixed[0])
        return table * 2

    repeat = recorded(function, torch.tensor([1.0, 2.0]))
    for _ in range(2):  # nothing is left of an earlier call
        assert repeat(torch.tensor([3.0, 4.0])).tolist() == [2.0, 6.0, 8.0, 0.0]


def test_an_index_that_leaves_an_axis_whole_is_repeated() -> None:
    """As where a triangular matrix is filled for many chains at once: torch's own `index_put` takes no such index."""
    columns = torch.tensor([2, 0])

    def function(x: Tensor) -> Tensor:
        table = x.new_zeros(2, 3)
        table[:, columns] = x.reshape(2, 2)
        return table**2

    repeat = recorded(function, torch.ones(4))
    assert repeat(torch.tensor([1.0, 2.0, 3.0, 4.0])).tolist() == [[4.0, 0.0, 1.0], [16.0, 0.0, 9.0]]


def test_steps_of_python_that_depend_on_values_are_refused() -> None:
    for branches in (lambda x: x.sum() > 0, lambda x: torch.equal(x, x.abs()), lambda x: float(x.sum()) > 0):
        with pytest.raises(RuntimeError, match="a step of Python depends on a value"):
            recorded(lambda x, branches=branches: x * 2 if branches(x) else x, torch.ones(2))


# -- densities of programs -----------------------------------------------------------------------------------------


def mixed() -> None:
    """A program with every kind of support, a plate, a scale and a mask."""
    scale = pyro.sample("scale", dist.HalfCauchy(torch.tensor(2.0, dtype=torch.float64)))
    weights = pyro.sample("weights", dist.Dirichlet(torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)))
    share = pyro.sample("share", dist.Beta(torch.tensor(2.0, dtype=torch.float64), 3.0))
    with pyro.plate("rows", 2), poutine.scale(scale=2.5):
        rows = pyro.sample("rows_", dist.Normal(share, scale))
        pyro.sample("y", dist.Normal(rows, scale).mask(torch.tensor([True, False])), obs=torch.tensor([0.3, 0.4]))
    pyro.factor("extra", (weights * torch.arange(3)).sum())


def branching() -> None:
    """A program whose operations depend on a value."""
    x = pyro.sample("x", dist.Normal(torch.zeros((), dtype=torch.float64), 1.0))
    pyro.sample("y", dist.Normal(x if x > 0 else 2 * x, 1.0), obs=torch.tensor(0.5, dtype=torch.float64))


def chained() -> Any:
    problem = random_problem(2, [3, 2], state_dim=1, channels=1)
    data = as_data(problem)
    return functools.partial(as_model(problem, data).double(), data)


def recurrent(transition: lr.Transition) -> Any:
    values = np.random.default_rng(0).poisson(1.0, (2, 4, 2)).astype(float)
    data = lr.SequenceData.from_arrays({"y": values}, dtype=torch.float64)
    head = lr.Poisson(priors={"baseline": dist.Normal(0.0, 1.0), "weight": dist.Normal(0.0, 1.0)})
    model = lr.LatentRNN(data.spec, transition=transition, latent=lr.Innovations(2), observations={"y": head})
    return functools.partial(model.double(), data)


PROGRAMS = {
    "all supports": lambda: mixed,
    "branching": lambda: branching,
    "Markov latents": chained,
    "GRU": lambda: recurrent(lr.GRU(3)),
    "LSTM": lambda: recurrent(lr.LSTM(3)),
    "linear": lambda: recurrent(lr.Linear(3)),
}


def log_density(program: Any, density: FlatDensity, flat: Tensor) -> Tensor:
    """By Pyro's handlers and torch's transforms, one vector at a time."""
    values, total = {}, torch.zeros((), dtype=torch.float64)
    for (name, site), part in zip(density.sites.items(), flat.split(density.sizes), strict=True):
        values[name] = site.transform(part.reshape(site.shape))
        total = total + site.transform.log_abs_det_jacobian(part.reshape(site.shape), values[name]).sum()
    return total + poutine.trace(poutine.condition(program, data=values)).get_trace().log_prob_sum()


@pytest.mark.parametrize("name", PROGRAMS)
def test_density_and_gradient_are_those_of_the_program(name: str) -> None:
    program = PROGRAMS[name]()
    density, random = FlatDensity(program), np.random.default_rng(0)
    evaluate = density.evaluator(random.normal(size=(3, density.dim)))
    for _ in range(3):
        places = random.normal(size=(3, density.dim))
        found, gradients = evaluate(places)
        for place, value, gradient in zip(places, found, gradients, strict=True):
            point = torch.tensor(place, requires_grad=True)
            expected = log_density(program, density, point)
            assert value == pytest.approx(expected.item(), rel=1e-10)
            np.testing.assert_allclose(gradient, torch.autograd.grad(expected, point)[0], rtol=1e-8, atol=1e-8)


def test_values_and_flat_vectors_turn_into_each_other() -> None:
    density = FlatDensity(mixed)
    flat = torch.randn(density.dim, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert density.values(flat.expand(5, 2, -1))["weights"].shape == (5, 2, 3)
    values = density.values(flat)
    assert values["weights"].sum() == pytest.approx(1.0)
    torch.testing.assert_close(density.flat(values, torch.zeros_like(flat)), flat)
    del values["share"]  # of which nothing is known
    place = density.sizes[0] + density.sizes[1]
    known = torch.arange(density.dim) != place
    torch.testing.assert_close(density.flat(values, flat + 1)[known], flat[known])
    assert density.flat(values, flat + 1)[place] == flat[place] + 1


# -- metric, step size, trajectories -------------------------------------------------------------------------------


def correlated(dim: int, *, seed: int = 0) -> np.ndarray:
    """A covariance with correlations and scales from 0.01 to 100."""
    random = np.random.default_rng(seed)
    scales = 10.0 ** random.uniform(-2, 2, dim)
    factor = random.normal(size=(dim, dim + 2))
    covariance = factor @ factor.T / dim
    spreads = np.sqrt(np.diag(covariance))
    return covariance / np.outer(spreads, spreads) * np.outer(scales, scales)


@pytest.mark.parametrize("count", [200, 6])
def test_metric_of_a_normal_makes_it_round(count: int) -> None:
    """Exactly up to what the prior of one draw leaves, with many draws; with few it is better than scales alone."""
    covariance = correlated(8)
    random = np.random.default_rng(1)
    draws = random.multivariate_normal(np.arange(8.0), covariance, count)
    gradients = -(draws - np.arange(8.0)) @ np.linalg.inv(covariance)
    metric = Metric.estimated(draws, gradients)
    alone = Metric.diagonal(np.sqrt(np.diag(covariance)))

    def condition(metric: Metric) -> float:
        root = np.stack([metric.velocity(row) for row in np.eye(8)], 1)
        inverse = np.linalg.inv(root)
        return float(np.linalg.cond(inverse @ covariance @ inverse.T))

    # a direction within a factor of two of the scales is left as it is
    assert condition(metric) < (4.5 if count > 8 else condition(alone))
    for row in random.normal(size=(3, 8)):
        other = random.normal(size=8)
        assert metric.velocity(row) @ other == pytest.approx(row @ metric.slope(other))


def normal(position: np.ndarray) -> tuple[float, np.ndarray]:
    return -0.5 * float(position @ position), -position


def answered(steps: Evaluating[Any]) -> Any:
    """What a generator returns whose positions are evaluated under a standard Normal."""
    try:
        position = next(steps)
        while True:
            position = steps.send(normal(position))
    except StopIteration as end:
        return end.value


def test_leapfrog_is_reversible_and_of_second_order() -> None:
    random = np.random.default_rng(0)
    trajectories = Trajectories(0.1, Metric.diagonal(np.array([1.0, 0.5, 2.0])), 5, random)
    position = random.normal(size=3)
    begin = trajectories.start(Point(position, *normal(position), position, position))
    errors = []
    for size in (0.1, 0.05):
        end = begin
        for _ in range(round(1 / size)):
            end = answered(trajectories.step(end, size))
        errors.append(abs(end.energy - begin.energy))
        for _ in range(round(1 / size)):
            end = answered(trajectories.step(end, -size))
        np.testing.assert_allclose(end.position, begin.position, atol=1e-12)
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.1)


def test_trajectories_end_where_they_turn_and_no_later_than_allowed() -> None:
    """A standard Normal comes back after half a turn, pi: 31 steps of 0.1, of which the next doubling takes note."""
    random = np.random.default_rng(0)
    position = np.array([1.0, -1.0])
    point = Point(position, *normal(position), position, position)
    reached = {3: 0, 10: 0}
    for depth in reached:
        trajectories = Trajectories(0.1, Metric.diagonal(np.ones(2)), depth, random)
        for _ in range(50):
            _, draw = answered(trajectories.draw(point))
            assert draw.n_steps <= min(2**draw.tree_depth - 1, 63)
            assert draw.tree_depth <= depth
            assert not draw.reached_max_treedepth or (draw.n_steps == 7 and depth == 3)
            assert not draw.diverging
            reached[depth] += draw.reached_max_treedepth
    assert reached[3] > 25
    assert reached[10] == 0


def test_step_size_comes_to_its_target() -> None:
    learner = StepSize(5.0, 0.8)
    for _ in range(400):
        learner.update(float(np.exp(-learner.current)))  # acceptance 0.8 at 0.223
    assert learner.averaged == pytest.approx(-np.log(0.8), rel=0.1)


@pytest.mark.parametrize("warmup", [1, 2, 7, 10, 20, 75, 150, 500, 2000])
def test_windows_leave_draws_for_the_last_step_size(warmup: int) -> None:
    ends = window_ends(warmup)
    assert all(b - a >= 10 for a, b in zip([0, *ends], ends, strict=False))
    assert all(end < warmup for end in ends)
    assert bool(ends) == (warmup >= 15)


# -- draws ---------------------------------------------------------------------------------------------------------


def drawn(program: Any, *, chains: int = 4, num_samples: int = 500, warmup: int = 300, seed: int = 0) -> Sampled:
    density = FlatDensity(program)
    starts = [np.random.default_rng([seed, number, 1]) for number in range(chains)]
    return run(
        density, [functools.partial(random.uniform, -2, 2, density.dim) for random in starts],
        num_samples=num_samples, warmup=warmup, target_acceptance=0.8, max_tree_depth=10, seed=seed, progress=False,
    )  # fmt: skip


def summary(found: Sampled) -> lr.Chains:
    of = found.statistics
    return lr.Chains.of(found.values, of["diverging"], of["acceptance_rate"].mean(1), of["step_size"][:, 0])


def normal_program(covariance: np.ndarray) -> Any:
    factor = torch.linalg.cholesky(torch.as_tensor(covariance))
    mean = torch.arange(len(covariance), dtype=torch.float64)
    return lambda: pyro.sample("x", dist.MultivariateNormal(mean, scale_tril=factor))


def departure(found: Sampled, covariance: np.ndarray) -> tuple[float, float, float]:
    """Means in standard errors, and mean and spread of the squared distances, whose law is chi squared."""
    draws = found.values["x"].numpy()
    dim = len(covariance)
    ess = summary(found).ess["x"].numpy()
    z = (draws.mean((0, 1)) - np.arange(dim)) / np.sqrt(np.diag(covariance) / ess)
    centred = draws.reshape(-1, dim) - np.arange(dim)
    squares = np.einsum("ni,ij,nj->n", centred, np.linalg.inv(covariance), centred)
    return float(np.abs(z).max()), float(squares.mean() / dim), float(stats.kstest(squares, "chi2", (dim,)).statistic)


@pytest.mark.slow
def test_draws_of_a_correlated_normal() -> None:
    """Failure budget 1e-6: means at six standard errors, distances by a bound five times their usual departure."""
    covariance = correlated(6)
    found = drawn(normal_program(covariance))
    worst, ratio, distance = departure(found, covariance)
    assert worst < 6
    assert abs(ratio - 1) < 0.15
    assert distance < 0.1
    assert not found.statistics["diverging"].any()
    assert summary(found).largest_r_hat < 1.03
    # the metric has learnt scales and correlations: a round Normal takes few steps
    assert found.statistics["n_steps"].double().mean() < 12
    # the negative control: of a Normal with spreads 1.3 times as wide
    _, ratio, distance = departure(found, covariance * 1.3**2)
    assert abs(ratio - 1) > 0.15
    assert distance > 0.1


@pytest.mark.slow
def test_draws_follow_priors_of_every_support() -> None:
    """Budget 1e-6: Kolmogorov-Smirnov distances of thinned draws to the marginals, p above 1e-7 each."""

    def program() -> None:
        pyro.sample("beta", dist.Beta(torch.tensor(2.0, dtype=torch.float64), 5.0))
        pyro.sample("gamma", dist.Gamma(torch.tensor(3.0, dtype=torch.float64), 2.0))
        pyro.sample("simplex", dist.Dirichlet(torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)))

    found = drawn(program, num_samples=600)
    for name, values, law in (
        ("beta", found.values["beta"], stats.beta(2, 5)),
        ("gamma", found.values["gamma"], stats.gamma(3, scale=0.5)),
        ("simplex", found.values["simplex"][..., 0], stats.beta(1, 5)),
    ):
        thinned = values[:, ::6].flatten().numpy()
        assert stats.kstest(thinned, law.cdf).pvalue > 1e-7, name
    assert stats.kstest(found.values["beta"][:, ::6].flatten().numpy(), stats.beta(2.8, 5).cdf).pvalue < 1e-7


def test_statistics_fit_together() -> None:
    found = drawn(normal_program(correlated(3)), chains=2, num_samples=30, warmup=60)
    of = found.statistics
    density = FlatDensity(normal_program(correlated(3)))
    value, _ = density.with_gradient(found.values["x"].flatten(0, 1))
    torch.testing.assert_close(of["lp"].flatten(), value)
    kinetic = of["energy"] + of["lp"]
    assert (kinetic > 0).all()
    assert kinetic.mean() == pytest.approx(1.5, rel=0.5)  # half a nat for each dimension
    assert (of["n_steps"] < 2.0 ** of["tree_depth"]).all()
    assert ((of["acceptance_rate"] > 0) & (of["acceptance_rate"] <= 1)).all()
    assert (of["step_size"] == of["step_size"][:, :1]).all()


def test_chains_are_their_own() -> None:
    """A chain is, up to rounding, what it would be without the others, and different from them."""
    program = normal_program(correlated(3))
    alone = drawn(program, chains=1, num_samples=5, warmup=5).values["x"]
    among = drawn(program, chains=3, num_samples=5, warmup=5).values["x"]
    torch.testing.assert_close(alone[0], among[0], rtol=1e-6, atol=1e-6)
    assert not torch.allclose(among[0], among[1])
    assert torch.equal(among, drawn(program, chains=3, num_samples=5, warmup=5).values["x"])


def test_where_the_density_ends_trajectories_do() -> None:
    """A half of the plane has no density, and what is drawn stays in the other; such trajectories diverge."""

    def program() -> None:
        x = pyro.sample("x", dist.Normal(torch.zeros(2, dtype=torch.float64), 1.0).to_event(1))
        pyro.factor("half", torch.where(x[0] > 0, 0.0, -torch.inf))

    found = drawn(program, chains=2, num_samples=40, warmup=20)
    assert (found.values["x"][..., 0] > 0).all()
    assert found.statistics["diverging"].any()


def test_chains_do_not_begin_where_a_recursion_explodes() -> None:
    """A coefficient beyond one makes residuals grow without bound: finite, but no place to begin."""
    rng = np.random.default_rng(0)
    noise = rng.normal(size=121)
    y = torch.as_tensor(noise[1:] + 0.5 * noise[:-1])

    def moving_average() -> None:
        theta = pyro.sample("theta", dist.Normal(torch.zeros((), dtype=torch.float64), 2.0))
        residual, residuals = y.new_zeros(()), []
        for value in y:
            residual = value - theta * residual
            residuals.append(residual)
        pyro.factor("y", -0.5 * torch.stack(residuals).square().sum())

    density = FlatDensity(moving_average)
    given = [iter([np.array([first]), np.array([second])]) for first, second in ((0.1, 9.0), (1.9, 0.3), (-1.8, -0.2))]
    found = run(
        density, [functools.partial(next, each) for each in given], num_samples=100, warmup=100,
        target_acceptance=0.8, max_tree_depth=8, seed=0, progress=False,
    )  # fmt: skip
    drawn = found.values["theta"]
    assert drawn.shape == (3, 100)
    assert (drawn.mean(1) - drawn.mean()).abs().max() < 0.1
    assert abs(float(drawn.mean()) - 0.5) < 0.3
