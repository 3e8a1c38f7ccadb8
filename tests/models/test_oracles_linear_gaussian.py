"""Exact oracle: with the exact posterior as guide, every draw's log-weight is the Kalman log evidence."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from pyro.infer import Trace_ELBO

import latentrnn as lr
from latentrnn.inference import elbo_terms
from latentrnn.inference.objectives.terms import log_weights
from tests.linear_gaussian import (
    FILES,
    Problem,
    as_data,
    as_model,
    exact_guide,
    file_problem,
    random_problem,
)

PARTICLES = 5
TOLERANCE = 1e-9  # nats
RAGGED = [
    pytest.param({"lengths": [9, 9], "inputs": 0, "hide": 0.0}, id="complete"),
    pytest.param({"lengths": [9, 9], "inputs": 2, "hide": 0.0}, id="inputs"),
    pytest.param({"lengths": [9, 9], "inputs": 0, "hide": 0.3}, id="missing"),
    pytest.param({"lengths": [12, 7, 20, 1], "inputs": 0, "hide": 0.0}, id="ragged"),
    pytest.param({"lengths": [12, 7, 20, 1], "inputs": 2, "hide": 0.3}, id="ragged, inputs, missing"),
]


def weights(problem: Problem, particles: int = PARTICLES) -> torch.Tensor:
    data = as_data(problem)
    with torch.no_grad():
        return log_weights(as_model(problem, data), exact_guide(problem), data, particles)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("case", RAGGED)
def test_every_draw_of_an_exact_guide_gives_the_evidence_of_its_sequence(case: dict, seed: int) -> None:
    problem = random_problem(seed, **case)
    found = weights(problem)
    assert found.shape == (PARTICLES, len(case["lengths"]))
    np.testing.assert_allclose(found, np.tile(problem.evidence(), (PARTICLES, 1)), rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("hide", [False, True], ids=["complete", "30% missing"])
@pytest.mark.parametrize("name", ["lgssm_small", "lgssm_medium", "lgssm_inputs"])
def test_against_log_evidences_computed_by_other_people_s_code(name: str, hide: bool) -> None:
    if not (FILES / f"{name}.npz").exists():
        pytest.skip(f"reference file {name}.npz is not beside the repository (LATENTRNN_SHARED names its folder)")
    problem, log_evidence = file_problem(name, hide=hide)
    np.testing.assert_allclose(weights(problem), log_evidence, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("particles", [1, PARTICLES])
@pytest.mark.parametrize("case", RAGGED)
def test_the_elbo_of_an_exact_guide_is_the_total_evidence_here_and_in_pyro(case: dict, particles: int) -> None:
    problem = random_problem(0, **case)
    data = as_data(problem)
    model, guide, expected = as_model(problem, data), exact_guide(problem), problem.evidence().sum()
    ours = elbo_terms(model, guide, data, num_particles=particles, analytic_kl=False).elbo()
    pyro_s = Trace_ELBO(num_particles=particles, vectorize_particles=particles > 1, max_plate_nesting=1)
    assert ours.item() == pytest.approx(expected, rel=0, abs=TOLERANCE)
    assert -pyro_s.loss(model, guide, data) == pytest.approx(expected, rel=0, abs=TOLERANCE)


@pytest.mark.parametrize("chosen", [[2], [3, 1], [1, 0, 2]])
def test_a_batch_stands_for_its_plate(chosen: list[int]) -> None:
    """Scale total / batch: the ELBO of a sub-sample is the sum of its evidences, scaled up."""
    problem = random_problem(1, [12, 7, 20, 5], inputs=2, hide=0.3)
    data = as_data(problem)
    model, guide, batch = as_model(problem, data), exact_guide(problem), data.batch(torch.tensor(chosen))
    expected = problem.evidence()[chosen].sum() * 4 / len(chosen)
    ours = elbo_terms(model, guide, batch, num_particles=3, analytic_kl=False).elbo()
    assert ours.item() == pytest.approx(expected, rel=0, abs=TOLERANCE)
    assert -Trace_ELBO(max_plate_nesting=1).loss(model, guide, batch) == pytest.approx(expected, rel=0, abs=TOLERANCE)
    # per-sequence weights are those of the sequences themselves, never scaled
    found = log_weights(model, guide, batch, 2)
    np.testing.assert_allclose(found.detach(), np.tile(problem.evidence()[chosen], (2, 1)), rtol=0, atol=TOLERANCE)


def test_batches_of_an_epoch_average_to_the_whole_plate() -> None:
    problem = random_problem(2, [12, 7, 20, 5, 9, 9], hide=0.3)
    data = as_data(problem)
    model, guide = as_model(problem, data), exact_guide(problem)
    elbos = [elbo_terms(model, guide, b, analytic_kl=False).elbo().item() for b in data.batches(2)]
    assert len(elbos) == 3
    assert np.mean(elbos) == pytest.approx(problem.evidence().sum(), rel=0, abs=TOLERANCE)
    assert np.std(elbos) > 0.1  # they are not the same number three times


def test_values_under_the_mask_and_in_padding_change_nothing() -> None:
    problem = random_problem(3, [12, 7], hide=0.3)
    data = as_data(problem)
    filled = data.with_observations({"y": torch.where(data.masks["y"], data.observations["y"], 1e6)})
    model, guide = as_model(problem, data), exact_guide(problem)
    found = log_weights(model, guide, filled, 2).detach()
    np.testing.assert_allclose(found, np.tile(problem.evidence(), (2, 1)), rtol=0, atol=TOLERANCE)


def test_a_standardised_head_keeps_the_density_in_the_data_s_units() -> None:
    problem = random_problem(4, [12, 7], hide=0.3)
    data = as_data(problem, standardise=["y"])
    model = as_model(problem, data)
    assert (model.observations["y"].scale - 1).abs().min() > 0.01  # there is something to undo
    found = log_weights(model, exact_guide(problem), data, 2).detach()
    np.testing.assert_allclose(found, np.tile(problem.evidence(), (2, 1)), rtol=0, atol=TOLERANCE)


def test_a_diagonal_noise_gives_the_same_as_a_full_one_that_is_diagonal() -> None:
    problem = random_problem(5, [12, 7], hide=0.3)
    noise = np.diag(np.diag(problem.model.R))
    problem = Problem(replace(problem.model, R=noise), problem.recordings)
    data = as_data(problem)
    full = as_model(problem, data)
    diagonal = lr.LatentRNN(
        data.spec, transition=lr.Linear(2), latent=lr.MarkovNormal(), observations={"y": lr.Gaussian()}
    ).double()
    state = {k: v for k, v in full.state_dict().items() if "noise_ratio" not in k}
    diagonal.load_state_dict(state)
    found = log_weights(diagonal, exact_guide(problem), data, 2).detach()
    np.testing.assert_allclose(found, np.tile(problem.evidence(), (2, 1)), rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize(
    "broken", ["guide too wide", "guide shifted", "noise", "dynamics", "time order", "a missing entry counted"]
)
def test_the_oracle_notices_what_is_wrong(broken: str) -> None:
    """Negative controls: each small mistake moves the log-weights by far more than the tolerance."""
    problem = random_problem(6, [12, 7], hide=0.3)
    data = as_data(problem)
    model, guide = as_model(problem, data), exact_guide(problem)
    if broken == "guide too wide":
        guide.tril *= 1.0001
    if broken == "guide shifted":
        guide.loc += 1e-4
    with torch.no_grad():
        if broken == "noise":
            model.latent.log_scale += 1e-5
        if broken == "dynamics":
            model.transition.recurrent_weight += 1e-5
    if broken == "time order":
        data = data.with_observations({"y": data.observations["y"].flip(1)})
    if broken == "a missing entry counted":
        first, rest = problem.recordings
        hidden = first.missing.copy()
        hidden[tuple(np.argwhere(hidden)[0])] = False
        data = as_data(Problem(problem.model, (replace(first, missing=hidden), rest)))
    found = log_weights(model, guide, data, 2).detach().numpy()
    assert np.abs(found - problem.evidence()).max() > 100 * TOLERANCE
