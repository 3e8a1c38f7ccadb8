"""Time constants by gates and Jacobians, of planted memories, against closed forms."""

from __future__ import annotations

import warnings

import numpy as np
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

import latentrnn as lr
from tests.interpret.planted import lstm, orthogonal, planted, quiet, vanilla
from tests.interpret.small import Adapting, posterior_of, recording
from tests.registry import OBSERVATIONS, TRANSITIONS, latent_for, make_data, make_model


def test_a_forget_gate_of_95_percent_at_10_ms_is_195_ms() -> None:
    found = lr.interpret.time_constants(lstm(3, quiet(), forget=0.95), plausible=(0.15, 0.25), num_samples=2)
    np.testing.assert_allclose(found.tau, -0.01 / np.log(0.95), rtol=1e-9)
    assert round(1e3 * float(found.tau[0, 0, 0, 0])) == 195
    np.testing.assert_allclose(found.jacobian_tau, -0.01 / np.log(0.95), rtol=1e-6)
    np.testing.assert_allclose(found.disagreement, 1.0, rtol=1e-6)
    assert float(found.within.mean()) == 1.0
    assert not bool(found.reads_state.any())
    assert found.time_unit == "s"


def test_a_forget_gate_of_962_keeps_a_tenth_over_60_steps() -> None:
    found = lr.interpret.time_constants(lstm(2, quiet(), forget=0.962), left=0.1, num_samples=1)
    assert np.ceil(found.memory_steps.values).tolist() == [[[60.0, 60.0]]]
    np.testing.assert_allclose(found.memory, found.memory_steps * 0.01)
    np.testing.assert_allclose(found.jacobian_memory_steps, found.memory_steps[..., 0], rtol=1e-6)
    steps = lr.interpret.time_constants(lstm(2, quiet(dt=None), forget=0.962), num_samples=1)
    np.testing.assert_allclose(steps.tau, -1 / np.log(0.962))
    assert steps.time_unit == "step"


def test_a_network_without_gates_has_the_time_constant_of_its_spectral_radius() -> None:
    found = lr.interpret.time_constants(vanilla(5, quiet(), radius=0.95), num_samples=1)
    np.testing.assert_allclose(found.jacobian_tau, -0.01 / np.log(0.95), rtol=1e-6)
    assert not {"tau", "disagreement"} & set(found.data_vars)
    growing = lr.interpret.time_constants(vanilla(5, quiet(steps=30), radius=1.1), num_samples=1)
    np.testing.assert_allclose(growing.jacobian_tau, -0.01 / np.log(1.1), rtol=1e-6)
    assert bool(np.isinf(growing.jacobian_memory).all())


def test_what_remembers_otherwise_than_by_its_gates_is_warned_of() -> None:
    # a GRU whose update gates let nearly everything go, and whose candidate writes it back
    size, share = 3, 0.99
    bias = torch.zeros(3 * size)
    bias[:size], bias[size : 2 * size] = 20.0, np.log((1 - share) / share)
    weight = torch.zeros(3 * size, size).double()
    weight[2 * size :] = 0.98 * orthogonal(size)
    posterior = planted(lr.GRU(size), quiet(), **{"kernel.bias_ih_l0": bias, "kernel.weight_hh_l0": weight})
    with pytest.warns(
        UserWarning, match=r"time_constants: the longest memory of the gates is 0\.00\d+ times"
    ) as caught:
        found = lr.interpret.time_constants(posterior, num_samples=1)
    assert caught[0].filename == __file__
    assert float(found.tau.max()) < 0.003 < 0.2 < float(found.jacobian_tau.min())
    both = lr.EnsemblePosterior([planted(lr.GRU(size), quiet()), posterior], torch.tensor([0.5, 0.5]))
    with pytest.warns(UserWarning, match="member 1: ") as caught:
        pooled = lr.interpret.time_constants(both, num_samples=4)
    assert len(caught) == 1
    assert pooled.member.values.tolist() == [0, 0, 1, 1]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        lr.interpret.time_constants(posterior, num_samples=1, disagreement=None)


