"""How heads answer to gates, against the equations of an LSTM and differences."""

from __future__ import annotations

import numpy as np
import pyro.distributions as dist
import pytest
import torch

import latentrnn as lr
from tests.interpret.small import Adapting, posterior_of


def test_an_output_gate_is_a_valve() -> None:
    posterior = posterior_of(lr.LSTM(4), lr.Innovations(2))
    found, traces = lr.interpret.head_sensitivity(posterior, "spikes", num_samples=3), lr.interpret.trace(posterior, 3)
    weight = posterior.model.observations["spikes"].readout.weight.detach().numpy()
    o, cell = traces.output.values[..., None, :], traces.cell.values[..., None, :]
    expected = weight * np.tanh(cell) * o * (1 - o)
    assert np.abs(weight).min() > 1e-4  # nothing is compared with nothing
    np.testing.assert_allclose(found.sensitivity, expected, atol=1e-12)  # NaN in padding, as in the traces
    np.testing.assert_allclose(found["gate"], traces.output)


def test_layers_and_streams_have_gates_of_their_own() -> None:
    posterior = posterior_of(lr.LSTM(3, layers=2), lr.Innovations(1))
    upper = lr.interpret.head_sensitivity(posterior, "spikes", "layer1.output", num_samples=1).isel(sequence=0)
    traces = lr.interpret.trace(posterior, 1).isel(sequence=0)
    weight = posterior.model.observations["spikes"].readout.weight.detach().numpy()
    o, cell = (traces[f"layer1.{name}"].values[..., None, :] for name in ("output", "cell"))
    np.testing.assert_allclose(upper.sensitivity, weight * np.tanh(cell) * o * (1 - o), atol=1e-12)
    lower = lr.interpret.head_sensitivity(posterior, "spikes", "layer0.output", num_samples=1).isel(sequence=0)
    (run,) = posterior.transition_runs(1)

    def predictor(nudge: float) -> np.ndarray:
        layers = iter([nudge * torch.tensor([1.0, 0.0, 0.0]).double(), torch.zeros(3).double()])

        def nudged(name: str, value: torch.Tensor) -> torch.Tensor:
            return torch.sigmoid(torch.logit(value) + next(layers)) if name == "output" else value

        with run.transition.gates_through(nudged):
            state = run.transition.step(run.before[:, 0], run.inputs[:, 0])
        return run.transition.output(state).detach().numpy() @ weight.T

    np.testing.assert_allclose(lower.sensitivity.values[..., 0], (predictor(1e-5) - predictor(-1e-5)) / 2e-5, atol=1e-8)
    streams = posterior_of(lr.Streams({"fast": lr.GRU(2), "slow": lr.LSTM(3)}), lr.Innovations(1))
    slow = lr.interpret.head_sensitivity(streams, "spikes", "slow.output", num_samples=1).isel(sequence=0)
    traces = lr.interpret.trace(streams, 1).isel(sequence=0)
    weight = streams.model.observations["spikes"].readout.weight.detach().numpy()[:, 2:]
    o, cell = (traces[f"slow.{name}"].values[..., None, :] for name in ("output", "cell"))
    np.testing.assert_allclose(slow.sensitivity, weight * np.tanh(cell) * o * (1 - o), atol=1e-12)


def test_draws_and_transitions_of_ones_own() -> None:
    head = lr.Poisson(priors={"weight": dist.Normal(0.0, 1.0)})
    posterior = posterior_of(Adapting(3), lr.Innovations(1), head=head)
    found = lr.interpret.head_sensitivity(posterior, "spikes", "room", num_samples=3)
    traces = lr.interpret.trace(posterior, 3)
    weight = next(iter(posterior.parameters(3).values())).numpy().reshape(3, 1, 1, 3, 3)
    linear = posterior.model.transition.map
    admitted = traces.inputs.values @ linear.weight.detach().numpy().T + linear.bias.detach().numpy()
    room = traces.room.values
    expected = weight * (room * (1 - room) * admitted)[..., None, :]
    np.testing.assert_allclose(found.sensitivity, expected, atol=1e-12)
    weights = lr.LSTM(2, priors={"weights": lr.NetworkPrior()})
    posterior = posterior_of(weights, lr.Innovations(1))
    found, traces = lr.interpret.head_sensitivity(posterior, "spikes", num_samples=3), lr.interpret.trace(posterior, 3)
    weight = posterior.model.observations["spikes"].readout.weight.detach().numpy()
    o, cell = traces.output.values[..., None, :], traces.cell.values[..., None, :]
    np.testing.assert_allclose(found.sensitivity, weight * np.tanh(cell) * o * (1 - o), atol=1e-9)


def test_a_slow_head_answers_at_the_steps_that_it_reads() -> None:
    rng = np.random.default_rng(0)
    data = lr.SequenceData.from_arrays({"spikes": rng.normal(size=(2, 4, 1))}, dt=0.01, clocks={"spikes": 2})
    posterior = posterior_of(lr.LSTM(2), lr.Innovations(1), data, lr.Gaussian())
    found = lr.interpret.head_sensitivity(posterior, "spikes", num_samples=2).sensitivity
    assert bool((found.isel(time=slice(0, None, 2)) == 0).all())
    assert bool((found.isel(time=slice(1, None, 2)) != 0).all())


def test_mistakes_are_named() -> None:
    posterior = posterior_of(lr.LSTM(3), lr.Innovations(1))
    with pytest.raises(ValueError, match=r"gate .*'valve'"):
        lr.interpret.head_sensitivity(posterior, "spikes", "valve")
    with pytest.raises(ValueError, match=r"head .*'rates'"):
        lr.interpret.head_sensitivity(posterior, "rates")
    with pytest.raises(ValueError, match="'candidate' is what is let in"):
        lr.interpret.head_sensitivity(posterior, "spikes", "candidate")
    attending = posterior_of(lr.LSTM(3), lr.Innovations(1), head=lr.Poisson(readout=lr.CausalAttention(2)))
    with pytest.raises(ValueError, match="'spikes' reads other steps"):
        lr.interpret.head_sensitivity(attending, "spikes")
    drawn = posterior_of(lr.GRU(3), lr.MarkovNormal())
    with pytest.raises(ValueError, match="draws the states"):
        lr.interpret.head_sensitivity(drawn, "spikes", "update")
