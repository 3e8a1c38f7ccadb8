"""Evidence is the model's: whatever the guide, the rung taken is right, or says that it is not to be believed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

import latentrnn as lr
from latentrnn.inference import elbo_terms
from latentrnn.inference.evidence import rungs
from latentrnn.inference.evidence.evidence import Evidence, from_filters, log_mean
from latentrnn.inference.filters.particle_filter import ParticleFilter
from tests.inference.filters.test_particle_filter import ExactProposals, off_the_mark, rollout_of
from tests.linear_gaussian import Problem, as_data, as_model, exact_guide, random_problem

BUDGET = 6  # Monte Carlo standard errors


def linear_gaussian(seed: int = 3) -> tuple[Problem, lr.LatentRNN, lr.SequenceData]:
    problem = random_problem(seed, [30, 30, 30])
    data = as_data(problem)
    return problem, as_model(problem, data), data


def guided(model: lr.LatentRNN, data: lr.SequenceData, steps: int) -> lr.Posterior:
    """The posterior by a Markov guide trained for so many steps."""
    torch.manual_seed(0)
    guide = lr.Guide(model, encoder=lr.RNNEncoder(6), family=lr.Markov(6)).double()
    optimiser = torch.optim.Adam(guide.parameters(), 1e-2)
    for _ in range(steps):
        optimiser.zero_grad()
        (-elbo_terms(model, guide, data).elbo()).backward()
        optimiser.step()
    return lr.Posterior(model, guide, data, device="cpu")


# -- a filter whose proposal is a mixture ------------------------------------------------------------------------------


def test_particles_from_a_mixture_leave_the_estimate_unbiased() -> None:
    """Three comparisons at six standard errors: a chance of 1e-8 to fail by accident."""
    problem = random_problem(1, [8, 5, 2], inputs=1, hide=0.2)
    data = as_data(problem)
    torch.manual_seed(0)
    rollout = rollout_of(as_model(problem, data), data)
    with torch.no_grad():
        narrow = ExactProposals(problem, inflate=0.5)
        run = ParticleFilter(rollout, 24, 600, proposals=narrow, prior_share=0.2).run()
        assert not off_the_mark(run.log_evidence, problem.evidence())
        assert off_the_mark(run.log_evidence - 0.3, problem.evidence())
        # negative control: a density that is not the one that was drawn from
        wrong = ExactProposals(problem, inflate=0.5, claimed=1.1)
        wrongly = ParticleFilter(rollout, 24, 600, proposals=wrong, prior_share=0.2).run()
        assert off_the_mark(wrongly.log_evidence, problem.evidence())


@pytest.mark.parametrize("family", [lr.Markov(3), lr.GaussianChain(), lr.MeanField()], ids=lambda f: type(f).__name__)
def test_a_mixture_that_hides_nothing_is_right_whatever_the_family(family: lr.Family) -> None:
    """The start may be drawn before or after the first step; a guide that was never trained is not followed."""
    problem = random_problem(5, [4, 3], state_dim=1, channels=1)
    data = as_data(problem)
    model = as_model(problem, data)
    guide = lr.Guide(model, encoder=lr.RNNEncoder(3), family=family).double()
    found = lr.Posterior(model, guide, data, device="cpu").evidence(lr.SMC(100, "mixture"), 200)
    error = torch.as_tensor(problem.evidence()) - found.values
    assert (error.abs() < BUDGET * found.standard_error).all()
    assert found.standard_error.max() < 0.1
    assert found.proposal == "mixture"


# -- what a filter says of itself --------------------------------------------------------------------------------------


def test_a_barely_trained_guide_is_seen_through() -> None:
    """Its filters agree on a number that is off by many of their errors as these were reported, and now say so."""
    problem, model, data = linear_gaussian()
    found = guided(model, data, 15).evidence("smc", 64)
    off = (found.values - torch.as_tensor(problem.evidence())).abs()
    assert (off > 2.0).any()
    assert bool(found.doubtful[off > 2.0].all())
    assert "not to be believed for" in repr(found)
    assert "nats apart" in repr(found)
    # with the exact posterior as proposal there is nothing to say
    exact = lr.Posterior(model, exact_guide(problem), data, device="cpu").evidence("iwae", 64)
    assert not exact.doubtful.any()
    assert "not to be believed" not in repr(exact)


def test_the_automatic_choice_is_right_where_the_guide_is_not() -> None:
    problem, model, data = linear_gaussian()
    truth = torch.as_tensor(problem.evidence())
    posterior = guided(model, data, 15)
    bad, found = posterior.evidence("iwae", 64), posterior.evidence("auto", 64)
    assert (bad.values - truth).abs().max() > 10
    assert bad.doubtful.any()
    assert (found.kind, found.num_particles) == ("smc", 256)
    assert (found.values - truth).abs().max() < 3
    assert (found.standard_error < 1).all() or bool(found.doubtful.any())


def test_one_filter_that_holds_all_of_the_mean_gives_a_large_error() -> None:
    """Eight estimates tens of nats apart: the relative error of their mean is one, whatever the distance."""
    log_evidence = torch.tensor([0.0, -30.0, -40.0, -35.0, -50.0, -31.0, -33.0, -60.0], dtype=torch.float64)[:, None]
    assert log_mean(log_evidence)[1].item() == pytest.approx(1.0, abs=1e-6)
    found = from_filters(log_evidence, torch.full((8, 1), 5.0), torch.zeros(1), 64, "guide")
    left_out = [np.logaddexp.reduce(np.delete(log_evidence[:, 0].numpy(), i)) - np.log(7) for i in range(8)]
    jackknife = np.sqrt(7 / 8 * np.sum((left_out - np.mean(left_out)) ** 2))
    assert found.standard_error.item() == pytest.approx(jackknife)
    assert jackknife > 20
    assert bool(found.doubtful)
    # where filters agree it is the delta method's
    close = torch.tensor([0.0, 0.1, -0.1, 0.05], dtype=torch.float64)[:, None]
    near = from_filters(close, torch.full((4, 1), 5.0), torch.zeros(1), 64, "guide")
    assert near.standard_error.item() == pytest.approx(log_mean(close)[1].item(), rel=0.02)
    assert not near.doubtful.any()


NAN = float("nan")
DOUBTS = {
    "sound": ({"effective_sample_size": 20.0, "pareto_k": 0.5}, False),
    "heavy": ({"effective_sample_size": 20.0, "pareto_k": 0.71}, True),
    "unknown": ({"effective_sample_size": 3.0, "pareto_k": NAN}, True),
    "apart": ({"effective_sample_size": 20.0, "pareto_k": 0.1, "spread": 1.1}, True),
    "impossible": ({"effective_sample_size": 20.0, "pareto_k": 0.1, "spread": NAN}, True),
    "a single particle": ({"effective_sample_size": 1.5, "pareto_k": 0.1, "spread": 0.1}, True),
    "heavy but bounded": ({"effective_sample_size": 7.0, "pareto_k": 0.9, "spread": 0.2, "proposal": "prior"}, False),
    "heavy, bounded, few": (
        {"effective_sample_size": 6.0, "pareto_k": 0.9, "spread": 0.2, "proposal": "mixture"},
        True,
    ),
    "heavy and unbounded": ({"effective_sample_size": 7.0, "pareto_k": 0.9, "spread": 0.2, "proposal": "guide"}, True),
    "filters agree": ({"effective_sample_size": 9.0, "pareto_k": 0.1, "spread": 0.1}, False),
    "bound": ({}, False),
}


@pytest.mark.parametrize("case", DOUBTS)
def test_what_is_doubtful(case: str) -> None:
    numbers, expected = DOUBTS[case]
    tensors = {name: v if isinstance(v, str) else torch.tensor([v]) for name, v in numbers.items()}
    found = Evidence("smc" if "spread" in numbers else "iwae", torch.zeros(1), torch.ones(1), 64, **tensors)
    assert found.doubtful.tolist() == [expected]
    assert ("not to be believed for 1 of 1" in repr(found)) == expected
    if expected:
        with pytest.warns(UserWarning, match="compare: 'a': .*try "):
            found.warn("compare", "'a'")
    else:
        found.warn("compare", "'a'")


# -- which filters are taken -------------------------------------------------------------------------------------------


def filters(said: dict[int, tuple[float, float]]) -> Callable[[str | lr.SMC | lr.AIS, int], Evidence]:
    """Return estimates by filters that say of themselves what they are told to, by the number of particles."""

    def estimate(kind: str | lr.SMC | lr.AIS, num_particles: int) -> Evidence:
        assert isinstance(kind, lr.SMC)
        size, spread = (torch.tensor([value]) for value in said[num_particles])
        return Evidence("smc", torch.zeros(1), torch.ones(1), num_particles, size, size * 0, spread, kind.proposal)

    return estimate


@pytest.mark.parametrize(
    ("more", "taken"),
    [
        pytest.param((200.0, 0.35), 256, id="more particles that pass"),
        pytest.param((1.3, 0.35), 64, id="doubtful both, the first closer together"),
        pytest.param((1.3, 0.25), 256, id="doubtful both, the second closer together"),
    ],
)
def test_filters_that_pass_are_taken_before_those_that_lie_closest(more: tuple[float, float], taken: int) -> None:
    """A single particle may carry a step of all filters, which then lie close together by chance."""
    found = rungs.best(filters({64: (1.2, 0.3), 256: more}), 64, num_steps=500, along_time=True)
    assert found.num_particles == taken
    assert bool(found.doubtful.any()) == (more[0] < 2)
