"""The filtering objective: a bound, tight over long sequences, with a gradient that a fit can follow."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

import latentrnn as lr
from latentrnn.inference.objectives.objective import Evaluation
from tests.linear_gaussian import as_data, as_model, random_problem
from tests.registry import OBSERVATIONS, make_data, make_model

BUDGET = 6  # Monte Carlo standard errors


def per_draw(objective: lr.Objective, at: Evaluation, draws: int) -> torch.Tensor:
    with torch.no_grad():
        return torch.stack([objective.step(at).bound for _ in range(draws)])


def near_posterior(model: lr.LatentRNN, data: lr.SequenceData, family: lr.Family) -> lr.Guide:
    """A guide with a causal encoder after a short fit of the guide alone."""
    torch.manual_seed(0)
    guide = lr.Guide(model, encoder=lr.RNNEncoder(12, direction="causal"), family=family).double()
    guide.initialise(model, data)
    engine = torch.optim.Adam(guide.parameters(), 0.03)
    for _ in range(60):
        engine.zero_grad()
        (-lr.ELBO().step(Evaluation(model, guide, data, 2)).surrogate / len(data) / data.num_steps).backward()
        engine.step()
    return guide


@pytest.mark.slow
def test_the_bound_is_a_bound_and_on_long_sequences_the_tightest() -> None:
    problem = random_problem(0, [80])
    data = as_data(problem)
    model = as_model(problem, data)
    guide = near_posterior(model, data, lr.Markov(6))
    torch.manual_seed(1)
    at = Evaluation(model, guide, data, 32)
    draws = 30
    found = {o.name: per_draw(o, at, draws) for o in (lr.ELBO(), lr.IWAE(), lr.FIVO())}
    truth = problem.evidence().sum()
    for bounds in found.values():
        assert bounds.mean() < truth + BUDGET * bounds.std() / len(bounds) ** 0.5
    for looser in ("elbo", "iwae"):
        gain = found["fivo"].mean() - found[looser].mean()
        assert gain > BUDGET * ((found["fivo"].var() + found[looser].var()) / draws).sqrt()
    # without resampling it is IWAE: the same law, by other random numbers
    unresampled = per_draw(lr.FIVO(resample_below=0.0), at, draws)
    error = ((unresampled.var() + found["iwae"].var()) / draws).sqrt()
    assert abs(unresampled.mean() - found["iwae"].mean()) < BUDGET * error


@pytest.mark.parametrize("resample_below", [0.5, 1.0])
def test_with_resampling_the_estimate_is_unbiased(resample_below: float) -> None:
    # E[Z] = p(y) whatever the proposal, and only if every particle goes on from its ancestor's state and value
    problem = random_problem(1, [8], state_dim=2, channels=1)
    many = dataclasses.replace(problem, recordings=problem.recordings * 5_000)
    data = as_data(many)
    model = as_model(problem, data)
    guide = near_posterior(model, as_data(problem), lr.Markov(6))
    with torch.no_grad():
        step = lr.FIVO(resample_below=resample_below).step(Evaluation(model, guide, data, 32, by_sequence=True))
    ratio = (step.terms.by_sequence - float(problem.evidence()[0])).exp()
    error = float(ratio.std()) / len(ratio) ** 0.5
    assert error < 0.01
    assert abs(float(ratio.mean()) - 1) < BUDGET * error


@pytest.mark.slow
def test_without_resampling_the_gradient_is_that_of_importance_weights() -> None:
    """The same estimator by another road: means over draws agree, for the model and for the guide."""
    data = make_data(OBSERVATIONS["poisson"])
    model, _ = make_model("gru", "innovations", "poisson", data)
    guide = lr.Guide(model, encoder=lr.RNNEncoder(3)).double()
    at = Evaluation(model, guide, data, 3)
    parameters = [*model.parameters(), *guide.local.parameters()]
    torch.manual_seed(0)
    directions = [torch.randn_like(p) for p in parameters]

    def slopes(objective: lr.Objective) -> torch.Tensor:
        found = []
        for _ in range(200):
            gradients = torch.autograd.grad(objective.step(at).surrogate, parameters, allow_unused=True)
            pairs = zip(gradients, directions, strict=True)
            found.append(sum((g * d).sum() for g, d in pairs if g is not None))
        return torch.stack(found)

    one, other = slopes(lr.FIVO(resample_below=0.0)), slopes(lr.IWAE(doubly_reparameterised=False))
    error = ((one.var() + other.var()) / 200).sqrt()
    assert abs(one.mean() - other.mean()) < BUDGET * error
    assert abs(one.mean()) > BUDGET * error  # so that it could have failed


@pytest.mark.parametrize("latent", ["innovations ar1", "innovations matern", "markov normal", "recurrent normal"])
@pytest.mark.parametrize("observation", ["several", "gaussian priors"])
def test_gradients_reach_every_part(latent: str, observation: str) -> None:
    data = make_data(OBSERVATIONS[observation])
    model, _ = make_model("gru", latent, observation, data)
    guide = lr.Guide(model, encoder=lr.RNNEncoder(3), family=lr.Markov(3)).double()
    guide.initialise(model, data)
    torch.manual_seed(0)
    found = lr.FIVO(resample_below=1.0).step(Evaluation(model, guide, data, 4))
    assert torch.isfinite(found.bound)
    assert torch.isfinite(found.terms.elbo())
    found.surrogate.backward()
    for name, parameter in [*model.named_parameters(), *guide.named_parameters()]:
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name


def test_a_batch_stands_for_its_plate_and_tempering_is_heard() -> None:
    data = make_data(OBSERVATIONS["gaussian priors"])
    model, guide = make_model("gru", "innovations", "gaussian priors", data)
    at = Evaluation(model, guide, data, 3)
    whole = per_draw(lr.FIVO(), at, 40)
    alone = [dataclasses.replace(at, data=dataclasses.replace(data[i], total=3)) for i in range(3)]
    parts = torch.stack([per_draw(lr.FIVO(), each, 40) for each in alone])
    error = (parts.var(1).mean() / 120 + whole.var() / 40).sqrt()
    assert abs(parts.mean() - whole.mean()) < BUDGET * error
    torch.manual_seed(0)
    likelihood = lr.FIVO(resample_below=0.0).step(dataclasses.replace(at, kl_weight=0.0)).bound
    torch.manual_seed(0)
    nothing = lr.FIVO(resample_below=0.0).step(dataclasses.replace(at, kl_weight=0.0, weights={"y": 0.0})).bound
    assert nothing == pytest.approx(0.0, abs=1e-9)
    assert likelihood < -1.0


@pytest.mark.slow
def test_a_fit_improves_its_bound_and_is_kept(tmp_path) -> None:
    rng = np.random.default_rng(0)
    z = np.cumsum(0.3 * rng.normal(size=(12, 30, 1)), 1)
    data = lr.SequenceData.from_arrays({"y": z @ np.ones((1, 3)) + 0.3 * rng.normal(size=(12, 30, 3))})
    model = lr.LatentRNN(
        data.spec, transition=lr.Linear(1), latent=lr.MarkovNormal(), observations={"y": lr.Gaussian()}
    )
    guide = lr.Guide(model, encoder=lr.RNNEncoder(8, direction="causal"), family=lr.Markov(4))
    result = lr.fit(
        model,
        guide,
        data,
        steps=60,
        optimizer=lr.Adam(0.05),
        stopping=lr.EarlyStopping(every=50),
        validation=None,
        objective=lr.FIVO(num_particles=4),
        reporting=lr.Reporting(progress=False),
        compute=lr.Compute(device="cpu"),
    )
    bounds = result.history["fivo"]
    assert np.mean(bounds[-3:]) > np.mean(bounds[:3]) + 10
    assert np.mean(bounds[-3:]) > np.mean(result.history["elbo"][-3:])
    result.save(tmp_path / "fit")
    assert lr.load(tmp_path / "fit").settings["objective"] == {"class": "FIVO", "resample_below": 0.5}


def test_mistakes() -> None:
    data = make_data(OBSERVATIONS["poisson"])
    model, _ = make_model("gru", "innovations", "poisson", data)
    with pytest.raises(ValueError, match=r"FIVO: resample_below must be in \[0, 1\]; found 2"):
        lr.FIVO(resample_below=2)
    guide = lr.Guide(model, encoder=lr.RNNEncoder(3), family=lr.Flow(lr.MeanField())).double()
    with pytest.raises(ValueError, match="Flow cannot be drawn step by step"):
        lr.FIVO().step(Evaluation(model, guide, data, 2))
    with pytest.raises(ValueError, match="FIVO: num_particles must be at least 2; found 1"):
        lr.FIVO(num_particles=1)
