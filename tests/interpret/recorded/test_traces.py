"""Traces of gates, states and inputs against recursions in NumPy, for every transition and kind of posterior."""

from __future__ import annotations

import numpy as np
import pyro.distributions as dist
import pytest
import torch

import latentrnn as lr
from tests.interpret.small import Adapting, posterior_of, recording, sigmoid
from tests.registry import OBSERVATIONS, TRANSITIONS, latent_for, make_data, make_model


def test_gates_and_cells_of_an_lstm_are_those_of_a_recursion() -> None:
    posterior = posterior_of(lr.LSTM(4), lr.Innovations(2))
    found = lr.interpret.trace(posterior, 3)
    kernel = posterior.model.transition.kernel
    weight, recurrent = (p.detach().numpy() for p in (kernel.weight_ih_l0, kernel.weight_hh_l0))
    bias = (kernel.bias_ih_l0 + kernel.bias_hh_l0).detach().numpy()
    drawn = posterior.latents(3)["innovations"].numpy()
    for sample, sequence in ((0, 0), (2, 1)):
        h, c = np.zeros(4), np.zeros(4)
        for t in range(int(posterior.data.lengths[sequence])):
            a = np.concatenate([posterior.data.covariates["x"][sequence, t].numpy(), drawn[sample, sequence, t]])
            i, f, g, o = np.split(weight @ a + recurrent @ h + bias, 4)
            i, f, g, o = sigmoid(i), sigmoid(f), np.tanh(g), sigmoid(o)
            c = f * c + i * g
            h = o * np.tanh(c)
            here = found.isel(sample=sample, sequence=sequence, time=t)
            own = {"input": i, "forget": f, "candidate": g, "output": o, "cell": c, "hidden": h, "inputs": a}
            for name, value in own.items():
                np.testing.assert_allclose(here[name], value, atol=1e-12, err_msg=name)
    assert bool(found.forget.isel(sequence=2, time=-1).isnull().all())  # padding
    assert found.input_channel.values.tolist() == ["x[0]", "x[1]", "innovation[0]", "innovation[1]"]
    np.testing.assert_allclose(found.time, 0.01 * np.arange(12))


def test_layers_have_names_of_their_own() -> None:
    posterior = posterior_of(lr.LSTM(4, layers=2), lr.InitialState(2))
    found = lr.interpret.trace(posterior, 2)
    assert {"layer0.forget", "layer1.forget", "layer0.cell", "layer1.hidden"} <= set(found.data_vars)
    states = posterior.latents(2)["states"]
    torch.testing.assert_close(torch.tensor(found["layer1.hidden"].values), states, equal_nan=True)
    # the first layer's hidden state drives the second: its gates follow from it
    kernel = posterior.model.transition.kernel
    below, before = found["layer0.hidden"].values[0, 0, 1:], found["layer1.hidden"].values[0, 0, :-1]
    pre = below @ kernel.weight_ih_l1.detach().numpy().T + before @ kernel.weight_hh_l1.detach().numpy().T
    pre += (kernel.bias_ih_l1 + kernel.bias_hh_l1).detach().numpy()
    np.testing.assert_allclose(found["layer1.forget"].values[0, 0, 1:], sigmoid(pre[:, 4:8]), atol=1e-12)


def test_streams_and_the_past_have_names() -> None:
    streams = lr.Streams({"fast": lr.GRU(2), "slow": lr.LSTM(3)})
    head = lr.Poisson(feedback=lr.History(2, into="transition"))
    found = lr.interpret.trace(posterior_of(streams, lr.InitialState(2), head=head), 2)
    assert {"fast.update", "slow.forget", "fast.hidden", "slow.cell"} <= set(found.data_vars)
    assert found["slow.cell"].sizes["unit"] == 3  # the commonest size
    assert found["fast.update"].dims[-1] == "fast.update_unit"
    assert found.input_channel.values.tolist()[:3] == ["x[0]", "x[1]", "spikes[0]"]


