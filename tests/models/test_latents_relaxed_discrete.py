"""RelaxedDiscrete against the Concrete density written out, the chain that it relaxes, and what it must refuse."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import special, stats
from torch import Tensor

import latentrnn as lr
from latentrnn.models.latents.relaxed_discrete import ConcretePath
from tests import oracles
from tests.oracles import Array
from tests.registry import OBSERVATIONS, make_data

PI = torch.tensor([0.5, -0.3, 0.1], dtype=torch.float64)
MOVES = torch.tensor([[2.0, 0.1, -0.4], [0.3, 1.5, 0.0], [-1.0, 0.2, 1.0]], dtype=torch.float64)


def path_law(temperature: float, steps: int, states: int = 3, valid: Tensor | None = None, n: int = 2) -> ConcretePath:
    return ConcretePath(PI[:states], MOVES[:states, :states], temperature, (n, steps), valid)


def written_out(x: Array, temperature: float) -> float:
    """Sum of log densities of the Concrete weights (Maddison and others, equation 10), changed to x by its Jacobian."""
    states, total = x.shape[1] + 1, 0.0
    alpha = special.softmax(PI.numpy()[:states])
    moves = special.softmax(MOVES.numpy()[:states, :states], 1)
    for x_t in x:
        w = special.softmax(np.append(0.0, x_t) / temperature)
        density = special.gammaln(states) + (states - 1) * np.log(temperature)
        density += np.sum(np.log(alpha) - (temperature + 1) * np.log(w))
        density -= states * np.log(np.sum(alpha * w**-temperature))
        jacobian = (np.diag(w) - np.outer(w, w))[1:, 1:] / temperature  # of w_1.. by x_1..
        total += density + np.linalg.slogdet(jacobian)[1]
        alpha = w @ moves
    return float(total)


@pytest.mark.parametrize("temperature", [0.4, 1.0])
@pytest.mark.parametrize("states", [2, 3])
def test_the_density_is_the_concrete_one(states: int, temperature: float) -> None:
    law = path_law(temperature, 5, states)
    x = 1.5 * torch.randn(2, 5, states - 1, dtype=torch.float64)
    expected = [written_out(row.numpy(), temperature) for row in x]
    np.testing.assert_allclose(law.log_prob(x), expected, rtol=0, atol=1e-10)
    padded = path_law(temperature, 5, states, torch.arange(5) < torch.tensor([[5], [3]]))
    expected[1] = written_out(x[1, :3].numpy(), temperature) + stats.norm.logpdf(x[1, 3:].numpy()).sum()
    np.testing.assert_allclose(padded.log_prob(x), expected, rtol=0, atol=1e-10)


def test_two_states_are_logistic_around_the_log_odds() -> None:
    x = torch.randn(1, 2, 1, dtype=torch.float64)
    w = special.expit(float(x[0, 0, 0]) / 0.5)
    after = np.array([1 - w, w]) @ special.softmax(MOVES.numpy()[:2, :2], 1)
    expected = stats.logistic.logpdf(float(x[0, 0, 0]), float(PI[1] - PI[0]))
    expected += stats.logistic.logpdf(float(x[0, 1, 0]), np.log(after[1] / after[0]))
    assert float(path_law(0.5, 2, 2, n=1).log_prob(x)) == pytest.approx(expected, rel=0, abs=1e-12)


def test_densities_in_the_far_tails_are_finite() -> None:
    x = torch.tensor([[[-300.0, 300.0], [500.0, -500.0], [0.0, 0.0]]], requires_grad=True)
    law = ConcretePath(PI.float(), MOVES.float(), 0.05, (1, 3), None)
    law.log_prob(x).sum().backward()
    assert torch.isfinite(law.log_prob(x)).all()
    assert torch.isfinite(x.grad).all()


def steps_of(latent: lr.RelaxedDiscrete, count: int, steps: int) -> Tensor:
    """Weights drawn one step after the other, as a filter draws them, (draw, time, state)."""
    transition, data = lr.GRU(2), make_data(OBSERVATIONS["poisson"])
    transition.build(1 + latent.num_states)
    latent.build(transition.double(), data.spec.dt)
    latent.double()
    with torch.no_grad():
        latent.initial_logits.copy_(PI), latent.switch_logits.copy_(MOVES)
        carry, path = latent.begin((count,)), []
        for _ in range(steps):
            carry = latent.advance(transition, carry, torch.zeros(count, 1, dtype=torch.float64), None)
            path.append(carry.innovation)
    return torch.stack(path, 1)


@pytest.mark.parametrize("stepwise", [False, True], ids=["at once", "by steps"])
@pytest.mark.parametrize("temperature", [0.05, 2.0])
def test_the_largest_weight_is_the_state_that_the_chain_would_draw(temperature: float, stepwise: bool) -> None:
    """P(argmax w_t = k | w_{t-1}) = (w_{t-1} P)_k at any temperature; a chain with other moves would not do."""
    torch.manual_seed(0)
    count = 20_000
    if stepwise:
        w = steps_of(lr.RelaxedDiscrete(3, temperature), count, 3)
    else:
        w = (torch.nn.functional.pad(path_law(temperature, 3, n=count).sample(), (1, 0)) / temperature).softmax(-1)
    torch.testing.assert_close(w.sum(-1), torch.ones(count, 3, dtype=torch.float64))
    largest = torch.nn.functional.one_hot(w.argmax(-1), 3).double()
    assert (w.amax(-1).mean() > 0.95) == (temperature < 1)  # near the corners, or not
    expected = torch.stack([PI.softmax(-1).expand(count, -1), *((w @ MOVES.softmax(-1))[:, :2]).unbind(1)], 1)
    error = (expected * (1 - expected)).mean(0).sqrt() / count**0.5
    assert ((largest - expected).mean(0).abs() < 6 * error).all()
    # also where the last weights lean to the first state, so that the path is seen to remember
    leaning = w[:, 0, 0] > 0.8
    assert ((largest - expected)[leaning, 1].mean(0).abs() < 6 * error[1] * (count / leaning.sum()) ** 0.5).all()
    shifted = (w @ MOVES.softmax(-1).roll(1, 1))[:, :2]
    assert ((largest[:, 1:] - shifted).mean(0).abs() > 6 * error[1:]).any()


def regimes(temperature: float, seed: int = 0) -> tuple[lr.LatentRNN, lr.SequenceData, list[Array]]:
    """A switch that sets the mean of two channels and nothing else: at temperature zero a hidden Markov model."""
    rng = np.random.default_rng(seed)
    mean, noise = np.array([[1.0, -0.5], [-1.0, 0.8], [0.0, 0.0]]), 0.7
    first, moves = special.softmax(PI.numpy()), special.softmax(MOVES.numpy(), 1)
    lengths, states = (12, 7), []
    for length in lengths:
        state = [rng.choice(3, p=first)]
        for _ in range(length - 1):
            state.append(rng.choice(3, p=moves[state[-1]]))
        states.append(np.array(state))
    y = [mean[state] + noise * rng.normal(size=(len(state), 2)) for state in states]
    data = lr.SequenceData.from_arrays({"y": y}, dtype=torch.float64)
    model = lr.LatentRNN(
        data.spec,
        transition=lr.SwitchingLinear(2, 3, switch="given"),
        latent=lr.RelaxedDiscrete(3, temperature),
        observations={"y": lr.Gaussian("full")},  # one density for the channels of a step
    ).double()
    head = model.observations["y"]
    with torch.no_grad():
        model.transition.recurrent_weight.zero_()
        model.transition.bias.copy_(torch.as_tensor(mean))
        model.latent.initial_logits.copy_(PI), model.latent.switch_logits.copy_(MOVES)
        head.readout.weight.copy_(torch.eye(2)), head.readout.baseline.zero_()
    head.set_noise_covariance(noise**2 * torch.eye(2, dtype=torch.float64))
    emission = [stats.norm.logpdf(each[:, None], mean, noise).sum(-1) for each in y]
    return model, data, emission


def filtered(model: lr.LatentRNN, data: lr.SequenceData) -> tuple[Array, Array]:
    guide = lr.Guide(model, encoder=lr.RNNEncoder(2)).double()
    found = lr.Posterior(model, guide, data, device="cpu").one_step_ahead("y", num_particles=2000, num_filters=4)
    return found.log_prob.sum((1, 2)).numpy(), found.standard_error.square().sum((1, 2)).sqrt().numpy()


def test_the_filter_of_a_cold_switch_is_that_of_the_hidden_markov_model() -> None:
    """And that of a warm one is not: its weights lie between the regimes."""
    model, data, emission = regimes(1e-3)
    first, moves = special.softmax(PI.numpy()), special.softmax(MOVES.numpy(), 1)
    expected = np.array([oracles.hmm_forward(first, moves, each)[0] for each in emission])
    found, error = filtered(model, data)
    np.testing.assert_array_less(np.abs(found - expected), 6 * error)
    warm, error = filtered(regimes(2.0)[0], data)
    assert (np.abs(warm - expected) > 6 * error).any()


# -- the transition that it mixes ----------------------------------------------------------------------------------


def test_given_weights_mix_the_regimes() -> None:
    cell = lr.SwitchingLinear(3, 2, switch="given")
    cell.build(2 + 2)
    cell.double()
    inputs, state = torch.randn(4, 6, 2).double(), torch.randn(4, 3).double()
    w = torch.rand(4, 6, 2).double()
    found = cell.scan(torch.cat([inputs, w], -1), state)[0].detach().numpy()
    weights = {name: value.detach().numpy() for name, value in cell.named_parameters()}
    for n in range(4):
        h = state[n].numpy()
        for t in range(6):
            a = inputs[n, t].numpy()
            h = sum(
                w[n, t, k].item()
                * (weights["recurrent_weight"][k] @ h + weights["input_weight"][k] @ a + weights["bias"][k])
                for k in range(2)
            )
            np.testing.assert_allclose(found[n, t], h, rtol=0, atol=1e-12)
    recorded = cell.record(torch.cat([inputs, w], -1), state).gates["regime"]
    torch.testing.assert_close(recorded, w)
    one_hot = torch.nn.functional.one_hot(torch.zeros(4, 6).long(), 2)
    alone = lr.Linear(3)
    alone.build(2)
    alone.double()
    with torch.no_grad():
        for name in ("recurrent_weight", "input_weight", "bias"):
            getattr(alone, name).copy_(getattr(cell, name)[0])
    expected = alone.scan(inputs, state)[0]
    torch.testing.assert_close(cell.scan(torch.cat([inputs, one_hot], -1), state)[0], expected)


# -- use -----------------------------------------------------------------------------------------------------------


def small_fit(**parts: Any) -> tuple[lr.FitResult, lr.SequenceData]:
    data = make_data(OBSERVATIONS["poisson"], (8, 6, 5), dtype=torch.float32)
    model = lr.LatentRNN(
        data.spec,
        **{"transition": lr.SwitchingLinear(3, 2, switch="given"), "latent": lr.RelaxedDiscrete(2)} | parts,
        observations={"y": lr.Poisson()},
    )
    guide = lr.Guide(model, encoder=lr.RNNEncoder(4))
    return lr.fit(
        model, guide, data, steps=5, reporting=lr.Reporting(progress=False), compute=lr.Compute(device="cpu")
    ), data


@pytest.mark.parametrize("transition", [lr.SwitchingLinear(3, 2, switch="given"), lr.LSTM(3)], ids=["linear", "lstm"])
def test_the_switch_is_reported_and_survives_a_file(transition: lr.Transition, tmp_path: Path) -> None:
    result, data = small_fit(transition=transition)
    posterior = result.posterior(data, device="cpu")
    latents = posterior.latents(7)
    assert latents["switch"].shape == (7, 3, 8, 2)
    assert latents["switch_logits"].shape == (7, 3, 8, 1)
    inside = data.valid.expand(7, -1, -1)
    torch.testing.assert_close(latents["switch"][inside].sum(-1), torch.ones(int(inside.sum())))
    expected = torch.sigmoid(latents["switch_logits"][..., 0] / 0.5)
    torch.testing.assert_close(latents["switch"][..., 1][inside], expected[inside])
    assert latents["switch"][~inside].isnan().all()
    result.save(tmp_path / "run")
    again = lr.load(tmp_path / "run").posterior(data, device="cpu")
    torch.testing.assert_close(again.latents(7)["switch"], latents["switch"], equal_nan=True)
    assert repr(again.model) == repr(posterior.model)
    ahead = posterior.one_step_ahead("y", num_particles=32)
    assert torch.isfinite(ahead.log_prob).all()
    assert not ahead.exact


def given(latent: lr.Latent, regimes: int = 2) -> lr.LatentRNN:
    data = make_data(OBSERVATIONS["poisson"])
    transition = lr.SwitchingLinear(3, regimes, switch="given")
    return lr.LatentRNN(data.spec, transition=transition, latent=latent, observations={"y": lr.Poisson()})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: lr.RelaxedDiscrete(1), "num_states must be at least 2; found 1"),
        (lambda: lr.RelaxedDiscrete(2, 0.0), "temperature must be positive; found 0.0"),
        (lambda: lr.RelaxedDiscrete(2, math.inf), "temperature must be finite; found inf"),
        (lambda: lr.RelaxedDiscrete(2, initial=0), "initial must be a positive integer; found 0"),
        (lambda: lr.SwitchingLinear(3, 2, weights="sigmoid", switch="given"), "computes weights"),
        (lambda: given(lr.Innovations(2)), r"weights of 2 regimes.*RelaxedDiscrete\(2\).*hands no switch"),
        (lambda: given(lr.Discrete(2)), r"a switch that it sees.*Discrete\(num_states=2\) hands no switch"),
        (lambda: given(lr.RelaxedDiscrete(3)), r"weights of 2 regimes.*RelaxedDiscrete\(num_states=3\) has 3"),
        (lambda: given(lr.MarkovNormal()), "hands no switch"),
    ],
)
def test_what_makes_no_sense_is_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
