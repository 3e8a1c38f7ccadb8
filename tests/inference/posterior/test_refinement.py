"""Numbers optimised sequence by sequence: they only gain, alone and together, and reach the exact posterior."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch

import latentrnn as lr
from tests.linear_gaussian import as_data, as_model, random_problem
from tests.registry import OBSERVATIONS, make_data, make_model

STEPS = 200


def amortised(family: lr.Family, seed: int = 0) -> tuple[lr.Posterior, np.ndarray]:
    """A linear-Gaussian model with an untrained guide, and the exact log evidence of its sequences."""
    problem = random_problem(seed, [9, 14, 6], hide=0.2)
    data = as_data(problem)
    model = as_model(problem, data)
    torch.manual_seed(seed)
    guide = lr.Guide(model, encoder=lr.StepEncoder(), family=family).double()
    guide.initialise(model, data)
    return lr.Posterior(model, guide, data, device="cpu"), problem.evidence()


@cache
def refined(family: str, sequences: int = 3) -> tuple[lr.Posterior, lr.Posterior, np.ndarray]:
    """Before and after the refinement of the first sequences, and the evidence of all."""
    posterior, evidence = amortised({"chain": lr.GaussianChain(), "mean field": lr.MeanField()}[family])
    posterior = lr.Posterior(posterior.model, posterior.guide, posterior.data[:sequences], device="cpu")
    with torch.random.fork_rng():
        return posterior, posterior.refined(STEPS, learning_rate=0.1), evidence


@pytest.mark.parametrize("family", ["chain", "mean field"])
def test_refinement_wins_back_what_an_untrained_encoder_lost(family: str) -> None:
    """Gaps to the evidence are per step. What a family's shared weights cannot do stays undone."""
    posterior, better, evidence = refined(family)
    steps = posterior.data.lengths.numpy()
    before, after = (p.evidence("elbo", 200) for p in (posterior, better))
    lost, error = (evidence - after.values.numpy()) / steps, after.standard_error.numpy() / steps
    assert ((evidence - before.values.numpy()) / steps > 1).all()
    assert (lost < 0.35 + 5 * error).all()
    assert (lost > -5 * error).all()  # never above the evidence


@pytest.mark.slow
def test_sequences_do_not_learn_from_each_other_and_shared_weights_stay() -> None:
    posterior, _ = amortised(lr.GaussianChain())
    shared = {name: value.clone() for name, value in posterior.guide.state_dict().items()}
    now = posterior.refined(30).guide.state_dict()
    for name, value in shared.items():
        inner = name.replace("local.", "local.base.") if name.startswith("local.") else name
        assert torch.equal(now[inner], value), name
    assert all(p.requires_grad for p in posterior.guide.parameters())
    assert all(p.requires_grad for p in posterior.model.parameters())
    (_, alone, _), (_, together, _) = refined("chain", sequences=1), refined("chain")
    one, other = alone.evidence("elbo", 400), together.evidence("elbo", 400)
    error = (one.standard_error[0] ** 2 + other.standard_error[0] ** 2).sqrt()
    assert abs(one.values[0] - other.values[0]) < 5 * error + 0.05


def test_a_guide_without_an_encoder_learns_of_new_sequences_by_refinement() -> None:
    data = make_data(OBSERVATIONS["gaussian"])
    model, _ = make_model("gru", "innovations", "gaussian", data)
    guide = lr.Guide(model, family=lr.PerSequence(lr.MeanField())).double()
    guide.initialise(model, data)
    rng = np.random.default_rng(1)
    new = data.with_observations(
        {"y": data.observations["y"] + torch.as_tensor(rng.normal(size=data.observations["y"].shape))}
    )
    posterior = lr.Posterior(model, guide, new, device="cpu")
    assert posterior.refined(100).evidence("elbo", 200).total > posterior.evidence("elbo", 200).total + 1


@pytest.mark.slow
def test_refining_twice_goes_on_from_where_it_was() -> None:
    _, once, evidence = refined("chain")
    twice = once.refined(100, learning_rate=0.01)
    assert twice.evidence("elbo", 400).total > once.evidence("elbo", 400).total - 0.2
    assert len(twice.guide.local.keys) == 3
    assert not isinstance(twice.guide.local.base, lr.PerSequence)
    assert evidence.sum() > twice.evidence("elbo", 400).total - 0.5


def test_the_same_seed_gives_the_same_numbers() -> None:
    posterior, _ = amortised(lr.MeanField())
    one, other = (posterior.refined(5).evidence("elbo", 8).values for _ in range(2))
    assert torch.equal(one, other)


def test_mistakes() -> None:
    posterior, _ = amortised(lr.MeanField())
    with pytest.raises(ValueError, match=r"refined: learning_rate must be at most 1e\+30; found 1e\+300"):
        posterior.refined(5, learning_rate=1e300)
    with pytest.raises(ValueError, match="learning_rate must be positive; found 0"):
        posterior.refined(5, learning_rate=0)
    data = make_data(OBSERVATIONS["poisson"])
    model, guide = make_model("gru", "deterministic", "poisson", data)
    with pytest.raises(ValueError, match="nothing to refine"):
        lr.Posterior(model, guide, data, device="cpu").refined()