@pytest.mark.parametrize("latent", [lr.MarkovNormal(), lr.RecurrentNormal(2), lr.Innovations(1, prior="ar1")], ids=repr)
def test_every_latent_drives_its_transition(latent: lr.Latent) -> None:
    posterior = posterior_of(lr.GRU(3), latent)
    found = lr.interpret.trace(posterior, 4)
    for run in posterior.transition_runs(4):
        moved = run.transition.step(run.before.flatten(1, 2), run.inputs.flatten(1, 2)).detach().unflatten(1, (3, 12))
        if isinstance(latent, lr.MarkovNormal):
            torch.testing.assert_close(run.states[:, :, :-1], run.before[:, :, 1:])
            inside = posterior.data.valid.expand(4, -1, -1)
            torch.testing.assert_close(run.states[inside], posterior.latents(4)["states"][inside])
        else:
            torch.testing.assert_close(run.states, moved)
        share = found["update"].values[0, 0] * found.candidate.values[0, 0]
        expected = (1 - found["update"].values[0, 0]) * run.before[0, 0].detach().numpy() + share
        np.testing.assert_allclose(moved[0, 0], expected, atol=1e-12)
    if isinstance(latent, lr.RecurrentNormal):
        z = posterior.latents(4)["states"][..., :2]
        np.testing.assert_allclose(found.inputs.values[:, 0, 1:, 2:], z[:, 0, :-1], atol=1e-12)


def test_a_transition_of_ones_own() -> None:
    found = lr.interpret.trace(posterior_of(Adapting(3), lr.Innovations(1)), 2)
    before, room = found.hidden.values[:, 0, :-1], found.room.values[:, 0, 1:]
    np.testing.assert_allclose(room, sigmoid(-before), atol=1e-12)


def test_draws_of_parameters_have_gates_of_their_own() -> None:
    memory = lr.LeakyIntegrator(2, priors={"time_constant": dist.LogNormal(-3.0, 0.5)})
    posterior = posterior_of(memory, lr.Innovations(1))
    found = lr.interpret.trace(posterior, 5)
    (tau,) = posterior.parameters(5).values()
    expected = np.exp(-0.01 / tau.numpy())[:, None, None, :].reshape(5, 1, 1, -1)
    np.testing.assert_allclose(found.retention.values[:, 0], np.broadcast_to(expected[:, 0], (5, 12, 2)), rtol=1e-6)
    assert found.input_channel.values.tolist()[0] == "gap"


def test_members_of_an_ensemble_say_whose_draws_they_are() -> None:
    data = recording()
    members = [posterior_of(lr.GRU(3), lr.Innovations(1), data) for _ in range(2)]
    found = lr.interpret.trace(lr.EnsemblePosterior(members, torch.tensor([0.75, 0.25])), 8)
    assert found.member.values.tolist() == [0] * 6 + [1] * 2
    alone = lr.interpret.trace(members[0], 6)
    np.testing.assert_array_equal(found["update"].values[:6], alone["update"].values)


def test_a_summary_has_means_and_intervals() -> None:
    found = lr.interpret.trace(posterior_of(lr.GRU(3), lr.Innovations(1)), 50)
    short = lr.interpret.summarise(found, 0.8)
    np.testing.assert_allclose(short["update"].sel(statistic="mean"), found["update"].mean("sample"))
    np.testing.assert_allclose(short["update"].sel(statistic="lower"), np.quantile(found["update"], 0.1, axis=0))
    np.testing.assert_allclose(short["update"].sel(statistic="upper"), np.quantile(found["update"], 0.9, axis=0))


def test_mistakes_are_named() -> None:
    posterior = posterior_of(lr.GRU(3), lr.Innovations(1))
    with pytest.raises(TypeError, match="trace: expected a posterior; found LatentRNN"):
        lr.interpret.trace(posterior.model)
    with pytest.raises(ValueError, match="num_samples"):
        lr.interpret.trace(posterior, 0)
    with pytest.raises(ValueError, match="'sample'"):
        lr.interpret.summarise(lr.interpret.trace(posterior, 2).mean("sample"))


@pytest.mark.parametrize("name", TRANSITIONS)
def test_every_transition_is_opened(name: str) -> None:
    data = make_data(OBSERVATIONS["poisson"])
    model, guide = make_model(name, latent_for(name, "poisson", "innovations"), "poisson", data)
    posterior = lr.Posterior(model, guide, data)
    found = lr.interpret.trace(posterior, 2)
    states = posterior.latents(2)["states"]
    for run in posterior.transition_runs(2):
        shares = [cell.kept_share(_own(run.gates(), prefix)) for prefix, cell in model.transition.inner_cells().items()]
        assert all(share is None or bool((share >= 0).all() and (share <= 1).all()) for share in shares)
        recorded = run.transition.record(run.inputs[:, 0], run.before[:, 0, 0])
        for gate, value in run.gates().items():
            torch.testing.assert_close(value[:, 0], recorded.gates[gate])
        h = run.transition.output(run.states)
        torch.testing.assert_close(h[:, 0], states[:, 0, :, -h.shape[-1] :])
    finite = found.isel(sequence=0)
    assert all(bool(np.isfinite(finite[each]).all()) for each in found.data_vars)


def _own(gates: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name.rpartition(".")[2]: value for name, value in gates.items() if name.rpartition(".")[0] == prefix}
