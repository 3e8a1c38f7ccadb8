"""Fixed points against closed forms, and what slow points make up, for planted dynamics and every kind of posterior."""

from __future__ import annotations

import itertools

import numpy as np
import pyro.distributions as dist
import pytest
import torch
from scipy.optimize import brentq

import latentrnn as lr
from tests.interpret.planted_dynamics import Ring, flip_flop, hold_bits, posterior_at
from tests.interpret.small import Adapting, posterior_of, recording
from tests.registry import OBSERVATIONS, TRANSITIONS, latent_for, make_data, make_model

STARTS = np.random.default_rng(0).normal(size=(60, 3))


def test_three_bits_have_eight_stable_points_and_their_saddles() -> None:
    posterior = posterior_at(flip_flop(), STARTS)
    hold_bits(posterior)
    found = lr.interpret.fixed_points(posterior, num_starts=400, noise=1.5)
    assert found.counts() == {"stable": 8, "saddle": 18, "repeller": 1, "slow": 0}
    memory = brentq(lambda h: np.tanh(1.5 * h) - h, 0.1, 1.0)
    planted = np.array(list(itertools.product([-memory, 0.0, memory], repeat=3)))
    state = found.dataset.state.values[0]
    for point in planted:
        near = np.abs(state - point).max(-1)
        assert near.min() < 1e-8
        here = found.dataset.isel(sample=0, point=int(near.argmin()))
        slopes = 1.5 * (1 - point**2)
        np.testing.assert_allclose(here.eigenvalue.values, np.sort(slopes)[::-1], atol=1e-7)
        np.testing.assert_allclose(here.time_constant.values, -0.01 / np.log(np.sort(slopes)[::-1]), rtol=1e-5)
        assert int(here.unstable) == (point == 0).sum()
    stable = found.dataset.isel(sample=0).where(found.dataset.unstable[0] == 0, drop=True)
    np.testing.assert_allclose(stable.basin.sum(), 1.0)  # every start ends at one of the eight
    signs = np.array([np.sign(start) for start in stable.state.values])
    assert len(np.unique(signs, axis=0)) == 8
    assert "8 stable, 18 saddle, 1 repeller" in repr(found)


def test_a_turning_state_has_its_frequency_and_time_constant() -> None:
    posterior = posterior_at(lr.Linear(2), STARTS[:, :2])
    turn = 2 * np.pi * 4.0 * 0.01  # 4 Hz at steps of 10 ms
    decay = np.exp(-0.01 / 0.2)
    with torch.no_grad():
        step = decay * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
        posterior.model.transition.recurrent_weight.copy_(torch.as_tensor(step))
        posterior.model.transition.bias.copy_(torch.tensor([0.3, -0.1], dtype=torch.float64))
        posterior.model.transition.input_weight.zero_()
    here = lr.interpret.fixed_points(posterior, within=100.0).dataset.isel(sample=0)
    assert here.sizes["point"] == 1
    np.testing.assert_allclose(here.state[0], np.linalg.solve(np.eye(2) - step, [0.3, -0.1]), rtol=1e-9)
    np.testing.assert_allclose(here.frequency[0], 4.0, rtol=1e-9)
    np.testing.assert_allclose(here.time_constant[0], 0.2, rtol=1e-9)


def test_a_ring_is_called_a_ring_and_a_line_a_line() -> None:
    posterior = posterior_at(Ring(), np.random.default_rng(1).normal(size=(60, 4)))
    found = lr.interpret.fixed_points(posterior)
    basis = posterior.model.transition.basis.numpy()
    radius = np.linalg.norm((found.dataset.state.values[0] @ basis)[:, :2], axis=-1)
    assert set(np.round(radius[radius > 0.5], 6)) == {1.0}
    kind = lr.interpret.attractor(found).isel(sample=0)
    assert str(kind.kind.values) == "ring"
    assert float(kind.dimension) == 1
    np.testing.assert_allclose(kind.share[:2].sum(), 1.0)

    for values, wanted in (([1.0, 0.5, 0.3], "line"), ([1.0, 1.0, 0.3], "plane"), ([0.9, 0.5, 0.3], "point")):
        posterior = posterior_at(lr.Linear(3), STARTS)
        with torch.no_grad():
            basis = np.linalg.qr(np.random.default_rng(2).normal(size=(3, 3)))[0]
            posterior.model.transition.recurrent_weight.copy_(torch.as_tensor(basis @ np.diag(values) @ basis.T))
            posterior.model.transition.bias.zero_()
            posterior.model.transition.input_weight.zero_()
        kind = lr.interpret.attractor(lr.interpret.fixed_points(posterior)).isel(sample=0)
        assert str(kind.kind.values) == wanted
        if wanted == "line":
            np.testing.assert_allclose(kind.gap, 1.0, rtol=1e-6)

    posterior = posterior_at(flip_flop(), STARTS)
    hold_bits(posterior)
    kind = lr.interpret.attractor(lr.interpret.fixed_points(posterior)).isel(sample=0)
    assert str(kind.kind.values) == "points"
    assert int(kind.number) == 8


