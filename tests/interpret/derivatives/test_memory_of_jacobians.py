"""Products of Jacobians: planted radii, forget gates, differences over spans."""

from __future__ import annotations

import numpy as np
import pyro.distributions as dist
import pytest
import torch

import latentrnn as lr
from tests.interpret.planted import lstm, quiet, vanilla
from tests.interpret.small import Adapting, posterior_of, recording


def test_a_vanilla_network_forgets_as_its_spectral_radius_says() -> None:
    found = lr.interpret.gradient_flow(vanilla(6, quiet(), radius=0.95), [1, 20, 60], num_samples=2)
    np.testing.assert_allclose(found.norm, np.broadcast_to(0.95 ** np.array([1, 20, 60]), (2, 1, 3)), rtol=1e-9)
    assert round(float(found.norm[0, 0, -1]), 3) == 0.046
    np.testing.assert_allclose(found.factor, 0.95)
    assert found.report.startswith("lasts: after 60 steps 0.0461 times as large")
    loud = lr.interpret.gradient_flow(vanilla(6, quiet(), radius=1.1), [60], num_samples=1)
    np.testing.assert_allclose(loud.norm, 1.1**60)
    assert loud.report.startswith("explodes")
    assert float(loud.explodes[0]) == 1.0
    faint = lr.interpret.gradient_flow(vanilla(6, quiet(), radius=0.9), [60], num_samples=1)
    assert faint.report.startswith("vanishes")
    assert float(faint.vanishes[0]) == 1.0


def test_open_forget_gates_keep_the_rest() -> None:
    keeps = lr.interpret.gradient_flow(lstm(4, quiet(), forget=0.962), [1, 60], "cell", num_samples=1)
    np.testing.assert_allclose(keeps.norm[0, 0], [0.962, 0.962**60])
    assert abs(float(keeps.norm[0, 0, 1]) - 0.1) < 0.003
    wide = lr.interpret.gradient_flow(lstm(4, quiet(), forget=0.999), [60], "cell", num_samples=1)
    assert float(wide.norm[0, 0, 0]) > 0.94
    # what the readout sees of it goes through the output gate, here half open, and tanh at zero
    seen = lr.interpret.gradient_flow(lstm(4, quiet(), forget=0.999), [60], num_samples=1)
    np.testing.assert_allclose(seen.norm[0, 0, 0], 0.5 * 0.999**60)


def test_sensitivity_over_a_span_is_that_of_differences() -> None:
    posterior = posterior_of(lr.LSTM(3), lr.Innovations(1))
    (run,) = posterior.transition_runs(2)
    found = lr.interpret.sensitivity(posterior, 8, 5, num_samples=2)
    assert found.sensitivity.shape == (2, 3, 6, 3, 3)

    def end(nudge: float, lag: int, channel: int) -> torch.Tensor:
        inputs = run.inputs[:, 1, : 8 + 1].clone()
        inputs[:, 8 - lag, channel] += nudge
        return run.transition.scan(inputs, run.before[:, 1, 0])[0][:, -1].detach()

    for lag, channel in ((0, 0), (1, 2), (5, 1)):
        slope = (end(1e-5, lag, channel) - end(-1e-5, lag, channel)) / 2e-5
        np.testing.assert_allclose(found.sensitivity.values[:, 1, lag, :, channel], slope, atol=1e-9, rtol=1e-5)
    values = np.linalg.svd(found.sensitivity.values[1, 0, 3], compute_uv=False)
    np.testing.assert_allclose(found.singular_value.values[1, 0, 3], values)


def test_products_by_states_have_a_spectral_radius_and_end_where_sequences_begin() -> None:
    posterior = posterior_of(Adapting(3), lr.Innovations(1))
    found = lr.interpret.sensitivity(posterior, -1, 11, "state", "state", num_samples=1)
    steps = lr.interpret.jacobians(posterior, path="total", num_samples=1).total.values
    length = int(posterior.data.lengths[2])  # 10
    last = steps[0, 2, length - 1]
    product = last @ steps[0, 2, length - 2] @ steps[0, 2, length - 3]
    np.testing.assert_allclose(found.sensitivity.sel(lag=3)[0, 2], product, atol=1e-12)
    radius = np.abs(np.linalg.eigvals(product)).max()
    np.testing.assert_allclose(found.spectral_radius.sel(lag=3)[0, 2], radius)
    there = found.sensitivity[0, 2].notnull().all(("of", "by"))
    assert there.values.tolist() == [lag <= length for lag in found.lag.values]
    late = lr.interpret.sensitivity(posterior, 11, 2, num_samples=1).sensitivity
    assert bool(late[0, 0].notnull().all())
    assert bool(late[0, 1:].isnull().all())


def test_paths_draws_and_members_have_flows_of_their_own() -> None:
    memory = lr.LeakyIntegrator(1, priors={"time_constant": dist.LogNormal(-3.0, 0.5)})
    posterior = posterior_of(memory, lr.Innovations(1))
    found = lr.interpret.gradient_flow(posterior, [2, 11, 12], num_samples=3)
    tau = next(iter(posterior.parameters(3).values())).numpy().reshape(3)
    np.testing.assert_allclose(found.norm[:, 0, 0], np.exp(-0.02 / tau), rtol=1e-6)
    assert bool(found.norm.sel(lag=12)[:, 1:].isnull().all())  # shorter sequences
    np.testing.assert_allclose(found.factor, np.exp(-0.01 / tau)[:, None] * np.ones(3), rtol=1e-6)
    both = lr.EnsemblePosterior([posterior, posterior], torch.tensor([0.5, 0.5]))
    pooled = lr.interpret.gradient_flow(both, [2], num_samples=6)
    assert pooled.member.values.tolist() == [0, 0, 0, 1, 1, 1]
    own = posterior_of(Adapting(3), lr.Innovations(1))
    held = lr.interpret.gradient_flow(own, [5], path="direct", num_samples=1)
    np.testing.assert_allclose(held.norm, 0.9**5)
    assert float(np.abs(lr.interpret.gradient_flow(own, [5], num_samples=1).norm - 0.9**5).max()) > 0.01


def test_mistakes_are_named() -> None:
    posterior = posterior_of(lr.GRU(3), lr.Innovations(1), recording())
    with pytest.raises(ValueError, match="longest sequence's 12 steps; found 13"):
        lr.interpret.gradient_flow(posterior, [13])
    with pytest.raises(ValueError, match="each of lags"):
        lr.interpret.gradient_flow(posterior, [0])
    with pytest.raises(ValueError, match="at least one"):
        lr.interpret.gradient_flow(posterior, [])
    with pytest.raises(ValueError, match="vanishing"):
        lr.interpret.gradient_flow(posterior, [1], vanishing=0.0)
    with pytest.raises(ValueError, match=r"at .*12"):
        lr.interpret.sensitivity(posterior, 12, 3)
    with pytest.raises(ValueError, match="span"):
        lr.interpret.sensitivity(posterior, 2, 0)
