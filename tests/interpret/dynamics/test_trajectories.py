"""States on their leading dimensions, the field in a plane, and what units explain, against NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import latentrnn as lr
from tests.interpret.planted_dynamics import Ring, posterior_at
from tests.interpret.small import Adapting, posterior_of
from tests.registry import OBSERVATIONS, make_data, make_model


def test_trajectories_are_principal_components() -> None:
    posterior = posterior_of(lr.LSTM(4), lr.Innovations(2))
    found = lr.interpret.trajectories(posterior, 3, num_samples=5)
    states = posterior.latents(5)["states"].numpy()
    flat = states[~np.isnan(states).any(-1)]
    _, singular, vectors = np.linalg.svd(flat - flat.mean(0), full_matrices=False)
    np.testing.assert_allclose(found.share[0], (singular**2 / (singular**2).sum())[:3], rtol=1e-9)
    for component in range(3):
        assert abs(abs(float(found.direction.values[0, component] @ vectors[component])) - 1) < 1e-9
        assert found.direction.values[0, component][np.abs(found.direction.values[0, component]).argmax()] > 0
    expected = (states - flat.mean(0)) @ found.direction.values[0].T
    np.testing.assert_allclose(found.trajectory, expected, atol=1e-12)
    assert bool(found.trajectory[:, 2, -1].isnull().all())
    with pytest.raises(ValueError, match="dims must be a positive integer of at most 4; found 5"):
        lr.interpret.trajectories(posterior, 5)


def test_a_portrait_of_a_linear_map_is_its_matrix() -> None:
    posterior = posterior_at(lr.Linear(3), np.random.default_rng(0).normal(size=(20, 3)))
    found = lr.interpret.phase_portrait(posterior, num_points=4, plane=(0, 2)).isel(sample=0)
    transition = posterior.model.transition
    weight = transition.recurrent_weight.detach().numpy()
    bias = (transition.bias + transition.input_weight[:, 0]).detach().numpy()  # without covariates a constant comes in
    axes, centre = found.direction.values, found.centre.values
    for row, y in enumerate(found.position_y.values):
        for column, x in enumerate(found.position_x.values):
            s = centre + x * axes[0] + y * axes[1]
            moved = (weight @ s + bias - s) / 0.01
            here = found.isel(y=row, x=column)
            np.testing.assert_allclose([here.velocity_x, here.velocity_y], axes @ moved, atol=1e-6)
            np.testing.assert_allclose(here.out, np.linalg.norm(moved - axes.T @ axes @ moved), atol=1e-6)
    with pytest.raises(ValueError, match="two different components of 0 to 2; found \\(1, 1\\)"):
        lr.interpret.phase_portrait(posterior, plane=(1, 1))


def test_the_field_of_a_ring_points_to_it() -> None:
    found = lr.interpret.phase_portrait(posterior_at(Ring(2), np.random.default_rng(0).normal(size=(50, 2)))).isel(
        sample=0
    )
    place = np.stack(np.meshgrid(found.position_x, found.position_y), -1) @ found.direction.values + found.centre.values
    velocity = np.stack([found.velocity_x, found.velocity_y], -1) @ found.direction.values
    radius = np.linalg.norm(place, axis=-1)
    outwards = (velocity * place).sum(-1) / radius
    assert (np.sign(outwards) == np.sign(1 - radius)).all()


def test_shares_of_a_linear_readout_are_those_of_numpy() -> None:
    posterior = posterior_of(lr.GRU(3), lr.Innovations(2))
    weight = torch.tensor([[1.0, 0.5, 0.0], [0.0, 0.3, 0.0], [0.2, 0.0, 0.0]], dtype=torch.float64)
    with torch.no_grad():
        posterior.model.observations["spikes"].readout.weight.copy_(weight)
    found = lr.interpret.explained_variance(posterior, "spikes", num_samples=4)
    rates, states = posterior.rates("spikes", 4).numpy(), posterior.latents(4)["states"].numpy()
    bias = np.log(rates[0, 0, 0]) - weight.numpy() @ states[0, 0, 0]
    centre = np.nanmean(states, (0, 1, 2))

    def left(changed: np.ndarray, draw: int) -> float:
        return float(np.nansum((np.exp(changed[draw] @ weight.numpy().T + bias) - rates[draw]) ** 2))

    for draw in range(4):
        total = np.nansum((rates[draw] - np.nanmean(rates[draw], (0, 1))) ** 2)
        for unit in range(3):
            alone, without = np.broadcast_to(centre, states.shape).copy(), states.copy()
            alone[..., unit], without[..., unit] = states[..., unit], centre[unit]
            alone[np.isnan(states)] = np.nan
            np.testing.assert_allclose(found.alone[draw, unit], 1 - left(alone, draw) / total, rtol=1e-6)
            np.testing.assert_allclose(found.lost[draw, unit], left(without, draw) / total, rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(found.lost[:, 2], 0.0, atol=1e-12)  # which no channel reads
    np.testing.assert_allclose(found.leading[:, -1], 1.0, atol=1e-9)
    with pytest.raises(ValueError, match="unknown head 'v'; the model has \\['spikes'\\]"):
        lr.interpret.explained_variance(posterior, "v")


@pytest.mark.parametrize("heads", ["readouts", "several", "source attention", "clocked", "per sequence, attention"])
def test_every_readout_has_shares(heads: str) -> None:
    data = make_data(OBSERVATIONS[heads])
    model, guide = make_model("gru", "innovations", heads, data)
    posterior = lr.Posterior(model, guide, data)
    for name in model.observations:
        found = lr.interpret.explained_variance(posterior, name, num_samples=3)
        assert bool(np.isfinite(found.alone).all())
        np.testing.assert_allclose(found.leading[:, -1], 1.0, atol=1e-6)


def test_a_transition_of_ones_own_and_an_ensemble() -> None:
    members = [posterior_of(Adapting(3), lr.Innovations(1)) for _ in range(2)]
    both = lr.EnsemblePosterior(members, torch.tensor([0.5, 0.5]))
    assert lr.interpret.trajectories(both, num_samples=4).trajectory.shape == (4, 3, 12, 2)
    assert lr.interpret.explained_variance(both, "spikes", num_samples=4).sizes == {
        "sample": 4,
        "unit": 3,
        "component": 3,
    }
    portrait = lr.interpret.phase_portrait(both, {"x": 0.0}, num_points=3, num_samples=2)
    assert portrait.velocity_x.shape == (2, 3, 3)
