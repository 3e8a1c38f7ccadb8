"""Missing entries: drawn as the dense joint Gaussian says, within what is observed beside them, for every family."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import latentrnn as lr
from latentrnn.models.observations.drifting_normal import DriftingNormal
from tests import oracles
from tests.linear_gaussian import Problem, as_data, as_model, exact_guide, random_problem
from tests.oracles import Array
from tests.registry import OBSERVATIONS, default_transition, make_data, make_model

SAMPLES = 4000
BUDGET = 6  # Monte Carlo standard errors


def conditional(problem: Problem, row: int) -> tuple[Array, Array]:
    """Mean and covariance of a sequence's missing entries given the observed ones, from the joint Gaussian of y."""
    model, r = problem.model, problem.recordings[row]
    steps = len(r.y)
    mean, cov = oracles.trajectory_prior(model, steps, r.u)
    read = np.kron(np.eye(steps), model.C)
    mean = read @ mean + np.tile(model.d, steps)
    cov = read @ cov @ read.T + np.kron(np.eye(steps), model.R)
    m, o = r.missing.ravel(), ~r.missing.ravel()
    gain = np.linalg.solve(cov[np.ix_(o, o)], cov[np.ix_(o, m)]).T
    return mean[m] + gain @ (r.y.ravel()[o] - mean[o]), cov[np.ix_(m, m)] - gain @ cov[np.ix_(o, m)]


def test_missing_entries_have_their_joint_conditional() -> None:
    problem = random_problem(4, [8, 5], inputs=1, hide=0.35)
    data = as_data(problem)
    posterior = lr.Posterior(as_model(problem, data), exact_guide(problem), data, device="cpu")
    found = posterior.impute("y", SAMPLES)
    blind = posterior.predictive(SAMPLES)["y"]  # given the states alone, not what was observed beside the entry
    assert found.shape == (SAMPLES, 2, 8, 3)
    off = []
    for row, r in enumerate(problem.recordings):
        mean, cov = conditional(problem, row)
        missing = torch.as_tensor(r.missing)
        drawn = found[:, row, : len(r.y)][:, missing].numpy()
        spread = np.sqrt(np.diag(cov))
        assert (np.abs(drawn.mean(0) - mean) < BUDGET * spread / SAMPLES**0.5).all()
        assert (np.abs(np.cov(drawn.T) - cov) < BUDGET * np.outer(spread, spread) * (2 / SAMPLES) ** 0.5).all()
        kept = found[:, row, : len(r.y)][:, ~missing]
        assert torch.equal(kept, torch.as_tensor(r.y)[~missing].expand_as(kept))
        other = blind[:, row, : len(r.y)][:, missing].numpy()
        off.append((np.abs(other.mean(0) - mean) > BUDGET * spread / SAMPLES**0.5).any())
    assert any(off)  # negative control
    assert found[:, 1, 5:].isnan().all()


def test_intervals_of_missing_entries_cover_them() -> None:
    problem = random_problem(6, [6] * 200, hide=0.3)
    data = as_data(problem)
    posterior = lr.Posterior(as_model(problem, data), exact_guide(problem), data, device="cpu")
    truth = np.stack([np.where(r.missing, r.y, np.nan) for r in problem.recordings])

    def covered(samples: torch.Tensor) -> tuple[float, float]:
        inside = lr.coverage(samples, truth, level=0.9)
        per_sequence = torch.nanmean(inside.flatten(1), 1)
        return float(inside.nanmean()), float(per_sequence.std()) / len(per_sequence) ** 0.5

    share, error = covered(posterior.impute("y", 400))
    assert abs(share - 0.9) < BUDGET * error
    without_noise, error = covered(posterior.rates("y", 400))
    assert without_noise < 0.9 - BUDGET * error  # negative control: what the states say is not what would be observed


