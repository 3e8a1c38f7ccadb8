"""Objectives: their values against exact evidence, their gradients against each other and against zero."""

from __future__ import annotations

import dataclasses
import gc
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

import latentrnn as lr
from latentrnn.inference.objectives.objective import Evaluation
from latentrnn.inference.objectives.weighted_draws import WeightedDraws
from tests.linear_gaussian import Problem, as_data, as_model, exact_guide, random_problem
from tests.registry import OBSERVATIONS, make_data, make_model

PARTICLES = 4
BOUNDS = {
    "ELBO": lr.ELBO(),
    "sticking the landing": lr.ELBO(sticking_the_landing=True),
    "IWAE": lr.IWAE(),
    "plain IWAE": lr.IWAE(doubly_reparameterised=False),
    "Renyi": lr.Renyi(0.3),
}
every_objective = pytest.mark.parametrize("objective", BOUNDS)


def setting(seed: int = 0, **shape: object) -> tuple[Problem, lr.SequenceData, lr.LatentRNN]:
    problem = random_problem(seed, [9, 5, 12], hide=0.2, **shape)
    data = as_data(problem)
    return problem, data, as_model(problem, data)


class Free(torch.nn.Module):
    """An exact guide whose location and scale can move, so that gradients at the posterior can be taken."""

    parameter_sites = None

    def __init__(self, problem: Problem) -> None:
        super().__init__()
        self.exact = exact_guide(problem)
        loc, tril = self.exact.loc, self.exact.tril
        del self.exact.loc, self.exact.tril
        self.exact.loc, self.exact.tril = torch.nn.Parameter(loc), torch.nn.Parameter(tril)

    def forward(self, data: lr.SequenceData) -> dict[str, Tensor]:
        return self.exact(data)


@every_objective
def test_with_the_exact_posterior_every_bound_is_the_evidence(objective: str) -> None:
    problem, data, model = setting()
    at = Evaluation(model, exact_guide(problem), data, PARTICLES)
    found = BOUNDS[objective].step(at)
    assert found.bound.item() == pytest.approx(problem.evidence().sum(), rel=0, abs=1e-8)
    assert found.terms.elbo().item() == pytest.approx(problem.evidence().sum(), rel=0, abs=1e-8)


@every_objective
def test_a_batch_stands_for_its_plate(objective: str) -> None:
    problem, data, model = setting()
    batch = data.batch(torch.tensor([2, 0]))
    found = BOUNDS[objective].step(Evaluation(model, exact_guide(problem), batch, PARTICLES))
    assert found.bound.item() == pytest.approx(problem.evidence()[[2, 0]].sum() * 3 / 2, rel=0, abs=1e-8)


@pytest.mark.parametrize("objective", ["sticking the landing", "IWAE"])
def test_at_the_posterior_the_guide_s_gradient_vanishes_draw_by_draw(objective: str) -> None:
    problem, data, model = setting()
    guide = Free(problem)
    BOUNDS[objective].step(Evaluation(model, guide, data, PARTICLES)).surrogate.backward()
    gradient = torch.cat([p.grad.flatten() for p in guide.parameters()])
    assert gradient.abs().max() < 1e-8
    noisy = Free(problem)
    name = "ELBO" if objective != "IWAE" else "plain IWAE"
    BOUNDS[name].step(Evaluation(model, noisy, data, PARTICLES)).surrogate.backward()
    assert torch.cat([p.grad.flatten() for p in noisy.parameters()]).abs().max() > 0.1  # the control is noisy there