def test_each_step_has_its_own_gap_where_times_are_irregular() -> None:
    rng = np.random.default_rng(0)
    times = [np.cumsum(rng.uniform(0.01, 0.3, steps)) for steps in (8, 5)]
    spikes = [np.ones((len(each), 1)) for each in times]
    data = lr.SequenceData.from_arrays({"spikes": spikes}, {"x": spikes}, times=times)
    leaky = posterior_of(lr.LeakyIntegrator(2, tau=[0.1, 0.4], learned=False), lr.Deterministic(), data)
    found = lr.interpret.time_constants(leaky, num_samples=1)
    np.testing.assert_allclose(found.tau[0, 0, 1:], np.broadcast_to([0.1, 0.4], (7, 2)), rtol=1e-6)
    assert bool(found.tau[0, :, 0].isnull().all())  # no time has passed
    np.testing.assert_allclose(found.jacobian_tau, 0.4, rtol=1e-6)
    np.testing.assert_allclose(found.memory[0, 1], np.array([0.1, 0.4]) * np.log(10), rtol=1e-6)
    with pytest.warns(UserWarning, match="counts steps"):
        posterior = lstm(2, data, forget=0.9)
    counting = lr.interpret.time_constants(posterior, num_samples=1)
    gaps = np.diff(times[0])
    np.testing.assert_allclose(counting.tau[0, 0, 1:, 0], -gaps / np.log(0.9), rtol=1e-6)


def test_gates_by_name_of_transitions_of_ones_own() -> None:
    posterior = posterior_of(Adapting(3), lr.Innovations(1))
    plain = lr.interpret.time_constants(posterior, num_samples=2)
    assert "tau" not in plain  # the transition does not say what it keeps
    found = lr.interpret.time_constants(posterior, "room", complement=True, num_samples=2, disagreement=None)
    room = lr.interpret.trace(posterior, 2).room
    np.testing.assert_allclose(found.tau, -0.01 / np.log(1 - room), rtol=1e-9)
    assert bool(found.reads_state.all())
    total = np.log(1 - room[0, 2, :10]).sum("time")
    np.testing.assert_allclose(found.memory_steps[0, 2], np.log(0.1) * 10 / total, rtol=1e-9)


def test_layers_and_streams_keep_shares_of_their_own() -> None:
    stacked = posterior_of(lr.LSTM(3, layers=2), lr.Innovations(1))
    found = lr.interpret.time_constants(stacked, num_samples=1, disagreement=None)
    traces = lr.interpret.trace(stacked, 1)
    for layer in range(2):
        np.testing.assert_allclose(found[f"layer{layer}.tau"], -0.01 / np.log(traces[f"layer{layer}.forget"]))
    assert bool(found["layer1.reads_state"].all())
    streams = posterior_of(lr.Streams({"fast": lr.GRU(2), "slow": lr.LSTM(3)}), lr.Innovations(1))
    found = lr.interpret.time_constants(streams, num_samples=1, disagreement=None)
    traces = lr.interpret.trace(streams, 1)
    np.testing.assert_allclose(found["fast.tau"], -0.01 / np.log(1 - traces["fast.update"]))
    np.testing.assert_allclose(found["slow.tau"], -0.01 / np.log(traces["slow.forget"]))
    assert "disagreement" in found
    mixed = posterior_of(lr.Streams({"fast": lr.VanillaRNN(2), "slow": lr.LSTM(3)}), lr.Innovations(1))
    assert "disagreement" not in lr.interpret.time_constants(mixed, num_samples=1)


class Depressed(lr.Transition):
    """A gate of the input alone in the place of a forget gate: h' = k(x) h + x."""

    hidden_size = state_size = 1

    def build(self, input_size: int) -> None:
        self.map = torch.nn.Linear(input_size, 1)

    def step(self, state: Tensor, inputs: Tensor) -> Tensor:
        keep = self.gate("keep", torch.sigmoid(self.map(inputs)))
        return keep * state + self.map(inputs)


def test_whether_a_gate_reads_the_state_is_found() -> None:
    free = lr.interpret.time_constants(posterior_of(Depressed(), lr.Innovations(1)), "keep", num_samples=3)
    assert not bool(free.reads_state.any())
    np.testing.assert_allclose(free.disagreement, 1.0, rtol=1e-6)  # nothing else remembers
    drawn = lr.ModulatedForgetLSTM(2, priors={"alpha": dist.Normal(0.0, 1.0)})
    own = lr.interpret.time_constants(posterior_of(drawn, lr.Innovations(1)), num_samples=3, disagreement=None)
    assert not bool(own.reads_state.any())
    reading = lr.LSTM(2, priors={"weights": lr.NetworkPrior()})
    own = lr.interpret.time_constants(posterior_of(reading, lr.Innovations(1)), num_samples=3, disagreement=None)
    assert bool(own.reads_state.all())


