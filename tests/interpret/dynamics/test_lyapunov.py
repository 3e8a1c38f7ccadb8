"""Lyapunov spectra of maps whose exponents are known."""

from __future__ import annotations

import numpy as np
import pyro.distributions as dist
import pytest
import torch

import latentrnn as lr
from tests.interpret.planted_dynamics import Lorenz, posterior_at
from tests.interpret.small import Adapting, posterior_of


def test_the_lorenz_system_has_the_exponents_of_the_literature() -> None:
    starts = np.random.default_rng(0).normal(size=(20, 3)) + [1.0, 1.0, 25.0]
    found = lr.interpret.lyapunov(posterior_at(Lorenz(), starts), num_runs=16, steps=2000, burn_in=500).isel(sample=0)
    exponents = found.exponent.values
    assert abs(exponents[0] - 0.906) < 0.09  # 10%
    assert abs(exponents[1]) < 0.03
    assert abs(exponents[2] + 14.57) < 0.15
    np.testing.assert_allclose(exponents.sum(), -(10 + 1 + 8 / 3), rtol=1e-3)  # the field's divergence, constant
    assert abs(float(found.dimension) - 2.06) < 0.02
    assert 0 < float(found.standard_error[0]) < 0.05
    # a map that rests is not chaotic
    resting = posterior_at(lr.Linear(3), starts)
    assert float(lr.interpret.lyapunov(resting, steps=100, burn_in=0).exponent.max()) < 0


def test_a_linear_map_has_the_logarithms_of_its_eigenvalues() -> None:
    posterior = posterior_at(lr.Linear(3), np.random.default_rng(0).normal(size=(5, 3)))
    weight = posterior.model.transition.recurrent_weight.detach().numpy()
    wanted = np.sort(np.log(np.abs(np.linalg.eigvals(weight))))[::-1] / 0.01
    found = lr.interpret.lyapunov(posterior, steps=2000, burn_in=200)
    np.testing.assert_allclose(found.exponent[0], wanted, rtol=2e-2)
    largest = lr.interpret.lyapunov(posterior, steps=2000, burn_in=200, num_exponents=1)
    np.testing.assert_allclose(largest.exponent[0], wanted[:1], rtol=2e-2)


def test_along_the_data_the_product_of_jacobians_is_that_of_numpy() -> None:
    posterior = posterior_of(Adapting(2), lr.Innovations(1))
    found = lr.interpret.lyapunov_along(posterior, num_samples=2)
    weights = posterior.model.transition.map
    weight, bias = weights.weight.detach().numpy(), weights.bias.detach().numpy()
    for run in posterior.transition_runs(2):
        before, inputs = (value[1, 2].detach().numpy() for value in (run.before, run.inputs))
        total = np.eye(2)
        for s, a in zip(before[:10], inputs[:10], strict=True):  # the third sequence has ten steps
            room = 1 / (1 + np.exp(s))
            total = np.diag(0.9 - room * (1 - room) * (weight @ a + bias)) @ total
        volume = np.log(np.abs(np.linalg.det(total))) / (10 * 0.01)
        np.testing.assert_allclose(found.of_sequence[1, 2].sum(), volume, rtol=1e-9)
    assert found.of_sequence.dims == ("sample", "sequence", "exponent_number")
    np.testing.assert_allclose(np.sort(found.of_sequence.mean("sequence"))[:, ::-1], found.exponent)


def test_every_draw_and_every_member_has_its_own() -> None:
    memory = lr.LeakyIntegrator(1, priors={"time_constant": dist.LogNormal(-3.0, 0.5)})
    posterior = posterior_of(memory, lr.Innovations(1))
    (tau,) = posterior.parameters(4).values()
    options = {"steps": 40, "burn_in": 0, "num_samples": 4}
    found = lr.interpret.lyapunov(posterior, {"x": 0.0}, **options)
    np.testing.assert_allclose(found.exponent[:, 0], -1 / tau.numpy().reshape(-1), rtol=1e-5)
    along = lr.interpret.lyapunov_along(posterior, num_samples=4)
    np.testing.assert_allclose(along.exponent[:, 0], -1 / tau.numpy().reshape(-1), rtol=1e-5)
    members = [posterior_of(lr.LSTM(2), lr.Innovations(1)) for _ in range(2)]
    both = lr.EnsemblePosterior(members, torch.tensor([0.5, 0.5]))
    pair = lr.interpret.lyapunov(both, {"x": 0.0}, num_samples=2, steps=40, burn_in=0)
    assert pair.member.values.tolist() == [0, 1]
    assert pair.sizes["exponent_number"] == 4  # hidden and cell state


def test_mistakes_are_named() -> None:
    posterior = posterior_of(lr.GRU(2), lr.Innovations(1))
    with pytest.raises(ValueError, match="'x' drives the transition"):
        lr.interpret.lyapunov(posterior)
    with pytest.raises(ValueError, match="num_exponents must be a positive integer of at most 2; found 3"):
        lr.interpret.lyapunov(posterior, {"x": 0.0}, num_exponents=3)
    with pytest.raises(ValueError, match="steps must be a multiple of num_blocks=4; found 10"):
        lr.interpret.lyapunov(posterior, {"x": 0.0}, steps=10)
    with pytest.raises(ValueError, match="burn_in=50, but the longest sequence has 12 steps"):
        lr.interpret.lyapunov_along(posterior, burn_in=50)
    grows = posterior_at(lr.Linear(1), np.ones((2, 1)))
    with torch.no_grad():
        grows.model.transition.recurrent_weight.fill_(3.0)
    with pytest.raises(ValueError, match="leave all bounds"):
        lr.interpret.lyapunov(grows)