@pytest.mark.parametrize(
    ("one", "other"), [("ELBO", "sticking the landing"), ("plain IWAE", "IWAE")], ids=["ELBO", "IWAE"]
)
@pytest.mark.parametrize(
    "family", ["mean field", *(pytest.param(name, marks=pytest.mark.slow) for name in ("chain", "markov"))]
)
def test_two_estimators_of_one_gradient_agree_on_average(one: str, other: str, family: str) -> None:
    """Over many draws, both for the guide's parameters and for the model's; z-scores of 5 in 1e6 would be a miracle."""
    data = make_data(OBSERVATIONS["gaussian"])
    model, _ = make_model("gru", "innovations with initial", "gaussian", data)
    families = {"mean field": lr.MeanField(), "chain": lr.GaussianChain(), "markov": lr.Markov(4)}
    guide = lr.Guide(model, encoder=lr.RNNEncoder(3), family=families[family]).double()
    guide.initialise(model, data)
    torch.manual_seed(0)
    chosen = [p for m in (model, guide) for p in m.parameters()]

    def gradients(objective: lr.Objective, repeats: int = 150) -> Tensor:
        rows = []
        for _ in range(repeats):
            step = objective.step(Evaluation(model, guide, data, 3))
            found = torch.autograd.grad(step.surrogate, chosen, allow_unused=True)
            found = [torch.zeros_like(p) if g is None else g for p, g in zip(chosen, found, strict=True)]
            rows.append(torch.cat([g.flatten() for g in found]))
        return torch.stack(rows)

    a, b = gradients(BOUNDS[one]), gradients(BOUNDS[other])
    # a few fixed directions, so that the test has few comparisons and sees every parameter
    directions = torch.randn(8, a.shape[1], dtype=a.dtype, generator=torch.Generator().manual_seed(1))
    directions = directions / a.std(0).clamp_min(1e-12)
    for direction in directions:
        x, y = a @ direction, b @ direction
        error = (x.var() / len(x) + y.var() / len(y)).sqrt()
        assert abs(float((x.mean() - y.mean()) / error)) < 5


def test_bounds_are_ordered_and_tighten() -> None:
    problem, data, model = setting(1)
    evidence = problem.evidence().sum()
    guide = exact_guide(problem)
    guide.tril *= 1.5

    def mean(objective: lr.Objective, particles: int, repeats: int = 200) -> tuple[float, float]:
        values = [float(objective.step(Evaluation(model, guide, data, particles)).bound) for _ in range(repeats)]
        return float(np.mean(values)), float(np.std(values) / repeats**0.5)

    torch.manual_seed(0)
    with torch.no_grad():
        ladder = [(lr.ELBO(), 4), (lr.Renyi(0.5), 4), (lr.IWAE(), 4), (lr.IWAE(), 16), (lr.IWAE(), 64)]
        rungs = [mean(*rung) for rung in ladder]
    for (low, low_error), (high, high_error) in pairwise(rungs):
        assert high - low > 3 * (low_error**2 + high_error**2) ** 0.5
    assert rungs[-1][0] < evidence + 5 * rungs[-1][1]


@cache
def with_priors(global_family: str) -> tuple[Evaluation, list[float]]:
    """A model whose parameters have posteriors of this family, and 90 means of 10 draws of its ELBO."""
    data = make_data(OBSERVATIONS["gaussian priors"])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model, guide = make_model("gru", "innovations", "gaussian priors", data, global_family=global_family)
        with torch.no_grad():
            draws = [lr.elbo_terms(model, guide, data, num_particles=10, analytic_kl=False) for _ in range(90)]
    return Evaluation(model, guide, data, 15), [float(each.elbo()) for each in draws]


@every_objective
@pytest.mark.parametrize("global_family", ["normal", "multivariate", "flow"])
def test_parameters_with_priors(objective: str, global_family: str) -> None:
    """The mean of the ELBO's terms agrees with `elbo_terms`, and every parameter of the guide gets a gradient."""
    at, expected = with_priors(global_family)
    torch.manual_seed(1)
    with torch.no_grad():
        found = [float(BOUNDS[objective].step(at).terms.elbo()) for _ in range(60)]
    error = (np.var(found) / len(found) + np.var(expected) / len(expected)) ** 0.5
    assert abs(np.mean(found) - np.mean(expected)) < 5 * error
    at.guide.zero_grad()
    BOUNDS[objective].step(dataclasses.replace(at, num_particles=3)).surrogate.backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in at.guide.parameters())