@pytest.mark.parametrize("observation", OBSERVATIONS)
def test_observed_entries_stay_and_missing_ones_are_possible(observation: str) -> None:
    data = make_data(OBSERVATIONS[observation])
    model, guide = make_model(default_transition(observation), "innovations with initial", observation, data)
    posterior = lr.Posterior(model, guide, data, device="cpu")
    for name, head in model.observations.items():
        mask, values = data.masks[name], data.observations[name]
        if observation in ("multinomial, missing", "dirichlet-multinomial, missing"):
            with pytest.raises(ValueError, match="share a total, which is not known"):
                posterior.impute(name)
            continue
        found = posterior.impute(name, 6)
        assert found.shape == (6, *values.shape)
        assert torch.equal(found[:, mask], values[mask].expand(6, -1))
        if head.head.per_step:
            inside = torch.arange(values.shape[1]) < (data.lengths // head.head.clock)[:, None]
            assert torch.equal(found.isnan().any(-1), (~inside).expand(6, -1, -1))
        head.check(name, found.nan_to_num(1.0).flatten(0, 1), ~found.isnan().flatten(0, 1))
        hidden = ~mask & ~found[0].isnan()
        if name in OBSERVATIONS[observation].missing and not head.discrete:
            assert hidden.any()
            assert (found[:, hidden].amax(0) > found[:, hidden].amin(0)).all()


@pytest.mark.parametrize("family", [lr.Multinomial(), lr.DirichletMultinomial()], ids=["multinomial", "dirichlet"])
def test_the_rest_of_a_total_falls_on_the_missing_categories(family: lr.Observation) -> None:
    y = np.array([[[2.0, np.nan, np.nan, 1.0], [np.nan, 3.0, 0.0, 1.0], [0.0, 0.0, 4.0, 2.0]]])
    totals = np.array([[8.0, 9.0, 6.0]])
    data = lr.SequenceData.from_arrays({"y": y}, totals={"y": totals}, dtype=torch.float64)
    model = lr.LatentRNN(
        data.spec, transition=lr.GRU(2), latent=lr.Deterministic(), observations={"y": family}
    ).double()
    with torch.no_grad():
        model.observations["y"].readout.baseline.copy_(torch.tensor([0.2, -0.4, 0.7, 0.0]))
        model.observations["y"].readout.weight.zero_()
        if isinstance(family, lr.DirichletMultinomial):
            model.observations["y"].log_concentration.fill_(1.0)
    found = lr.Posterior(model, lr.Guide(model), data, device="cpu").impute("y", SAMPLES)[:, 0]
    assert torch.equal(found.sum(-1), torch.as_tensor(totals[0]).expand(SAMPLES, 3))
    assert (found[:, 1, 0] == 5).all()
    share = 1 / (1 + np.exp(0.7 + 0.4))  # of the second category among the second and third
    if isinstance(family, lr.DirichletMultinomial):
        shares = np.exp([0.2, -0.4, 0.7, 0.0])
        a, b = (np.e * shares / shares.sum())[1:3]
        variance = 5 * a * b * (a + b + 5) / ((a + b) ** 2 * (a + b + 1))
    else:
        variance = 5 * share * (1 - share)
    second = found[:, 0, 1].numpy()
    assert abs(second.mean() - 5 * share) < BUDGET * (variance / SAMPLES) ** 0.5
    assert abs(second.var() / variance - 1) < 0.2


def test_an_event_is_placed_where_the_record_leaves_room() -> None:
    """At risk at step 3, so no event before; one at step 6, so none between: only what is open is drawn."""
    y = np.array([[[0.0], [np.nan], [np.nan], [0.0], [np.nan], [np.nan], [1.0]], [[0.0]] + [[np.nan]] * 6])
    data = lr.SequenceData.from_arrays({"y": y}, dtype=torch.float64)
    model = lr.LatentRNN(
        data.spec, transition=lr.GRU(2), latent=lr.Deterministic(), observations={"y": lr.DiscreteHazard()}
    ).double()
    found = lr.Posterior(model, lr.Guide(model), data, device="cpu").impute("y", SAMPLES)[..., 0]
    assert (found[:, 0] == torch.tensor([0.0, 0, 0, 0, 0, 0, 1])).all()
    assert (found[:, 1].sum(-1) <= 1).all()
    hazard = lr.Posterior(model, lr.Guide(model), data, device="cpu").rates("y", 1)[0, 1, :, 0].numpy()
    expected = hazard * np.concatenate([[1.0, 1.0], np.cumprod(1 - hazard[1:-1])])
    error = (expected * (1 - expected) / SAMPLES) ** 0.5
    assert (np.abs(found[:, 1].mean(0).numpy() - expected)[1:] < BUDGET * error[1:]).all()


def test_a_drift_is_the_one_that_was_seen() -> None:
    torch.manual_seed(1)
    loc, scale = torch.randn(7, 2).double(), torch.tensor([0.3, 0.7]).double()
    loading, y = torch.randn(7, 3, 2).double(), torch.randn(7, 2).double()
    mask = torch.rand(7, 2) < 0.6
    law = DriftingNormal(loc, scale, loading, None).expand(torch.Size((SAMPLES,)))
    found = law.completed(y, mask).numpy()
    for c in range(2):
        cov = loading[..., c] @ loading[..., c].T + scale[c] ** 2 * torch.eye(7)
        o, m = mask[:, c].numpy(), ~mask[:, c].numpy()
        gain = np.linalg.solve(cov.numpy()[np.ix_(o, o)], cov.numpy()[np.ix_(o, m)]).T
        mean = loc[m, c].numpy() + gain @ (y[o, c] - loc[o, c]).numpy()
        rest = cov.numpy()[np.ix_(m, m)] - gain @ cov.numpy()[np.ix_(o, m)]
        spread = np.sqrt(np.diag(rest))
        assert (np.abs(found[:, m, c].mean(0) - mean) < BUDGET * spread / SAMPLES**0.5).all()
        assert (np.abs(np.cov(found[:, m, c].T) - rest) < BUDGET * np.outer(spread, spread) * 0.03).all()
        assert (found[:, o, c] == y[o, c].numpy()).all()