def test_a_posterior_of_the_time_constant_gives_its_draws() -> None:
    memory = lr.LeakyIntegrator(2, priors={"time_constant": dist.LogNormal(np.log(0.1), 1.0)})
    posterior = posterior_of(memory, lr.Innovations(1))
    found = lr.interpret.time_constants(posterior, plausible=(0.05, 0.2), num_samples=50)
    tau = next(iter(posterior.parameters(50).values())).numpy().reshape(50, 2)
    np.testing.assert_allclose(found.tau[:, 0, 3], tau, rtol=1e-6)
    np.testing.assert_allclose(found.jacobian_tau[:, 1], tau.max(-1), rtol=1e-6)
    np.testing.assert_allclose(found.within, (tau > 0.05) & (tau < 0.2))
    short = lr.interpret.summarise(found)
    np.testing.assert_allclose(short.within.sel(statistic="mean"), ((tau > 0.05) & (tau < 0.2)).mean(0))
    assert float(short.reads_state.max()) == 0.0


def test_a_rotation_has_a_frequency() -> None:
    angle, radius = 2 * np.pi * 5 * 0.01, 0.9  # 5 Hz in bins of 10 ms
    turn = radius * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    posterior = planted(lr.VanillaRNN(2), quiet(), **{"kernel.weight_hh_l0": torch.tensor(turn)})
    found = lr.interpret.spectrum(posterior, num_samples=1)
    np.testing.assert_allclose(found.frequency, 5.0)
    np.testing.assert_allclose(found.time_constant, -0.01 / np.log(0.9))
    np.testing.assert_allclose(found.modulus, 0.9)
    longest = lr.interpret.time_constants(posterior, num_samples=1)
    np.testing.assert_allclose(longest.jacobian_tau, -0.01 / np.log(0.9), rtol=1e-6)
    padded = lr.interpret.spectrum(posterior_of(lr.GRU(3), lr.Innovations(1)), num_samples=2)
    assert bool(padded.time_constant.isel(sequence=2, time=-1).isnull().all())
    assert bool((padded.modulus.diff("mode").isel(sequence=0) <= 0).all())


@pytest.mark.parametrize("name", TRANSITIONS)
def test_every_transition_has_time_constants(name: str) -> None:
    data = make_data(OBSERVATIONS["poisson"])
    model, guide = make_model(name, latent_for(name, "poisson", "innovations"), "poisson", data)
    posterior = lr.Posterior(model, guide, data)
    found = lr.interpret.time_constants(posterior, num_samples=2, disagreement=None)
    steps = lr.interpret.jacobians(posterior, path="total", num_samples=2).total.values
    product = steps[1, 1, 2] @ steps[1, 1, 1] @ steps[1, 1, 0]  # the second sequence has three steps
    radius = np.abs(np.linalg.eigvals(product)).max()
    np.testing.assert_allclose(found.jacobian_tau[1, 1], -0.06 / np.log(radius), rtol=1e-5)
    modes = lr.interpret.spectrum(posterior, num_samples=2)
    largest = np.abs(np.linalg.eigvals(steps[0, 0, 4])).max()
    np.testing.assert_allclose(modes.modulus[0, 0, 4, 0], largest, rtol=1e-6)


def test_mistakes_are_named() -> None:
    posterior = posterior_of(lr.LSTM(3), lr.Innovations(1), recording())
    with pytest.raises(ValueError, match=r"gate .*'keep'"):
        lr.interpret.time_constants(posterior, "keep")
    with pytest.raises(ValueError, match=r"'candidate' has values outside \[0, 1\]"):
        lr.interpret.time_constants(posterior, "candidate")
    with pytest.raises(ValueError, match="complement"):
        lr.interpret.time_constants(posterior, complement=True)
    with pytest.raises(ValueError, match="plausible"):
        lr.interpret.time_constants(posterior, plausible=(0.2, 0.1))
    with pytest.raises(ValueError, match="plausible"):
        lr.interpret.time_constants(posterior, plausible=(0.2,))
    with pytest.raises(ValueError, match="left"):
        lr.interpret.time_constants(posterior, left=1.0)
    with pytest.raises(ValueError, match="disagreement"):
        lr.interpret.time_constants(posterior, disagreement=0.5)
    with pytest.raises(ValueError, match=r"path .*'held'"):
        lr.interpret.spectrum(posterior, path="held")