def test_an_arc_is_a_line_and_not_a_ring() -> None:
    found = lr.interpret.fixed_points(posterior_at(Ring(), np.random.default_rng(1).normal(size=(60, 4))))
    basis = posterior_at(Ring(), np.zeros((1, 4))).model.transition.basis.numpy()
    x, y = (found.dataset.state.values[0] @ basis)[:, :2].T
    arc = lr.interpret.FixedPoints(
        found.dataset.isel(point=np.flatnonzero((np.hypot(x, y) > 0.5) & ~((x > 0) & (y > 0))))
    )
    assert str(lr.interpret.attractor(arc).kind.values[0]) == "line"


def test_points_move_with_a_constant_covariate_in_the_units_of_the_data() -> None:
    data = recording()
    posterior = posterior_of(
        lr.LeakyIntegrator(2, priors={"time_constant": dist.LogNormal(-3.0, 0.5)}), lr.Innovations(1)
    )
    held = {"x": [3.0, -1.0]}
    found = lr.interpret.fixed_points(posterior, held, num_samples=4, within=1e4, num_starts=20).dataset
    (tau,) = posterior.parameters(4).values()
    np.testing.assert_allclose(
        np.sort(found.time_constant.values[:, 0], -1), np.sort(tau.reshape(4, -1).expand(4, 2).numpy(), -1), rtol=1e-4
    )
    drive = posterior.model.transition.input_weight.detach().numpy() @ [3.0, -1.0, 0.0]
    expected = drive / (1 - np.exp(-0.01 / tau.reshape(4, -1).numpy()))
    np.testing.assert_allclose(found.state.values[:, 0], np.broadcast_to(expected, (4, 2)), rtol=1e-4)
    with pytest.raises(ValueError, match=r"'x' drives the transition.*found none"):
        lr.interpret.fixed_points(posterior)
    with pytest.raises(ValueError, match="unknown covariates \\['z'\\]"):
        lr.interpret.fixed_points(posterior, {"x": 0.0, "z": 1.0})
    with pytest.raises(ValueError, match="expected a number, or 2 of them; found \\[1, 2, 3\\]"):
        lr.interpret.fixed_points(posterior, {"x": [1, 2, 3]})
    with pytest.raises(ValueError, match=r"gap=0\.1, but the data have a regular clock"):
        lr.interpret.fixed_points(posterior, {"x": 0.0}, gap=0.1)
    with pytest.raises(TypeError, match="expected a posterior"):
        lr.interpret.fixed_points(data)


def test_what_a_head_emitted_is_held_too() -> None:
    head = lr.Poisson(feedback=lr.History(2, filters=1, into="transition"))
    posterior = posterior_of(lr.GRU(2), lr.Innovations(1), head=head)
    fitted = posterior.model.observations["spikes"]
    fitted.history_centre.fill_(2.0)
    options = {"num_starts": 20, "within": 100.0}
    at = {
        past if isinstance(past, str) else "two": lr.interpret.fixed_points(posterior, {"x": 0.0}, past=past, **options)
        for past in ("mean", "zero", {"spikes": 2.0})
    }
    states = {name: found.dataset.state.values for name, found in at.items()}
    np.testing.assert_allclose(states["mean"], states["two"], atol=1e-8)
    assert np.abs(states["zero"] - states["mean"]).max() > 1e-3
    with pytest.raises(ValueError, match="past must be 'mean', 'zero' or head to values; found 'last'"):
        lr.interpret.fixed_points(posterior, {"x": 0.0}, past="last")


def test_a_switch_cannot_be_zero() -> None:
    posterior = posterior_of(lr.SwitchingLinear(2, 2, switch="given"), lr.RelaxedDiscrete(2))
    with pytest.raises(ValueError, match="expected regime=0 to 1"):
        lr.interpret.fixed_points(posterior, {"x": 0.0})
    model = posterior.model.transition
    found = lr.interpret.fixed_points(posterior, {"x": 0.0}, regime=1, within=1e3, num_starts=10).dataset
    own = model.recurrent_weight[1].detach().numpy()
    np.testing.assert_allclose(
        found.state.values[0, 0], np.linalg.solve(np.eye(2) - own, model.bias[1].detach().numpy()), rtol=1e-6
    )


