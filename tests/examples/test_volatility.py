"""Memories of returns are what their equation says, rivals are what theirs says, and nothing sees the day it tells."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import norm, t

from examples.simulate import market
from examples.volatility.baselines import MODELS, by_garch
from examples.volatility.cells import SIZE, AdaptiveMemories
from examples.volatility.data import standard
from examples.volatility.models import (
    ATTEMPTS,
    CONTEXT,
    Attempt,
    about_shocks,
    as_sequence,
    fifths,
    fitted,
    gates,
    remembering,
)
from examples.volatility.scores import above, ahead

RETURNS = standard(market(0, 1200, leverage=0.15).returns)[0]


def test_memories_are_what_their_equation_says() -> None:
    cell = AdaptiveMemories(2)
    cell.build(1)
    cell.double()
    rest, shock, leverage = np.array([1.0, 3.0]), np.array([0.3, -0.1]), 0.4
    with torch.no_grad():
        cell.rest.copy_(torch.as_tensor(rest))
        cell.shock.copy_(torch.as_tensor(shock))
        cell.leverage.fill_(leverage)
    size, course, expected = np.full(2, SIZE), np.zeros(2), []
    for r in RETURNS[:50]:
        gate = 1 / (1 + np.exp(-rest + shock * abs(r) / size))
        size = gate * size + (1 - gate) * abs(r) * np.exp(-leverage * np.sign(r))
        course = gate * course + (1 - gate) * r
        expected.append([*np.log((size / SIZE) ** 2), *(course / size)])
    start = torch.tensor([SIZE, SIZE, 0.0, 0.0], dtype=torch.float64)
    states, _ = cell.scan(torch.as_tensor(RETURNS[None, :50, None]), start[None])
    np.testing.assert_allclose(
        states[0].detach().numpy(), expected, atol=1e-6
    )  # a size is kept above zero by 1e-9 a day


@pytest.mark.parametrize("tails", ["gaussian", "student"])
def test_rivals_are_what_their_recursion_says(tails: str) -> None:
    from arch import arch_model

    found = arch_model(
        RETURNS[:900], mean="Zero", o=1, dist={"gaussian": "normal", "student": "t"}[tails], rescale=False
    ).fit(disp="off")
    p = found.params
    densities = by_garch(RETURNS, 900, "GJR", tails)[0]
    variance, expected = (
        float(arch_model(RETURNS, mean="Zero", o=1, rescale=False).fix(p.iloc[:4]).conditional_volatility[0]) ** 2,
        [],
    )
    for r in RETURNS:
        scale = np.sqrt(variance)
        nu = p.get("nu", np.inf)
        told = (
            norm.logpdf(r, scale=scale) if tails == "gaussian" else t.logpdf(r, nu, scale=scale * np.sqrt(1 - 2 / nu))
        )
        expected.append(told)
        variance = p["omega"] + (p["alpha[1]"] + p["gamma[1]"] * (r < 0)) * r**2 + p["beta[1]"] * variance
    np.testing.assert_allclose(densities, expected, atol=1e-6)


@pytest.mark.parametrize("name", MODELS)
def test_rivals_see_no_later_day(name: str) -> None:
    later = RETURNS.copy()
    later[1000:] *= 3.0
    first, second = (by_garch(each, 900, name, "student")[0] for each in (RETURNS, later))
    np.testing.assert_allclose(first[:1000], second[:1000], atol=1e-9)
    assert np.abs(first[1001:] - second[1001:]).max() > 0.1


def test_models_see_no_later_day_and_are_scored_on_the_days_of_their_rivals() -> None:
    data = as_sequence(RETURNS)
    train, validation, test, learned = fifths(data)
    assert [int(part.host_lengths[0]) for part in (train, validation, test, learned)] == [720, 440, 440, 960]
    result = fitted(remembering(data, ATTEMPTS["one memory, adaptive, leverage"], "student"), train, 10)
    ours = ahead(result, test)
    rival = by_garch(RETURNS, 960, "GARCH", "student")[0][960:]
    np.testing.assert_allclose(test.observations["returns"][0, CONTEXT:, 0], RETURNS[960:])
    lead = above(ours, rival)
    assert lead.value == pytest.approx(float(ours.log_prob[0, CONTEXT:, 0].mean()) - rival[:].mean(), abs=1e-9)
    later = RETURNS.copy()
    later[1100:] *= 3.0
    other = ahead(result, fifths(as_sequence(later))[2])
    change = (ours.log_prob - other.log_prob)[0, CONTEXT:, 0].abs()
    assert float(change[: 1100 - 960].max()) == 0.0
    assert float(change[1100 - 960 + 1 :].max()) > 0.1


def test_gates_are_those_of_the_cell() -> None:
    data = as_sequence(RETURNS)
    result = fitted(remembering(data, Attempt(1), "student"), data, 5)
    known = {name: value[0] for name, value in result.posterior(data).parameters(1).items()}
    cell = AdaptiveMemories(1)
    cell.build(1)
    cell.double()
    with torch.no_grad():
        cell.rest.copy_(known["transition.rest"])
        cell.shock.copy_(known["transition.shock"])
    start = torch.tensor([[SIZE, 0.0]], dtype=torch.float64)
    run = cell.record(data.covariates["before"], start)
    forget = run.gates["forget"][0, :, 0].detach().numpy()
    assert forget.std() > 1e-4
    np.testing.assert_allclose(gates(result, data)[:, 0], forget, atol=1e-12)


def test_what_happens_after_shocks_is_seen_there() -> None:
    returns = np.where(np.arange(2000) % 2, 1.0, -1.0)
    shocks = np.arange(50, 1950, 50)  # 38 of 2000
    returns[shocks] *= 10.0
    gate = np.full((2000, 2), 0.9)
    gate[shocks + 1] = [0.5, 0.7]
    lag, mean, error = about_shocks(gate, returns)
    np.testing.assert_allclose(mean, np.where(lag == 1, 0.6, 0.9), atol=1e-12)
    np.testing.assert_allclose(error, 0.0, atol=1e-12)