def test_free_bits_hold_the_gradient_of_a_small_kl_back() -> None:
    data = make_data(OBSERVATIONS["poisson"])
    model, guide = make_model("gru", "innovations", "poisson", data)
    torch.manual_seed(0)
    plain = lr.ELBO().step(Evaluation(model, guide, data))
    torch.manual_seed(0)
    floored = lr.ELBO(free_bits=1e3).step(Evaluation(model, guide, data))
    assert torch.equal(plain.bound, floored.bound)  # what is reported is the ELBO itself
    assert floored.surrogate.item() == pytest.approx(sum(plain.terms.log_likelihood.values()).item() - 1e3 * data.total)
    torch.manual_seed(0)
    low = lr.ELBO(free_bits=1e-9).step(Evaluation(model, guide, data))
    assert torch.equal(low.surrogate, plain.surrogate)


@every_objective
def test_a_fit_by_each_raises_its_bound(objective: str, tmp_path) -> None:
    data, validation = make_data(OBSERVATIONS["gaussian"]), None
    model, _ = make_model("gru", "innovations", "gaussian", data)
    validation = dataclasses.replace(data, keys=tuple(k._replace(key=f"other {k.key}") for k in data.keys))
    guide = lr.Guide(model, encoder=lr.RNNEncoder(4))
    result = lr.fit(
        model,
        guide,
        data,
        validation,
        steps=80,
        stopping=lr.EarlyStopping(every=10),
        objective=dataclasses.replace(BOUNDS[objective], num_particles=4, kl=lr.KLWarmUp(0.0)),
        reporting=lr.Reporting(progress=False),
        compute=lr.Compute(device="cpu"),
    )
    values = result.history[f"validation_{BOUNDS[objective].name}"]
    assert max(values) > values[0] + 0.3
    assert "nats per sequence" in repr(result)
    assert result.settings["objective"]["class"] == type(BOUNDS[objective]).__name__
    result.save(tmp_path / "fit")
    assert lr.load(tmp_path / "fit").settings["objective"] == result.settings["objective"]


@pytest.mark.parametrize("objective", [*BOUNDS.values(), lr.FIVO()], ids=[*BOUNDS, "FIVO"])
@pytest.mark.parametrize("family", [lr.MeanField(), lr.Markov(3), lr.Combiner()], ids=lambda family: repr(family))
def test_steps_leave_nothing_behind(objective: lr.Objective, family: lr.Family) -> None:
    """Whatever a step draws and derives is gone when it is done: a graph that held itself would fill the memory."""
    data = make_data(OBSERVATIONS["poisson"])
    model, _ = make_model("gru", "markov normal", "poisson", data)
    guide = lr.Guide(model, encoder=lr.RNNEncoder(4), family=family).double()

    def tensors_after_a_step() -> int:
        objective.step(Evaluation(model, guide, data, PARTICLES)).surrogate.backward()
        gc.collect()
        return sum(issubclass(type(item), Tensor) for item in gc.get_objects())

    tensors_after_a_step()  # gradients and caches
    first = tensors_after_a_step()
    for _ in range(3):
        last = tensors_after_a_step()
    assert last <= first


def test_mistakes() -> None:
    data = make_data(OBSERVATIONS["poisson"])
    model, guide = make_model("gru", "innovations", "poisson", data)
    with pytest.raises(ValueError, match="IWAE: num_particles must be at least 2; found 1"):
        lr.IWAE(num_particles=1)
    with pytest.raises(TypeError, match="objective must be Objective; found str"):
        lr.fit(model, guide, data, objective="iwae", reporting=lr.Reporting(progress=False))
    with pytest.raises(ValueError, match="alpha=1 is the ELBO"):
        lr.Renyi(1)
    with pytest.raises(ValueError, match="free_bits must not be negative"):
        lr.ELBO(free_bits=-1)
    with pytest.raises(ValueError, match="free_bits needs the KL of each site"):
        lr.ELBO(sticking_the_landing=True, free_bits=1)


def test_a_wrong_density_is_noticed() -> None:
    """Negative control: with a guide that misstates its scale by one in a thousand, the bound is off."""
    problem, data, model = setting()
    guide = exact_guide(problem)
    draws = WeightedDraws(Evaluation(model, guide, data, PARTICLES), detached=False)
    exact = draws.log_weights()
    assert exact.std(0).max() < 1e-8
    guide.tril *= 1.001
    moved = WeightedDraws(Evaluation(model, guide, data, PARTICLES), detached=False).log_weights()
    assert moved.std(0).max() > 1e-4