def test_members_of_an_ensemble_have_points_of_their_own() -> None:
    members = [posterior_of(Adapting(2), lr.Innovations(1), recording()) for _ in range(2)]
    with torch.no_grad():
        members[1].model.transition.map.bias.add_(1.0)
    both = lr.EnsemblePosterior(members, torch.tensor([0.5, 0.5]))
    found = lr.interpret.fixed_points(both, {"x": 0.0}, num_samples=2, num_starts=20, within=100.0).dataset
    assert found.member.values.tolist() == [0, 1]
    for number, member in enumerate(members):
        bias = member.model.transition.map.bias.detach().numpy()
        state = found.state.values[number, 0]
        np.testing.assert_allclose(0.1 * state, bias / (1 + np.exp(state)), atol=1e-9)


@pytest.mark.parametrize("name", TRANSITIONS)
def test_every_transition_rests_where_a_step_leaves_it(name: str) -> None:
    data = make_data(OBSERVATIONS["poisson"])
    model, guide = make_model(name, latent_for(name, "poisson", "innovations"), "poisson", data)
    posterior = lr.Posterior(model, guide, data)
    regime = 0 if model.latent.switch_size else None
    held = {"drive": 1.0, "stimulus": [0.5, -0.5]}
    found = lr.interpret.fixed_points(posterior, held, regime=regime, num_starts=16, within=1e6, slow=0.0)
    here = found.dataset.isel(sample=0)
    unbounded = "neural ode", "streams, timed"  # a field without a zero is possible
    assert here.sizes["point"] >= (0 if name in unbounded else 1)
    inputs = model.transition_inputs(data)[0, -1].clone()  # by hand: the time if any, drive, stimulus, innovations
    inputs[int(model.transition.timed) :] = torch.as_tensor(_by_hand(model, [1.0, 0.5, -0.5]))
    drawn = torch.zeros(model.latent.input_size, dtype=inputs.dtype)
    if regime is not None:
        drawn[-model.latent.switch_size] = 1.0
    states = torch.as_tensor(here.state.values)
    moved = model.transition.step(states, torch.cat([inputs, drawn]).expand(len(states), -1))
    torch.testing.assert_close(moved, states, rtol=0, atol=1e-6 * max(1.0, found.dataset.attrs["spread"]))
    assert np.isfinite(here.eigenvalue.values).all()
    assert "FixedPoints(" in repr(found)


def _by_hand(model: lr.LatentRNN, covariates: list[float]) -> list[float]:
    """What features make of constant drive and stimulus: themselves, and two lags of the stimulus in `Streams`."""
    drive, *stimulus = covariates
    found: list[float] = []
    for item in [*model.transition.own_inputs, *model.inputs]:
        found += [drive] if item == "drive" else stimulus * (1 if item == "stimulus" else 2)
    return found


def test_draws_of_laplace_and_of_nuts_have_points_of_their_own() -> None:
    rng = np.random.default_rng(0)
    drive = rng.normal(size=(3, 10, 1))
    data = lr.SequenceData.from_arrays({"v": rng.normal(size=(3, 10, 1))}, {"u": drive}, dt=0.01, dtype=torch.float64)
    memory = lr.LeakyIntegrator(1, priors={"time_constant": dist.LogNormal(-3.0, 0.3)}, fixed={"input_weight": 1.0})
    heads = {"v": lr.Gaussian(fixed={"scale": 1.0})}
    model = lr.LatentRNN(data.spec, transition=memory, latent=lr.Deterministic(), observations=heads).double()
    fits = [lr.laplace(model, data), lr.sample(model, data, num_samples=100, warmup=100, progress=False)]
    for posterior in [fits[0].posterior(data), fits[1]]:
        tau = posterior.parameters(3)["transition.time_constant"].numpy().reshape(-1)
        found = lr.interpret.fixed_points(posterior, {"u": 0.5}, num_samples=3, num_starts=10, within=1e3).dataset
        np.testing.assert_allclose(found.state[:, 0, 0], 0.5 / (1 - np.exp(-0.01 / tau)), rtol=1e-6)
        exponents = lr.interpret.lyapunov(posterior, {"u": 0.5}, num_samples=3, num_runs=2, steps=20, burn_in=0)
        np.testing.assert_allclose(exponents.exponent[:, 0], -1 / tau, rtol=1e-6)
